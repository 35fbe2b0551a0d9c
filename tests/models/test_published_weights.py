"""Checkpoints as others publish them for CIFAR: loaded by their layers' order with the same logits, or refused."""

import json
import pickle
from argparse import Namespace
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

from fastmagn.errors import InputError
from fastmagn.models.pretrained import load_pretrained, load_weights
from fastmagn.models.weight_files import read_weights
from tests.helpers.foreign_networks import (
    AugmixResNeXt,
    AugmixWideResNet,
    DeepMindWideResNet,
    KuangliuDenseNet121,
    KuangliuResNet18,
    Standardised,
    WeiaicunzaiDenseNet121,
    WeiaicunzaiResNet18,
    WeiaicunzaiWideResNet,
    trained_like,
)
from tests.helpers.tiers import slow_but

SAME = {
    "augmix wrn": ("wideresnet40_2", AugmixWideResNet, 10),
    "augmix resnext": ("resnext29_4x32d", AugmixResNeXt, 10),
    "kuangliu resnet": ("resnet18", KuangliuResNet18, 10),
    "kuangliu densenet": ("densenet121", KuangliuDenseNet121, 10),
    "kuangliu densenet, growth 12": ("densenet121_k12", lambda k: KuangliuDenseNet121(k, growth=12), 10),
    "densenet, oldest first": ("densenet121_k12", lambda k: KuangliuDenseNet121(k, growth=12, newest_first=False), 10),
    "weiaicunzai resnet": ("resnet18", WeiaicunzaiResNet18, 100),
}


def prefixed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": value for name, value in state.items()}


def numpy_numbers() -> dict:
    return {"best": np.float64(0.9), "curve": np.arange(3.0), "seen": np.int64(4), "acc": np.float32(1)}


HOLDERS = {
    "bare": lambda state: state,
    "augmix": lambda state: {
        **{"epoch": 199, "dataset": "cifar10", "model": "wrn", "state_dict": prefixed(state, "module.")},
        **{
            "best_acc": 0.95,
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        },
    },
    "kuangliu": lambda state: {"net": prefixed(state, "module."), "acc": 95.47, "epoch": 199},
    "references of timm and torchvision": lambda state: {
        **{"model": state, "epoch": 3, "lr_scheduler": {"last_epoch": 3}},
        "args": Namespace(model="wrn", lr=0.1, aug_splits=0, mean=None, betas=[0.9, 0.99], more=Namespace(a="b")),
    },
    "numpy": lambda state: {"state_dict": state, **numpy_numbers()},
    "robustbench": lambda state: prefixed(
        {"mu": torch.full((1, 3, 1, 1), 0.5), "sigma": torch.full((1, 3, 1, 1), 0.5), **state}, "module.model."
    ),
}


@pytest.mark.parametrize(
    "kind",
    slow_but(
        SAME,
        "augmix wrn",
        "kuangliu resnet",
        "densenet, oldest first",
        "kuangliu densenet, growth 12",
        "augmix resnext",
    ),
)
def test_weights_under_other_names_give_the_same_logits(build, kind, tmp_path):
    name, theirs, num_classes = SAME[kind]
    network = trained_like(theirs(num_classes))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    ours = build(name, num_classes=num_classes).network.eval()
    line = load_pretrained(ours, tmp_path / "a.pth", num_classes)
    assert "by their order, as the names differ (" in line
    assert line.endswith(f"new for {num_classes} classes: none")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network(images)
        assert wanted.std(dim=0).mean() > 1e-3  # it depends on the image
        torch.testing.assert_close(ours(images), wanted, rtol=0, atol=1e-5)


def test_safetensors_are_read_in_the_order_of_the_file(tmp_path):
    """Which is that of the network, if its writer does not sort them; loading by order needs it."""
    header, data = {}, b""
    for number, name in enumerate(("z", "a", "m")):
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
        data += np.float32(number).tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    tensors = read_weights(tmp_path / "a.safetensors", "weights").tensors
    assert {name: tensor.item() for name, tensor in tensors.items()} == {"z": 0, "a": 1, "m": 2}
    assert list(tensors) == ["z", "a", "m"]


@pytest.mark.parametrize("holder", HOLDERS)
def test_in_every_holder_with_every_prefix(build, holder, tmp_path):
    network = trained_like(AugmixWideResNet())
    torch.save(HOLDERS[holder](network.state_dict()), tmp_path / "a.pt")
    ours = build("wideresnet40_2").network.eval()
    weights = read_weights(tmp_path / "a.pt", "weights")
    loaded = load_weights(ours, weights, tmp_path / "a.pt", 10, "weights")
    assert loaded.new == []
    assert "(conv1.weight is stem.weight here)" in loaded.line
    assert (loaded.mean, loaded.std) == (((0.5,) * 3, (0.5,) * 3) if holder == "robustbench" else (None, None))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), network(images), rtol=0, atol=1e-5)


