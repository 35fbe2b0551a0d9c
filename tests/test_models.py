"""Networks: published parameter counts, shapes, normalisation inside, batch normalisation of fused views."""

import copy

import pytest
import torch
from torch import nn

from fastmagn.errors import InputError
from fastmagn.models import MODELS, build_model
from fastmagn.models.batchnorm import PerViewBatchNorm2d

MEAN, STD = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)


def build(name: str, num_classes: int = 10, **options) -> nn.Module:
    return build_model(name, num_classes=num_classes, mean=MEAN, std=STD, **options)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_classes", [10, 100])
def test_every_network_gives_finite_logits_and_gradients(name, num_classes):
    model = build(name, num_classes).to(memory_format=torch.channels_last)
    images = torch.rand(4, 3, 32, 32).to(memory_format=torch.channels_last)
    logits = model(images)
    assert logits.shape == (4, num_classes)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_resnet18_has_the_published_number_of_parameters():
    # 11,173,962 for 10 classes: the count of the usual CIFAR ResNet-18 (3x3 stem, no max-pool).
    model = build("resnet18")
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    assert model.network.layer4(torch.rand(1, 256, 8, 8)).shape == (1, 512, 4, 4)


def test_the_model_normalises_its_images_itself():
    model = build("resnet_small").eval()
    images = torch.rand(2, 3, 32, 32)
    by_hand = torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    torch.testing.assert_close(model(images), model.network(by_hand))


def test_weights_depend_on_the_seed_alone():
    state = torch.random.get_rng_state()
    first, second, other = build("resnet_small", seed=3), build("resnet_small", seed=3), build("resnet_small", seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.network.head.weight, other.network.head.weight)


def test_per_view_batch_norm_equals_separate_forwards():
    fused = build("resnet_small", num_views=3, bn_views="per_view").double().train()
    separate = copy.deepcopy(fused)
    for module in separate.modules():
        if isinstance(module, PerViewBatchNorm2d):
            module.num_views = 1
    views = [torch.rand(5, 3, 32, 32, dtype=torch.float64) * scale for scale in (0.3, 1.0, 2.0)]
    logits = fused(torch.cat(views))
    torch.testing.assert_close(logits, torch.cat([separate(view) for view in views]))
    for (name, a), (_, b) in zip(fused.named_buffers(), separate.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    joint = build("resnet_small").double().train()
    joint.load_state_dict(fused.state_dict())  # the same names: a checkpoint fits both
    assert not torch.allclose(joint(torch.cat(views)), logits)


def test_per_view_batch_norm_in_evaluation_uses_running_statistics():
    model = build("resnet_small", num_views=2, bn_views="per_view")
    model(torch.rand(8, 3, 32, 32))
    model.eval()
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(model(images), torch.cat([model(image[None]) for image in images]), atol=1e-5, rtol=1e-5)


def test_an_unknown_network_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"model\.name: got 'resnet81'; expected one of .*Did you mean 'resnet18'\?"):
        build("resnet81")
