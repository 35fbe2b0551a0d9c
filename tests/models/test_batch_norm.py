"""Batch normalisation of fused views: as separate forward passes, or joint."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fastmagn.models import MODELS
from fastmagn.models.batchnorm import PerViewBatchNorm, split_batch_norm
from fastmagn.models.sync_batchnorm import synchronise_batch_norm
from tests.helpers.tiers import slow_but


def one_view_at_a_time(fused: nn.Module) -> nn.Module:
    """A copy whose batch normalisation is torch's own again."""
    separate = copy.deepcopy(fused)
    for module in separate.modules():
        if isinstance(module, PerViewBatchNorm):
            module.__class__ = type(module).__mro__[2]
            del module.num_views
    assert not any(isinstance(module, PerViewBatchNorm) for module in separate.modules())
    return separate


def random_views(num_views: int, batch_size: int, size: int = 32) -> list[Tensor]:
    """Views whose statistics differ much."""
    scales = torch.linspace(0.3, 2.0, num_views)
    return [torch.rand(batch_size, 3, size, size, dtype=torch.float64) * scale for scale in scales]


@pytest.mark.parametrize("name", slow_but(MODELS, "resnet_small", "densenet121_k12"))
def test_per_view_equals_separate_forwards(build, name):
    fused = build(name, num_views=2, bn_views="per_view").double()
    separate = one_view_at_a_time(fused)
    views = random_views(2, batch_size=2, size=16)  # a quarter of the time of 32
    with torch.no_grad():
        torch.testing.assert_close(fused(torch.cat(views)), torch.cat([separate(view) for view in views]))
    for (buffer_name, a), (_, b) in zip(fused.named_buffers(), separate.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=buffer_name)


@pytest.mark.parametrize("num_views", [1, 3])
def test_per_view_gradients_equal_separate_forwards(build, num_views):
    fused = build("resnet_small", num_views=num_views, bn_views="per_view").double()
    separate = one_view_at_a_time(fused)
    views = random_views(num_views, batch_size=5)
    fused(torch.cat(views)).square().sum().backward()
    torch.cat([separate(view) for view in views]).square().sum().backward()
    for (name, a), (_, b) in zip(fused.named_parameters(), separate.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_joint_is_one_forward_of_the_plain_network(build):
    views = random_views(2, batch_size=4)
    plain, joint = build("wideresnet40_2").double(), build("wideresnet40_2", num_views=2, bn_views="joint").double()
    split = build("wideresnet40_2", num_views=2, bn_views="per_view").double()
    split.load_state_dict(joint.state_dict())  # the same names: a checkpoint fits both
    assert {type(module) for module in joint.modules() if isinstance(module, nn.BatchNorm2d)} == {nn.BatchNorm2d}
    logits = joint(torch.cat(views))
    torch.testing.assert_close(logits, plain(torch.cat(views)))
    assert not torch.allclose(split(torch.cat(views)), logits)


def test_evaluation_uses_running_statistics(build):
    model = build("resnet_small", num_views=2, bn_views="per_view")
    model(torch.rand(8, 3, 32, 32))
    model.eval()
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(model(images), torch.cat([model(image[None]) for image in images]), atol=1e-5, rtol=1e-5)


def test_every_kind_of_batch_norm_is_split():
    """Against the definition: (x - mean) / sqrt(variance + eps), view by view and channel by channel."""
    for norm, shape in (
        (nn.BatchNorm1d(4), (6, 4)),
        (nn.BatchNorm2d(4), (6, 4, 3, 3)),
        (nn.BatchNorm3d(4), (6, 4) + (2,) * 3),
    ):
        split_batch_norm(norm, num_views=2)
        batch = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 5 + 3
        for view, normed in zip(batch.double().chunk(2), norm(batch).double().chunk(2), strict=True):
            channels = view.transpose(0, 1).flatten(1)
            variance, mean = torch.var_mean(channels, dim=1, correction=0, keepdim=True)
            expected = (channels - mean) / (variance + norm.eps).sqrt()
            torch.testing.assert_close(normed.transpose(0, 1).flatten(1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_synchronised_batch_norm_without_weights_or_statistics_is_pytorchs(options):
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(5, **options), nn.Sequential(nn.BatchNorm2d(5, **options))
    synchronise_batch_norm(ours)
    assert type(ours[0]) is not nn.BatchNorm2d
    x = torch.randn(6, 5, 7, 7) * 2 + 1
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(dict(ours[0].named_buffers()), dict(theirs.named_buffers()))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_statistics_of_synchronised_batch_norm_without_a_momentum_are_the_mean_over_batches():
    """As update_bn measures those of averaged weights; against PyTorch's own."""
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(5, momentum=None), nn.BatchNorm2d(5, momentum=None)
    synchronise_batch_norm(ours)
    assert type(ours) is not nn.BatchNorm2d
    for _ in range(4):
        x = torch.randn(6, 5, 7, 7) * 2 + 1
        theirs(x)
        ours(x)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-6, atol=1e-6)
    assert int(ours.num_batches_tracked) == 4
