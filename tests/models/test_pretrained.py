"""model.weights: first weights from files of fastmagn, timm and torchvision; what is said of files that do not fit."""

import io
import itertools
import pickle

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation.trained import load_run
from fastmagn.models.pretrained import load_pretrained, load_weights
from fastmagn.models.weight_files import read_weights
from fastmagn.training.run import train

WRAPPINGS = {
    "as it is": lambda weights: weights,
    "data parallel": lambda weights: {f"module.{name}": value for name, value in weights.items()},
    "compiled, data parallel": lambda weights: {f"module._orig_mod.{name}": value for name, value in weights.items()},
    "fastmagn's model": lambda weights: {
        "mean": torch.zeros(1, 3, 1, 1),
        "std": torch.ones(1, 3, 1, 1),
        **{f"network.{name}": value for name, value in weights.items()},
    },
    "half": lambda weights: {k: v.half() if v.is_floating_point() else v for k, v in weights.items()},
    "half, its counts too": lambda weights: {k: v.half() for k, v in weights.items()},
    "without counts": lambda weights: {k: v for k, v in weights.items() if "num_batches" not in k},
}


def equal(first: dict, second: dict, but: tuple[str, ...] = ()) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items() if name not in but)


@pytest.fixture
def weights(build):
    """Weights of resnet_small for ten classes, with values that half precision keeps."""
    state = build("resnet_small", seed=5).network.state_dict()
    return {name: value.half().float() if value.is_floating_point() else value for name, value in state.items()}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_same_weights_in_every_wrapping(build, weights, wrapping, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    write = save_file if suffix == ".safetensors" else torch.save
    write(WRAPPINGS[wrapping](weights), path)
    network = build("resnet_small", seed=6).network
    assert not equal(weights, network.state_dict())
    line = load_pretrained(network, path, 10)
    assert equal(weights, network.state_dict())
    assert f"weights from {path}: " in line
    assert line.endswith("new for 10 classes: none")


def test_counts_of_half_precision_are_whole_again_or_left_out(build, tmp_path):
    """70,000 is infinite in half precision."""
    state = build("resnet_small").network.state_dict()
    counts = [name for name in state if name.endswith("num_batches_tracked")]
    state |= {counts[0]: torch.tensor(512), counts[1]: torch.tensor(70_000)}
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "a.pt")
    network = build("resnet_small").network
    load_pretrained(network, tmp_path / "a.pt", 10)
    loaded = network.state_dict()
    assert [(loaded[name].item(), loaded[name].dtype) for name in counts[:2]] == [(512, torch.int64), (0, torch.int64)]


@pytest.mark.parametrize("holder", ["model", "state_dict"])
def test_checkpoints_of_others_hold_the_weights_beside_other_things(build, weights, holder, tmp_path):
    torch.save({"epoch": 3, "arch": "resnet", holder: weights, "optimizer": {"state": {}}}, tmp_path / "a.pth.tar")
    network = build("resnet_small").network
    load_pretrained(network, tmp_path / "a.pth.tar", 10)
    assert equal(weights, network.state_dict())


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("test_resnet", ("fc.weight", "fc.bias")),
        ("test_vit", ("head.weight", "head.bias")),
        ("test_efficientnet", ("classifier.weight", "classifier.bias")),
        ("deit_tiny_distilled_patch16_224", ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")),
    ],
)
def test_a_network_of_timm_with_a_new_classifier(build, name, head, tmp_path):
    timm = pytest.importorskip("timm", reason='needs timm: pip install "fastmagn[timm]"')
    torch.manual_seed(1)
    size = {"img_size": 32} if "it_" in name or "vit" in name else {}
    given = timm.create_model(name, num_classes=1000, **size).state_dict()
    save_file(given, tmp_path / "timm.safetensors")
    model = build(f"timm:{name}", num_classes=7)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    line = load_pretrained(model.network, tmp_path / "timm.safetensors", 7)
    after = model.network.state_dict()
    assert equal({key: value for key, value in given.items() if key not in head}, after)
    assert equal({key: before[key] for key in head}, after)
    total = sum("num_batches_tracked" not in key for key in given)
    assert f"{total - len(head)} of {total} tensors" in line
    assert line.endswith(f"new for 7 classes: {', '.join(head)}")


