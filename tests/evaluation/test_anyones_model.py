"""`evaluate_robustness` of models as people have them: their outputs, dtypes, devices, images, labels and faults."""

import dataclasses
import io
import json
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import fastmagn.evaluation.cells as cells
from fastmagn import evaluate_robustness
from fastmagn.data.subset import even_subset
from fastmagn.errors import InputError
from fastmagn.evaluation.measure import MeasuredCell

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 1, 0, 2])
FEW = ("fog", "contrast")


@pytest.fixture(autouse=True)
def few_corruptions(monkeypatch):
    members = cells.set_members
    monkeypatch.setattr(cells, "set_members", lambda name, *size: FEW if name == "c15" else members(name, *size))


def linear(num_classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, num_classes))


class Giving(nn.Module):
    """The linear model with its logits in something else."""

    def __init__(self, form, num_classes: int = 3) -> None:
        super().__init__()
        self.network, self.form = linear(num_classes), form

    def forward(self, images):
        return self.form(self.network(images))


@dataclasses.dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor


class ModelOutput(OrderedDict):
    """As transformers' is: a dictionary and an object."""

    @property
    def logits(self):
        return self["logits"]


FORMS = {
    "tuple": lambda z: (z, z + 9),
    "loss first": lambda z: (z.sum(), z),
    "list": lambda z: [z],
    "dictionary": lambda z: {"features": z[:, :2], "logits": z},
    "dataclass": lambda z: Output(None, z),
    "ModelOutput": lambda z: ModelOutput(logits=z),
    "namedtuple-like": lambda z: SimpleNamespace(logits=z, aux_logits=None),
    "convolution's": lambda z: z[:, :, None, None],
}


@pytest.fixture
def expected():
    return evaluate_robustness(linear(), IMAGES, LABELS, corruption_set="c15")


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_an_output(form, expected):
    assert evaluate_robustness(Giving(FORMS[form]), IMAGES, LABELS, corruption_set="c15") == expected


def test_a_plain_function(expected):
    network = linear()
    assert evaluate_robustness(lambda images: network(images), IMAGES, LABELS, corruption_set="c15") == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_have_the_parameters_dtype(dtype, expected):
    seen = []

    def preprocess(images):
        assert images.dtype == torch.float32
        return images

    model = Giving(lambda z: (seen.append(z.dtype), z)[1]).to(dtype)
    results = evaluate_robustness(model, IMAGES, LABELS, corruption_set="c15", preprocess=preprocess)
    assert set(seen) == {dtype}
    nll, same = results["calibration"]["corrupt"]["nll"], expected["calibration"]["corrupt"]["nll"]
    assert nll == pytest.approx(same, rel=1e-6 if dtype == torch.float64 else 0.03)


IMAGE_FORMS = {
    "tensor": torch.from_numpy,
    "list of arrays": list,
    "list of tensors": lambda images: [torch.from_numpy(image) for image in images],
    "lists of rows": lambda images: [list(image) for image in images],
}
LABEL_FORMS = {
    "list": list,
    "tensor": torch.from_numpy,
    "int32 tensor": lambda labels: torch.from_numpy(labels).int(),
    "uint8": lambda labels: labels.astype(np.uint8),
}


def test_images_and_labels_of_other_kinds(expected):
    for images in IMAGE_FORMS.values():
        assert evaluate_robustness(linear(), images(IMAGES), LABELS, corruption_set="c15") == expected
    for labels in LABEL_FORMS.values():
        assert evaluate_robustness(linear(), IMAGES, labels(LABELS), corruption_set="c15") == expected


class Counting(Giving):
    """Counts the images it is given."""

    seen = 0

    def forward(self, images):
        self.seen += len(images)
        return super().forward(images)


ARRAY = "a NumPy array uint8 [N, H, W, 3], H and W at least 8."
ONE_LOGIT = (
    "of K classes, 2 or more. If z is one logit, that of class 1, give a function that returns"
    " torch.stack([0 * z, z], dim=1), z of shape [B]."
)
FORM = "expected logits [B, K], or a dictionary or an object with `logits`, or a tuple that holds them."