def test_a_normalisation_beside_the_network_is_read(build, tmp_path):
    whole = trained_like(Standardised(KuangliuResNet18(), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)))
    torch.save(whole.state_dict(), tmp_path / "a.pt")
    weights = read_weights(tmp_path / "a.pt", "weights")
    ours = build("resnet18").network.eval()
    loaded = load_weights(ours, weights, tmp_path / "a.pt", 10, "weights")
    assert loaded.mean == pytest.approx((0.49, 0.48, 0.45))
    assert loaded.std == pytest.approx((0.25, 0.24, 0.26))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), whole.model(images), rtol=0, atol=1e-5)


def renamed(state: dict, *changes: tuple[str, str]) -> dict:
    for old, new in changes:
        state = {name.replace(old, new): value for name, value in state.items()}
    return state


AMBIGUOUS = {
    "numbers fall": (
        "wideresnet40_2",
        lambda: renamed(AugmixWideResNet().state_dict(), ("bn1", "bn9"), ("bn2", "bn1"), ("bn9", "bn2")),
        "has the shapes of this network under other names, but its layers are not in the order of their numbers (",
    ),
    "no shortcut is named": (
        "resnet18",
        lambda: renamed(KuangliuResNet18().state_dict(), ("shortcut", "extra")),
        "but its names do not say that the same layers are shortcuts (layer2.0.extra.0.weight would be layer2.0.downsa",
    ),
    "another layer is the shortcut": (
        "resnet18",
        lambda: renamed(KuangliuResNet18().state_dict(), ("bn2", "skip")),
        "but its names do not say that the same layers are shortcuts (layer1.0.skip.weight would be ",
    ),
    "no ReLU in the transitions": (
        "densenet121_k12",
        lambda: trained_like(WeiaicunzaiDenseNet121(10, growth=12)).state_dict(),
        "but it has no ReLU between features.transition_layer_0.down_sample.0 and features.transiti",
    ),
    "untrained densenet": (
        "densenet121_k12",
        lambda: KuangliuDenseNet121(10, growth=12).state_dict(),
        "but its batch normalisations do not say in which order it concatenates maps. Give weights",
    ),
    "padded at one side": (
        "wideresnet40_2",
        lambda: prefixed(DeepMindWideResNet().state_dict(), "module."),
        "but its names are of DeepMind's layout (layer.0.block.0.batchnorm_0.weight), whose convolutions with stride 2 "
        "pad at the bottom and right only; many have SiLU in place of ReLU. Give weights of this network",
    ),
    "biases": ("wideresnet40_2", lambda: WeiaicunzaiWideResNet(10).state_dict(), "the network lacks: init_conv"),
    "another depth": (
        "wideresnet40_2",
        lambda: AugmixWideResNet(depth=28).state_dict(),
        "names that the network lacks: conv1.weight",
    ),
    "other classes": (
        "wideresnet40_2",
        lambda: AugmixWideResNet(num_classes=100).state_dict(),
        "names that the network lacks: conv1.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_is_not_certain_is_refused_in_one_line(build, kind, tmp_path):
    name, make, message = AMBIGUOUS[kind]
    torch.save(make(), tmp_path / "a.pt")
    network = build(name).network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_pretrained(network, tmp_path / "a.pt", 10)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


OTHER_FUNCTIONS = {
    "no ReLU in the transitions": ("densenet121_k12", lambda: WeiaicunzaiDenseNet121(10, growth=12)),
    "padded at one side": ("wideresnet40_2", DeepMindWideResNet),
}


@pytest.mark.parametrize("kind", OTHER_FUNCTIONS)
def test_what_fits_by_order_is_another_function(build, kind):
    """Why such weights are refused."""
    name, make = OTHER_FUNCTIONS[kind]
    theirs = trained_like(make())
    ours = build(name).network.eval()
    pairs = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(pairs))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(ours(images), theirs(images), rtol=0, atol=1e-3)


class Payload:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_needs_code_is_refused_and_nothing_is_run(build, tmp_path, capsys):
    state = AugmixWideResNet().state_dict()
    torch.save({"state_dict": state, "args": Payload()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"state_dict": Payload()}, 2))
    torch.save({"state_dict": state, "args": Namespace(out=PurePosixPath("a"))}, tmp_path / "c.pt")
    for name, needed in (("a.pt", r"\S*print"), ("b.pt", r"\S*print"), ("c.pt", r"pathlib\.PurePosixPath")):
        with pytest.raises(
            InputError,
            match=rf"torch\.save: it needs {needed}; save its state_dict alone \(Unpi\w+; nothing in it was run\)\.$",
        ):
            load_pretrained(build("wideresnet40_2").network, tmp_path / name, 10)
    assert capsys.readouterr().out == ""