def test_torchvisions_resnet50_is_ours(build, tmp_path):
    from torchvision.models import resnet50

    torch.manual_seed(1)
    given = resnet50(num_classes=3).state_dict()
    torch.save(given, tmp_path / "resnet50.pth")
    network = build("resnet50", num_classes=3).network
    load_pretrained(network, tmp_path / "resnet50.pth", 3)
    assert equal(given, network.state_dict())


def test_a_file_without_a_classifier_leaves_it_new(build, weights, tmp_path):
    save_file({name: value for name, value in weights.items() if "head" not in name}, tmp_path / "a.safetensors")
    network = build("resnet_small", seed=6).network
    head = network.head.weight.clone()
    assert load_pretrained(network, tmp_path / "a.safetensors", 10).endswith("10 classes: head.weight, head.bias")
    assert torch.equal(network.head.weight, head)
    assert equal(weights, network.state_dict(), but=("head.weight", "head.bias"))


class Own(nn.Module):
    """A network of the user's: modules that are named as wrappers are, and perhaps a normalisation of its own."""

    def __init__(self, num_classes: int, inner: str, has_mean: bool) -> None:
        super().__init__()
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.add_module(inner, layers)
        if has_mean:
            self.register_buffer("mean", torch.rand(3, 1, 1))
            layers.register_buffer("std", torch.rand(3))
        layers.append(nn.Linear(4, num_classes))


@pytest.mark.parametrize("has_mean", [False, True])
@pytest.mark.parametrize("inner", ["model", "network", "module"])
@pytest.mark.parametrize("wrapping", ["as it is", "compiled, data parallel", "fastmagn's model"])
def test_modules_that_are_named_as_wrappers_keep_their_names(wrapping, inner, has_mean, tmp_path):
    """In a bare state_dict, a wrapped one, an exported file and a checkpoint; for as many classes and for others."""
    given = Own(5, inner, has_mean).state_dict()
    wrapped = WRAPPINGS[wrapping](given)
    save_file(wrapped, tmp_path / "model.safetensors")
    torch.save({"model": wrapped, "step": 3}, tmp_path / "last.pt")
    for file, num_classes in itertools.product(("model.safetensors", "last.pt"), (5, 7)):
        network = Own(num_classes, inner, has_mean)
        path = tmp_path / file
        loaded = load_weights(network, read_weights(path, "weights"), path, num_classes, "weights")
        assert loaded.new == (
            [] if num_classes == 5 else [name for name, value in given.items() if value.shape[:1] == (5,)]
        )
        assert equal(given, network.state_dict(), but=tuple(loaded.new))
        assert "by their order" not in loaded.line
        is_normalised = wrapping == "fastmagn's model"
        assert (loaded.mean, loaded.std) == (((0,) * 3, (1,) * 3) if is_normalised else (None, None))


class Command:
    def __reduce__(self):
        return (print, ("run",))


def looped() -> dict:
    loop: dict = {}
    loop["model"] = loop
    return loop


