"""A folded copy computes the network's own logits, by float64; what cannot be folded is left as it is."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fastmagn.models import MODELS, Normalised
from fastmagn.models.folding import fold_batch_norm
from tests.helpers.run_folders import randomised_model
from tests.helpers.tiers import slow_but

SIZE = (32, 32)


def some_images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def farthest(model: nn.Module, original: nn.Module) -> float:
    """The largest difference from the original's logits in float64, relative to the largest of these."""
    expected = copy.deepcopy(original).double()(some_images().double())
    return float((model(some_images()).double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", slow_but(MODELS, "resnet_small", "resnet18"))
def test_logits_of_every_network_are_its_own(name):
    model = randomised_model(name, seed=3)
    before = copy.deepcopy(model.state_dict())
    folded, num_folded, num_left = fold_batch_norm(model, SIZE)
    assert num_folded > 0
    assert num_folded + num_left == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == num_left
    assert farthest(folded, model) < 1e-5
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_all_of_a_resnet_is_folded():
    assert fold_batch_norm(randomised_model("resnet_small", seed=0), SIZE)[1:] == (9, 0)


def with_statistics(network: nn.Module) -> Normalised:
    """The network in evaluation mode, with running statistics that are not those of a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return Normalised(network, (0.5,) * 3, (0.25,) * 3).eval()


class Block(nn.Module):
    """A convolution, a batch normalisation, and a linear layer on the mean."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), norm or nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).relu().mean(dim=(2, 3)))


class ReadTwice(Block):
    def forward(self, images):
        maps = self.conv(images)
        return self.head((self.norm(maps) + maps).mean(dim=(2, 3)))


class CalledTwice(Block):
    def forward(self, images):
        return self.head((self.norm(self.conv(images)) + self.conv(images.flip(3))).mean(dim=(2, 3)))


class Branches(Block):
    def forward(self, images):
        return super().forward(images if images.mean() > 0 else -images)


class Counting(Block):
    """Python counts its calls, which a trace does not see."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images) * self.calls


class WithActivation(nn.BatchNorm2d):
    def forward(self, maps):
        return super().forward(maps).tanh()


@pytest.mark.parametrize(
    "network",
    [
        ReadTwice(),
        CalledTwice(),
        Branches(),
        Block(nn.BatchNorm2d(8, track_running_stats=False)),
        Block(WithActivation(8)),
    ],
    ids=lambda network: type(network).__name__,
)
def test_what_cannot_be_folded_is_left(network):
    model = with_statistics(network)
    folded, num_folded, num_left = fold_batch_norm(model, SIZE)
    assert (num_folded, num_left) == (0, 1)
    assert farthest(folded, model) < 1e-6


def test_a_trace_that_is_another_function_is_not_used():
    assert fold_batch_norm(with_statistics(Counting()), SIZE).num_folded == 0


def test_a_plain_block_is_folded_within_any_model():
    """An ensemble has the network behind its normalisation somewhere inside; a bare one has none."""
    model = with_statistics(Block())
    folded, *counts = fold_batch_norm(nn.Sequential(model), SIZE)
    assert counts == [1, 0]
    assert farthest(folded, model) < 1e-6
    assert fold_batch_norm(model.network, SIZE)[1:] == (0, 1)


@pytest.mark.parametrize("options", [{"bn_views": "per_view", "num_views": 4}, {"sync_bn": True}], ids=str)
def test_batch_normalisations_of_this_package_are_folded(build, options):
    model = build("resnet_small", **options).eval()
    assert fold_batch_norm(model, SIZE)[1:] == (9, 0)
