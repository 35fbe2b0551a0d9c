"""Networks of torchvision by name."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from fastmagn.errors import InputError
from fastmagn.models import build_model
from fastmagn.models.batchnorm import PerViewBatchNorm
from fastmagn.models.pretrained import load_pretrained, load_weights
from fastmagn.models.weight_files import Weights
from tests.helpers.foreign_networks import trained_like

# Parameters at 1000 classes, from torchvision's documentation of its weights (num_params).
PUBLISHED = {
    "resnet50": 25_557_032,
    "resnet18": 11_689_512,
    "densenet121": 7_978_856,
    "efficientnet_b0": 5_288_548,
    "convnext_tiny": 28_589_128,
    "mobilenet_v3_small": 2_542_856,
    "shufflenet_v2_x0_5": 1_366_792,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_number_of_parameters(build, name):
    model = build(f"torchvision:{name}", num_classes=1000, image_size=(224, 224))
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *(("resnet18", 32), ("squeezenet1_0", 64), pytest.param("googlenet", 64, marks=pytest.mark.slow)),
        *(pytest.param(name, side, marks=pytest.mark.slow) for name, side in (("inception_v3", 96), ("vit_b_32", 32))),
    ],
)
def test_networks_train(build, name, side):
    model = build(f"torchvision:{name}", image_size=(side, side))
    assert model.training
    logits = model(torch.rand(2, 3, side, side))
    assert logits.shape == (2, 10)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name


def test_mean_and_deviation_of_one_half_stand_for_transform_input():
    """torchvision's function of its own weights, for images normalised as ImageNet's."""
    theirs = trained_like(models.googlenet(num_classes=10, transform_input=True, aux_logits=False, init_weights=False))
    ours = build_model("torchvision:googlenet", num_classes=10, mean=(0.5,) * 3, std=(0.5,) * 3).eval()
    load_weights(ours.network, Weights(theirs.state_dict()), Path("a.pt"), 10, "weights")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs((images - mean) / std), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [("googlenet", 32), ("inception_v3", 96)])
def test_torchvisions_own_files_are_loaded_without_their_auxiliary_heads(build, name, side, tmp_path):
    theirs = models.get_model(name, num_classes=10, aux_logits=True, init_weights=False).eval()
    state = theirs.state_dict()
    assert any(key.startswith(("aux1.", "AuxLogits.")) for key in state)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    ours = build(f"torchvision:{name}", image_size=(side, side)).network.eval()
    line = load_pretrained(ours, tmp_path / "a.pth", 10)
    assert "; without its auxiliary heads; new for 10 classes: none" in line
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)
    torch.save(state | {"extra.weight": torch.ones(2)}, tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"has names that the network lacks: extra\.weight\. Give"):
        load_pretrained(ours, tmp_path / "b.pth", 10)


def test_it_is_torchvisions_with_the_seeds_weights(build):
    model = build("torchvision:resnet18", num_classes=1000, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = models.resnet18().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.network.state_dict().items())


def test_per_view_equals_separate_forwards(build):
    views = [torch.rand(3, 3, 32, 32, dtype=torch.float64) * scale for scale in (0.3, 1.0, 2.0)]
    fused = build("torchvision:shufflenet_v2_x0_5", num_views=3, bn_views="per_view").double()
    separate = build("torchvision:shufflenet_v2_x0_5").double()
    assert any(isinstance(module, PerViewBatchNorm) for module in fused.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(torch.cat(views)), torch.cat([separate(view) for view in views]))
    for (buffer_name, a), (_, b) in zip(fused.named_buffers(), separate.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=buffer_name)


def draws(network: nn.Module) -> bool:
    """Whether a training forward pass takes numbers from the global generator."""
    state = torch.random.get_rng_state()
    network.train()(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return not torch.equal(state, torch.random.get_rng_state())


# Dropout before the classifier; stochastic depth; both.
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "convnext_tiny", "efficientnet_b0"])
def test_nothing_is_drawn_in_training(build, name):
    assert draws(models.get_model(name, weights=None))
    assert not draws(build(f"torchvision:{name}"))


def test_what_cannot_be_built_says_so(build):
    text = r"got 'torchvision:resnet51'; expected a name of torchvision\.models\.list_models.* 'torchvision:resnet\d"
    with pytest.raises(InputError, match=text):
        build("torchvision:resnet51")
    with pytest.raises(InputError, match=r"got 'torchvision:fasterrcnn_resnet50_fpn'; expected"):
        build("torchvision:fasterrcnn_resnet50_fpn")
    with pytest.raises(InputError, match=r"torchvision:inception_v3 cannot take images of 32x32 px \(.*Kernel size"):
        build("torchvision:inception_v3")