@pytest.mark.parametrize(
    ("form", "changed", "message"),
    [
        (lambda z: z[:, 0], {}, f"model: got outputs [2]; expected logits [2, K] {ONE_LOGIT}"),
        (lambda z: z[:, :1], {}, f"model: got outputs [2, 1]; expected logits [2, K] {ONE_LOGIT}"),
        (
            lambda z: z.argmax(1)[:, None].expand(-1, 3),
            {},
            "model: got outputs int64 [2, 3] for 2 images; expected float logits [2, K].",
        ),
        (
            lambda z: z[:, :, None, None].expand(-1, -1, 4, 4),
            {},
            "model: got outputs float32 [2, 3, 4, 4] for 2 images; expected float logits [2, K].",
        ),
        (lambda z: z[:1], {}, "model: got outputs float32 [1, 3] for 2 images; expected float logits [2, K]."),
        (lambda z: {"out": z, "aux": z}, {}, f"model: got \"a dict of ['out', 'aux']\"; {FORM}"),
        (lambda z: (z.sum(),), {}, f"model: got 'a tuple without such a tensor'; {FORM}"),
        (lambda z: z.detach().numpy(), {}, f"model: got a ndarray from it; {FORM}"),
        (lambda z: None, {}, f"model: got a NoneType from it; {FORM}"),
        (None, {"model": "resnet18"}, "model: got 'a str'; expected a PyTorch module or another function of images."),
        (
            None,
            {"labels": [0, 1, 2, 1, 0, 7]},
            "labels: got 7; expected classes 0..2, as the model returns 3 logits.",
        ),
        (None, {"labels": [[0], [1, 2]]}, "labels: got a list that is not an array ("),
        (None, {"labels": None}, "labels: got None; expected integers, one for each image; a Dataset of"),
        (None, {"device": "gpu"}, "device: got 'gpu'; expected a device of this machine ("),
        (None, {"num_images": 7}, "num_images: got 7; expected 0..6, the images there are."),
        (None, {"num_images": -1}, "num_images: got -1; expected 0..6, the images there are."),
        (None, {"num_images": "3"}, "num_images: got '3'; expected an integer."),
        (None, {"batch_size": 2.0}, "batch_size: got 2.0; expected an integer."),
        (None, {"batch_size": 0}, "eval.batch_size: got 0; expected 1 or more."),
        (None, {"callback": "print"}, "callback: got 'print'; expected a function, or None."),
        (None, {"preprocess": 0.5}, "preprocess: got 0.5; expected a function, or None."),
        (None, {"subset": "last"}, "subset: got 'last'; expected 'by class' or 'first'."),
        (
            None,
            {"images_u8": [torch.zeros(16, 16, 3, requires_grad=True)] * 6},
            "images_u8: got float32 [6, 16, 16, 3]; expected",
        ),
        (None, {"images_u8": [[[0], [0, 0]]] * 6}, "images_u8[0]: got a list that is not an array ("),
        (
            None,
            {"images_u8": [IMAGES[0], IMAGES[1], IMAGES[2, :12]]},
            "images_u8: got images of several sizes, 16 x 16 x 3 (2), 12 x 16 x 3 (1); expected one. Resize them",
        ),
        (
            None,
            {"images_u8": torch.zeros(6, 3, 16, 16, dtype=torch.uint8)},
            "images_u8: got a uint8 tensor [6, 3, 16, 16]; expected uint8 [N, H, W, 3]. images.permute(0, 2, 3, 1) puts"
            " the channels last.",
        ),
        (
            None,
            {"images_u8": torch.zeros(6, 16, 16, 3)},
            f"images_u8: got float32 [6, 16, 16, 3]; expected {ARRAY} For floats in [0, 1],",
        ),
        (
            None,
            {"images_u8": torch.zeros(6, 16, 16, 3, dtype=torch.bfloat16)},
            "images_u8: got bfloat16 [6, 16, 16, 3], a tensor that NumPy cannot read; expected uint8 [N, H, W, 3].",
        ),
        (
            None,
            {"images_u8": [torch.zeros(16, 16, 3, dtype=torch.bfloat16)] * 6},
            "images_u8[0]: got bfloat16 [16, 16, 3], a tensor that NumPy cannot read; expected an image, uint8 [H, W,",
        ),
        (
            None,
            {"images_u8": [torch.zeros(16, 16, 3, requires_grad=True)] * 6},
            f"images_u8: got float32 [6, 16, 16, 3]; expected {ARRAY} For floats in [0, 1],",
        ),
        (
            None,
            {"images_u8": torch.zeros(6, 16, 16, 3, dtype=torch.uint8, device="meta")},
            "images_u8: got uint8 [6, 16, 16, 3], a tensor that NumPy cannot read; expected uint8 [N, H, W, 3].",
        ),
        (
            None,
            {"images_u8": [[image, 1, "photo"] for image in IMAGES]},
            "images_u8[0]: got a list that is not an array (",
        ),
        (
            None,
            {"images_u8": [[torch.from_numpy(image), 1, 2] for image in IMAGES]},
            "images_u8[0]: got a list that is not an array (",
        ),
        (None, {"images_u8": []}, f"images_u8: got float64 [0]; expected {ARRAY}"),
        (None, {"images_u8": IMAGES[:0], "labels": []}, "images_u8: got 'no images'; expected at least one."),
        (None, {"images_u8": "photos"}, f"images_u8: got a str; expected {ARRAY}"),
        (None, {"images_u8": None}, f"images_u8: got a NoneType; expected {ARRAY}"),
    ],
)
def test_what_cannot_be_measured_is_one_line_before_the_first_pass(form, changed, message):
    model = Counting(form or (lambda z: z))
    with pytest.raises(InputError) as error:
        evaluate_robustness(**{"model": model, "images_u8": IMAGES, "labels": LABELS} | changed)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert model.seen <= 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(InputError) as error:
        evaluate_robustness(linear(), IMAGES, LABELS, device="cuda")
    assert str(error.value) == "device: got 'cuda'; expected cpu, as PyTorch finds no CUDA device here."