FIRST = "stem.0.weight"
# File -> its content, of bytes or for torch.save (`w` are whole weights), and what is said of it.
UNFIT = {
    "missing.pt": (None, "missing.pt: no such file; expected weights of this network."),
    "a.onnx": (
        lambda w: b"x",
        "a.onnx; expected a file named *.safetensors, *.pt, *.pth, *.bin, *.tar, or a published model (",
    ),
    "cut.pt": (lambda w: saved(w)[:9000], "cut.pt cannot be read as a file of torch.save ("),
    "empty.pt": (lambda w: b"", "empty.pt cannot be read as a file of torch.save (EOFError; nothing in it was run)."),
    "noise.pt": (lambda w: bytes(range(256)) * 9, "noise.pt cannot be read as a file of torch.save ("),
    "command.pt": (lambda w: pickle.dumps(Command(), 2), "(UnpicklingError; nothing in it was run)."),
    "cut.safetensors": (lambda w: save(w)[:9000], "cut.safetensors cannot be read as safetensors ("),
    "huge.safetensors": (lambda w: b"\xff" * 7 + b"\x00{}", "huge.safetensors cannot be read as safetensors ("),
    "list.pt": (lambda w: [1, 2], "list.pt holds no named weights; expected a state_dict of the network."),
    "nothing.pt": (lambda w: {}, "nothing.pt holds no named weights"),
    "text.pt": (lambda w: {"state_dict": {"a": "b"}}, "text.pt holds no named weights"),
    "loop.pt": (lambda w: looped(), "loop.pt holds no named weights"),
    "sparse.pt": (lambda w: w | {FIRST: w[FIRST].to_sparse()}, "sparse.pt holds no named weights"),
    "nan.pt": (lambda w: w | {FIRST: w[FIRST] * torch.nan}, f"nan.pt has values that are not finite numbers: {FIRST}."),
    "whole.pt": (
        lambda w: w | {FIRST: w[FIRST].long()},
        f"whole.pt has numbers of another kind: {FIRST} int64 for float32. Give weights of this network",
    ),
    "more.pt": (lambda w: w | {"x.weight": torch.ones(2)}, "more.pt has names that the network lacks: x.weight. Give"),
    "part.pt": (lambda w: {FIRST: w[FIRST]}, "part.pt lacks: stem.1.weight, stem.1.bias, stem.1.running_mean and "),
    "shape.pt": (
        lambda w: w | {FIRST: torch.ones(2)},
        f"has other shapes: {FIRST} [2] for [32, 3, 3, 3]. Give weights",
    ),
    "names.pt": (
        lambda w: {f"a.{name}": value for name, value in reversed(w.items())},
        "the network lacks: a.head.bias, a.head.w",
    ),
    "head.pt": (
        lambda w: w | {"head.weight": torch.ones(7, 9)},
        "other shapes: head.weight [7, 9] for [10, 128]. Give",
    ),
}


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("file", UNFIT)
def test_a_file_that_does_not_fit_is_one_clear_line_and_changes_nothing(build, weights, file, tmp_path, capsys):
    make, message = UNFIT[file]
    if make is not None:
        content = make(weights)
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else saved(content))
    network = build("resnet_small", seed=6).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_pretrained(network, tmp_path / file, 10)
    assert str(error.value).startswith("model.weights: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""  # what the pickle asks to run
    assert equal(before, network.state_dict())


def test_a_width_that_is_the_number_of_classes_is_no_classifier(build, tmp_path):
    """32 classes, and another stem of 32 maps: both would fit in the same way."""
    weights = build("resnet_small", num_classes=16).network.state_dict()
    thin = {name: value[:16] if name.startswith("stem.") and value.ndim else value for name, value in weights.items()}
    torch.save(thin, tmp_path / "thin.pt")
    with pytest.raises(InputError, match=r"lacks|has other shapes"):
        load_pretrained(build("resnet_small", num_classes=32).network, tmp_path / "thin.pt", 32)


def configured(*arguments: str):
    fixed = ["--train.max_steps", "2", "--eval.num_images", "4", "--eval.corruption_set", "c15", "--device", "cpu"]
    return parse_config([*fixed, *arguments], "test", "A test.")


def weights_of(run_dir, config) -> dict:
    return load_run(run_dir, config=config, image_set=load_images("digits", "data")).network.state_dict()


def test_a_run_starts_from_another_and_goes_on_without_the_file(tmp_path, capsys):
    """Learning rate 1e-12: what it ends with is what it started from. The average of the weights starts there too."""
    train(configured("--run_dir", str(tmp_path / "first")))
    file = tmp_path / "first.pt"
    (tmp_path / "first" / "checkpoints" / "last.pt").rename(file)
    still = ["--optim.lr", "1e-12", "--optim.schedule", "step", "--train.seed", "3", "--train.ema_decay", "0.9"]
    arguments = [*still, "--model.weights", str(file), "--run_dir", str(tmp_path / "second")]
    capsys.readouterr()
    train(configured(*arguments))
    given = torch.load(file, weights_only=True)["model"]
    total = sum("network" in key and "num_batches_tracked" not in key for key in given)
    assert f"weights from {file}: {total} of {total} tensors" in capsys.readouterr().out
    for weights in ("last", "ema"):
        after = weights_of(tmp_path / "second", configured(*arguments, "--eval.weights", weights))
        for name in given:
            if name.endswith(("weight", "bias")):
                torch.testing.assert_close(after[name], given[name], rtol=0, atol=1e-6, msg=name)
    file.unlink()
    assert train(configured(*arguments, "--train.max_steps", "3"))["steps"] == 3
    assert "weights from" not in capsys.readouterr().out
    other = ["--train.max_steps", "4", "--model.weights", str(tmp_path / "other.pt")]
    with pytest.raises(InputError, match=r"model\.weights: got '.*other\.pt'; expected '.*first\.pt'"):
        train(configured(*arguments, *other))
