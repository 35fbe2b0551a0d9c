"""Networks of timm by name, and what is said where there is none."""

import sys

import pytest
import torch
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.errors import InputError
from fastmagn.models.batchnorm import PerViewBatchNorm

NAMES = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]  # a few thousand weights each


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason='needs timm: pip install "fastmagn[timm]"')


def test_convnext_tiny_has_the_published_number_of_parameters(build, timm):
    # 28,589,128 at 1000 classes: torchvision's documentation.
    with torch.device("meta"):
        model = build("timm:convnext_tiny")
    assert sum(parameter.numel() for parameter in model.parameters()) == 28_589_128 - 990 * 769


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [32, 64])
def test_networks_of_timm_train(build, timm, name, side):
    model = build(f"timm:{name}", image_size=(side, side))
    assert model.training
    logits = model(torch.rand(4, 3, side, side))
    assert logits.shape == (4, 10)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name


def test_weights_depend_on_the_seed_alone(build, timm):
    state = torch.random.get_rng_state()
    first, second, other = (build("timm:test_resnet", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


# timm's BatchNormAct2d; BatchNorm1d over the tokens of all images; torch's own; no batch normalisation at all.
@pytest.mark.parametrize("name", ["test_efficientnet", "levit_128s", "test_resnet", "test_convnext"])
def test_per_view_equals_separate_forwards(build, timm, name):
    views = [torch.rand(3, 3, 32, 32, dtype=torch.float64) * scale for scale in (0.3, 1.0, 2.0)]
    fused = build(f"timm:{name}", num_views=3, bn_views="per_view").double()
    separate = build(f"timm:{name}").double()
    assert any(isinstance(module, PerViewBatchNorm) for module in fused.modules()) == (name != "test_convnext")
    with torch.no_grad():
        torch.testing.assert_close(fused(torch.cat(views)), torch.cat([separate(view) for view in views]))
    for (buffer_name, a), (_, b) in zip(fused.named_buffers(), separate.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=buffer_name)


def test_compiles_into_one_graph(build, timm):
    model = build("timm:test_efficientnet", num_views=2, bn_views="per_view")
    images = torch.rand(4, 3, 32, 32)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(images), model(images))


def draws(network: nn.Module) -> bool:
    """Whether a training forward pass takes numbers from the global generator."""
    state = torch.random.get_rng_state()
    network.train()(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return not torch.equal(state, torch.random.get_rng_state())


# Dropout as a function and as a module; stochastic depth; dropout in an attention's bias network.
@pytest.mark.parametrize("name", ["rexnet_100", "fasternet_t1", "test_vit_relpos"])
def test_nothing_is_drawn_in_training(build, timm, name):
    size = {"img_size": 32} if "vit" in name else {}
    assert draws(timm.create_model(name, **size))
    assert not draws(build(f"timm:{name}"))


def test_an_unknown_name_lists_near_ones(build, timm):
    text = r"model\.name: got 'timm:convnext_tinny'; expected a name of timm\.list_models\(\).* 'timm:convnext_tiny'"
    with pytest.raises(InputError, match=text):
        build("timm:convnext_tinny")
    with pytest.raises(InputError, match=r"got 'timm:'; expected a name of timm.list_models\(\), without a tag.*\.$"):
        build("timm:")


def test_pretrained_weights_are_never_fetched(build, timm):
    with pytest.raises(InputError, match=r"without a tag of weights\. Did you mean 'timm:convnext_tiny'"):
        build("timm:convnext_tiny.fb_in1k")
    with pytest.raises(InputError, match=r"got 'timm:hf-hub:timm/resnet18"):
        build("timm:hf-hub:timm/resnet18.a1_in1k")


def test_a_network_that_cannot_take_the_images_says_so(build, timm):
    text = r"model\.name: timm:inception_v3 cannot take images of 32x32 px \(.*Kernel size.*\); expected .* can\. Name"
    with pytest.raises(InputError, match=text):
        build("timm:inception_v3")


def test_without_timm_the_extra_is_named(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # what `import timm` sees where it is not installed
    text = (
        r"^model\.name: got 'timm:convnext_tiny', but timm is not installed; expected the package timm\. "
        r'Run `pip install "fastmagn\[timm\]"`, or name a network that needs none\.$'
    )
    with pytest.raises(InputError, match=text):
        build("timm:convnext_tiny")


def test_the_name_passes_through_the_command_line():
    config = parse_config(["--model.name", "timm:convnext_tiny"], "prog", "A test.")
    assert config.model.name == "timm:convnext_tiny"