class NotFinite(nn.Module):
    """Spoils the logits of its third batch of six images, which is fog at severity 2 after clean and severity 1."""

    def __init__(self, bad: float) -> None:
        super().__init__()
        self.network, self.bad, self.batches = linear(), bad, 0

    def forward(self, images):
        logits = self.network(images)
        self.batches += len(images) == 6
        if self.batches == 3 and len(images) == 6:
            logits[[1, 4], 2] = self.bad
        return logits


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_cost_their_cell_only(bad, expected, capsys):
    found = []
    results = evaluate_robustness(NotFinite(bad), IMAGES, LABELS, corruption_set="c15", callback=found.append)
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: logits are not finite for fog at severity 2 (2 images)." in said
    json.dumps(results, allow_nan=False)
    table, whole = results["corruption_accuracy"], expected["corruption_accuracy"]
    assert table["contrast"] == whole["contrast"]
    assert table["fog"] == [whole["fog"][0], None, *whole["fog"][2:]]
    assert results["clean_accuracy"] == expected["clean_accuracy"]
    assert results["rms_calibration_error"]["clean"] == expected["rms_calibration_error"]["clean"]
    assert results["rms_calibration_error"]["corrupt"] is None
    assert results["calibration"]["corrupt"]["ece"] is None
    assert results["calibration"]["corrupt"]["nll"] is None
    assert results["calibration"]["clean"] == expected["calibration"]["clean"]
    assert results["reliability"]["corrupt"] is None
    assert [cell.accuracy is None for cell in found] == [False, False, True, *[False] * 8]


def test_a_class_ruled_out_by_minus_infinity_is_measured():
    """As if the model did not have it."""
    masked = evaluate_robustness(
        Giving(lambda z: torch.cat([z, torch.full_like(z[:, :1], -torch.inf)], 1)), IMAGES, LABELS, corruption_set="c15"
    )
    expected = evaluate_robustness(linear(), IMAGES, LABELS, corruption_set="c15")
    of_class, without = masked.pop("class_accuracy"), expected.pop("class_accuracy")
    for part, absent in (("num_images", 0), ("clean", None), ("corrupt", None)):
        assert of_class.pop(part) == [*without.pop(part), absent]
    assert (masked, of_class) == (expected, without)
    without = Giving(lambda z: torch.cat([torch.full_like(z[:, :1], -torch.inf), z[:, 1:]], 1))
    results = evaluate_robustness(without, IMAGES, LABELS, corruption_set="c15")
    assert results["calibration"]["clean"]["nll"] is None  # -log 0
    assert results["clean_accuracy"] <= 4 / 6
    json.dumps(results, allow_nan=False)


def test_no_temperature_is_fitted_where_a_label_is_ruled_out(expected, capsys):
    """Nothing changes the likelihood 0; the rest is measured."""
    without = Giving(lambda z: torch.cat([torch.full_like(z[:, :1], -torch.inf), z[:, 1:]], 1))
    for labels, fits in ((LABELS, False), (np.array([1, 1, 2, 1, 2, 2]), True)):
        results = evaluate_robustness(without, IMAGES, LABELS, corruption_set="c15", held_out=(255 - IMAGES, labels))
        json.dumps(results, allow_nan=False)
        assert (results["temperature_scaling"] is not None) == fits
        said = "held_out: no temperature is fitted, as the model rules the right class of 2 images out (-inf)."
        assert (said in " ".join(capsys.readouterr().out.split())) != fits
        assert results["corruption_accuracy"].keys() == expected["corruption_accuracy"].keys()


@pytest.mark.parametrize("network", [linear(), nn.Conv2d(3, 3, 16)])
@pytest.mark.parametrize("argument", ["ood", "held_out"])
def test_other_images_that_the_model_does_not_take_are_found_before_the_evaluation(network, argument):
    """Images of another size, on which it fails, or gives maps in place of logits."""
    large = np.zeros((3, 24, 20, 3), np.uint8)
    others = {"ood": {"small": 255 - IMAGES, "x": large}} if argument == "ood" else {"held_out": (large, [0, 1, 2])}
    seen = []
    with pytest.raises(InputError) as error:
        evaluate_robustness(lambda images: (seen.append(len(images)), network(images))[1], IMAGES, LABELS, **others)
    field = "ood x" if argument == "ood" else "held_out"
    assert str(error.value).startswith(f"{field}: got images of 24 x 20 px, which the model cannot measure (")
    assert str(error.value).endswith("); expected some that it can, as it can images of 16 x 16 px. Resize them first.")
    assert "\n" not in str(error.value)
    assert sum(seen) <= 6


def test_the_callback_is_told_of_each_cell(expected):
    found = []
    evaluate_robustness(linear(), IMAGES, LABELS, corruption_set="c15", progress=False, callback=found.append)
    names = [("clean", 0), *((name, severity) for name in FEW for severity in range(1, 6))]
    assert sorted((cell.name, cell.severity) for cell in found) == sorted(names)
    assert found[0] == MeasuredCell("clean", 0, expected["clean_accuracy"], 1, 11)
    assert [cell.num_measured for cell in found] == list(range(1, 12))
    for cell in found[1:]:
        assert cell.accuracy == expected["corruption_accuracy"][cell.name][cell.severity - 1]


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_at_a_terminal_only_if_it_is_wanted(progress, capsys, monkeypatch):
    evaluate_robustness(linear(), IMAGES, LABELS, corruption_set="c15")
    assert capsys.readouterr().out == ""
    terminal = Console(force_terminal=True, file=io.StringIO(), _environ={"TERM": "xterm"})
    monkeypatch.setattr("fastmagn.machine.console.console", terminal)
    evaluate_robustness(linear(), IMAGES, LABELS, corruption_set="c15", progress=progress)
    assert ("evaluation" in terminal.file.getvalue()) == progress


class AlwaysFirst(nn.Module):
    def forward(self, images):
        return torch.tensor([5.0, 0.0]).expand(len(images), 2)


def test_a_subset_is_drawn_evenly_over_the_classes():
    images_u8, labels = np.zeros((20, 16, 16, 3), np.uint8), np.repeat([0, 1], 10)
    results = evaluate_robustness(AlwaysFirst(), images_u8, labels, corruption_set="c15", num_images=10)
    assert results["clean_accuracy"] == 0.5
    assert results["num_images"] == 10
    assert results["subset"] == {"chosen": "by class", "of": 20, "seed": 0}
    first = evaluate_robustness(AlwaysFirst(), images_u8, labels, corruption_set="c15", num_images=10, subset="first")
    assert first["clean_accuracy"] == 1
    assert first["subset"] == {"chosen": "first", "of": 20}
    whole = evaluate_robustness(AlwaysFirst(), images_u8, labels, corruption_set="c15")
    assert whole["subset"] == {"chosen": "all", "of": 20}


def test_an_image_is_corrupted_alike_in_a_subset_and_in_the_whole_set():
    """Each logit is a mean of the image: that of a row is the same whichever images are measured beside it."""
    images_u8 = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    labels = np.repeat([0, 1], 6)
    seen = {}
    for count in (0, 5):
        means = seen[count] = []

        def model(images, means=means):
            if len(images) > 2:  # not when it is tried
                means.append(images.mean(dim=(1, 2, 3)))
            return images.mean(dim=(2, 3))

        evaluate_robustness(model, images_u8, labels, corruption_set="c15", num_images=count)
    rows = even_subset(labels, 5, 0)
    assert not np.array_equal(rows, np.arange(5))
    for some, whole in zip(seen[5], seen[0], strict=True):
        assert torch.equal(some, whole[rows])


def test_a_device_without_values_is_refused_and_the_model_stays():
    model = linear()
    with pytest.raises(InputError, match=r"device: got 'meta'; expected a device of this machine"):
        evaluate_robustness(model, IMAGES, LABELS, device="meta")
    assert next(model.parameters()).device.type == "cpu"
    with pytest.raises(InputError, match="model: got 'parameters without values, on meta'"):
        evaluate_robustness(model.to("meta"), IMAGES, LABELS)


def test_no_classes_are_no_logits():
    with pytest.raises(InputError, match=r"model: got outputs float32 \[2, 0\] for 2 images; expected float logits"):
        evaluate_robustness(lambda images: images.new_empty(len(images), 0), IMAGES, LABELS)
