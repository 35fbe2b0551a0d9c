"""Code of the user's own, which `--import` names: through every command, and what is said if it cannot be used."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmagn import corrupt
from fastmagn.config import own_code
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config, LossConfig, TrainConfig
from fastmagn.corruptions import corrupted_as
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.extend import add_corruption, add_dataset, add_method, add_model, image_set
from fastmagn.methods.method import LogitViews, Method
from fastmagn.methods.table import get_method
from fastmagn.models import build_model
from fastmagn.sweeping.arguments import parse_arguments as parse_sweep
from fastmagn.sweeping.definition import make_trials
from fastmagn.training.loss_trial import LossTrial
from tests.helpers.commands import call
from tests.helpers.own_code import forgotten
from tests.helpers.processes import ROOT
from tests.helpers.small_runs import small_default
from tests.helpers.steps import start_run, take_steps

EXAMPLE = str(ROOT / "examples" / "own_code.py")
TRAIN = [
    *("fastmagn.train", "--run_dir", "run", "--device", "cpu", "--train.amp", "float32", "--data.name", "stripes"),
    *("--model.name", "two_layers", "--method", "smooth", "--eval.corruption_set", "smudge"),
    *("--train.batch_size", "64", "--train.epochs", "1", "--train.max_steps", "2", "--eval.num_images", "12"),
]
UNKNOWN = "method: got 'smooth'; expected one of standard, "


@pytest.fixture(autouse=True)
def forgets() -> Iterator[Callable[[], None]]:
    """What a test adds is forgotten; its result forgets at once, as a new process."""
    with forgotten() as forget:
        yield forget


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_file(here) -> Path:
    """The example, in a file that can be changed."""
    return Path(shutil.copy(EXAMPLE, here / "mine.py"))


def results() -> dict:
    return json.loads(Path("run/results.json").read_text())


def test_an_own_run_is_trained_resumed_measured_reported_and_exported(own_file, forgets, capsys):
    call([*TRAIN, "--import", "mine.py"], capsys)
    first = results()
    assert first["config"]["imports"] == "mine.py"
    assert first["class_names"] == ["rows", "columns", "checks"]
    assert len(first["corruption_accuracy"]["smudge"]) == 5
    assert first["subset"]["chosen"] == "by class"
    assert "imports: mine.py\n" in Path("run/config.yaml").read_text()
    assert Path("run/imports.py").read_bytes() == own_file.read_bytes()
    assert "distance" in Path("run/metrics.jsonl").read_text()

    forgets()
    shown = call([*TRAIN, "--import", "mine.py"], capsys).stdout
    assert "run is finished" in shown
    forgets()
    call(["fastmagn.evaluate", "--run", "run", "--import=mine.py", "--eval.num_images", "9"], capsys)
    again = json.loads(Path("run/evaluation.json").read_text())
    assert again["num_images"] == 9
    assert "smudge" in again["corruption_accuracy"]
    forgets()
    call(["fastmagn.report", "run", "--out", "report", "--import", "mine.py"], capsys)
    page = Path("report/report.html").read_text()
    assert "Smooth" in page
    assert "Smudge" in page
    forgets()
    out = ["--format", "safetensors", "--out", "m.safetensors"]
    call(["fastmagn.export", "--run", "run", "--import", "mine.py", *out], capsys)
    assert "`two_layers`" in Path("m.safetensors.md").read_text()
    forgets()
    made = ["--dataset", "stripes", "--num_images", "4", "--corruption_set", "smudge", "--out", "set"]
    call(["fastmagn.corrupt", *made, "--import", "mine.py"], capsys)
    assert np.load("set/smudge.npy").shape == (20, 32, 32, 3)


def test_the_commands_run_no_code_that_only_a_run_names(here, own_file, forgets, capsys):
    """They say which option is missing; a report needs none."""
    call([*TRAIN, "--import", "mine.py"], capsys)
    forgets()
    own_file.write_text("open('marker', 'w').close()\n")
    hint = " The configuration names the code of mine.py. If you trust it, add --import mine.py; code runs only if the"
    hint += " command line names it.\n"
    for command in (
        ["fastmagn.train", "--config", "run/config.yaml"],
        ["fastmagn.evaluate", "--run", "run"],
        ["fastmagn.export", "--run", "run", "--format", "safetensors", "--out", "m.safetensors"],
        ["fastmagn.theory", "run", "--out", "theory"],
        ["fastmagn.sweep", "--config", "run/config.yaml", "--grid", "train.seed=0,1"],
    ):
        error = call(command, capsys, expect=2).stderr
        assert error.startswith("error: eval.corruption_set: got 'smudge'; expected one of c15"), error
        assert error.endswith(hint), error
    Path("run/views.png").unlink()
    call(["fastmagn.report", "run", "--out", "report"], capsys)
    page = Path("report/report.html").read_text()
    assert "smooth" in page
    assert "add --import mine.py" in page
    assert not Path("marker").exists()


def test_an_unknown_method_of_a_run_names_the_missing_option(here, capsys):
    Path("own.yaml").write_text("imports: mine.py\nmethod: smooth\n")
    error = call(["fastmagn.train", "--config", "own.yaml"], capsys, expect=2).stderr
    assert error.startswith(f"error: {UNKNOWN}")
    assert "add --import mine.py" in error


def test_code_that_has_changed_since_is_told(own_file, forgets, capsys):
    call([*TRAIN, "--import", "mine.py"], capsys)
    forgets()
    evaluate = ["fastmagn.evaluate", "--run", "run", "--import"]
    assert "has changed" not in call([*evaluate, "run/imports.py"], capsys).stdout
    forgets()
    own_file.write_text(own_file.read_text() + "# changed\n")
    told = "warning: import: mine.py has changed since run was trained, or is another file; run/imports.py is a copy"
    assert told in call([*evaluate, "mine.py"], capsys).stdout.replace(str(Path.cwd()) + "/", "")
    forgets()
    longer = [*TRAIN, "--import", "mine.py", "--train.max_steps", "3"]
    assert told in call(longer, capsys).stdout.replace(str(Path.cwd()) + "/", "")
    assert Path("run/imports.py").read_bytes() == own_file.read_bytes(), "the copy is of what trained last"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "import: mine.py: No such file or directory; expected a Python file."),
        ("x = 1\nraise KeyError('colour')\n", "import: mine.py, line 2: KeyError: 'colour'"),
        ("def f():\n    return y\n\nf()\n", "import: mine.py, line 2: NameError: name 'y' is not defined"),
        ("a = 1\nb = = 2\n", "import: mine.py, line 2: SyntaxError: invalid syntax (mine.py, line 2)"),
        ("import nowhere\n", "import: mine.py, line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("import sys\nsys.exit('bye')\n", "import: mine.py, line 2: SystemExit: bye"),
        ("\0", "import: mine.py: SyntaxError: source code string cannot contain null bytes"),
        (
            "from fastmagn.extend import add_model\nadd_model('resnet18', print)\n",
            "import: mine.py, line 2: network 'resnet18': is a name of fastmagn's own; choose another.",
        ),
    ],
)
def test_a_file_that_cannot_be_run_is_one_line(text, message, here, capsys):
    if text is not None:
        Path("mine.py").write_text(text)
    error = call(["fastmagn.report", "run", "--out", "o", "--import", "mine.py"], capsys, expect=2).stderr
    assert error == f"error: {message}\n"


def test_one_file_and_its_neighbours(here):
    with pytest.raises(InputError, match=r"^import: got a.py and b.py; expected one file, which may import others\.$"):
        own_code.run_imported(["--import", "a.py", "--import=b.py"])
    Path("neighbour_of_mine.py").write_text("value = 3\n")
    Path("mine.py").write_text(
        "import neighbour_of_mine\nassert neighbour_of_mine.value == 3\nopen('ran', 'a').write('x')\n"
    )
    for _ in range(2):
        assert parse_config(["--import", "mine.py"], "test", "").imports == Path("mine.py")
    assert Path("ran").read_text() == "x", "it is run once"
    own_code.run_imported(["--config", "--import=nowhere.py"])  # the text or the name of a configuration


def test_a_sweep_runs_the_code_that_its_command_line_names(own_file, forgets):
    arguments = ["--grid", "train.seed=0,1", "--import", "mine.py", *TRAIN[3:]]
    request = parse_sweep(arguments)
    _, trials = make_trials(request.arguments, request.search, request.out)
    assert [trial.config.imports for trial in trials] == [Path("mine.py")] * 2
    with pytest.raises(InputError, match="code runs only if the command line names it: --import FILE"):
        parse_sweep(["--grid", "imports=a.py,b.py"])


def test_the_documentation(here, capsys):
    """Its commands are those of the test above; its programs are run."""
    page = (ROOT / "docs" / "extending.md").read_text()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)):
        exec(compile(block, f"block {number} of extending.md", "exec"), {})
    assert load_images("winds", Path()).num_classes == 4
    assert build_model("linear", num_classes=4, mean=(0, 0, 0), std=(1, 1, 1))
    assert get_method("noisy").title == "Noisy"
    assert (corrupt(np.full((1, 8, 8, 3), 60, np.uint8), "darker", 2) == 20).all()
    assert json.loads((here / "runs" / "callbacks" / "results.json").read_text())["steps"] == 4


def test_names_that_cannot_be_added():
    for name in ("", "a b", "../x", "1st", "a" * 64, 3):
        with pytest.raises(InputError, match="expected a name of up to 63 letters"):
            add_model(name, lambda num_classes: nn.Flatten())
    with pytest.raises(InputError, match="method 'magn': got a function; expected a fastmagn"):
        add_method("magn", print_nothing)
    with pytest.raises(InputError, match="method 'magn': is a name of fastmagn's own"):
        add_method("magn", get_method("standard"))
    for name in ("c15", "cbar", "clean"):
        with pytest.raises(InputError, match="is the name of a set"):
            add_corruption(name, lambda images_u8, severity, seed, indices: images_u8)
    with pytest.raises(InputError, match="data set 'x': got a int; expected a function"):
        add_dataset("x", 3)


def print_nothing() -> None:
    pass


def test_an_added_name_can_be_added_anew():
    for width in (3, 5):
        add_model("mine", lambda num_classes, width=width: nn.Linear(width, num_classes))
    assert build_model("mine", num_classes=2, mean=(0, 0, 0), std=(1, 1, 1)).network.in_features == 5


def test_what_own_functions_return_is_checked():
    add_dataset("mine", lambda folder, download: [1])
    with pytest.raises(InputError, match=r"^data\.name: mine loaded a list; expected what"):
        load_images("mine", Path())
    add_model("mine", lambda num_classes: "a network")
    with pytest.raises(InputError, match=r"^model\.name: mine built a str; expected a torch\.nn\.Module\.$"):
        build_model("mine", num_classes=2, mean=(0, 0, 0), std=(1, 1, 1))
    images_u8 = np.zeros((2, 8, 8, 3), np.uint8)
    add_corruption("mine", lambda images_u8, severity, seed, indices: images_u8 / 255)
    with pytest.raises(InputError, match=r"mine: returned float64 \[2, 8, 8, 3\]; expected uint8 \[2, 8, 8, 3\]\.$"):
        corrupt(images_u8, "mine", 1)


@pytest.mark.parametrize(
    ("layers", "got"),
    [
        ((nn.Flatten(), nn.Linear(192, 1000)), "float32 [2, 1000]"),
        ((nn.Flatten(), nn.Linear(192, 9)), "float32 [2, 9]"),
        ((nn.Conv2d(3, 10, 8),), "float32 [2, 10, 1, 1]"),
        ((nn.Flatten(), nn.Linear(192, 10), nn.GLU(), nn.Flatten(0)), "float32 [10]"),
        ((nn.AdaptiveMaxPool2d(1, return_indices=True),), "a tuple"),
    ],
)
def test_an_own_network_that_gives_no_logits_is_refused(layers, got):
    add_model("mine", lambda num_classes: nn.Sequential(*layers))
    with pytest.raises(InputError) as error:
        build_model("mine", num_classes=10, mean=(0, 0, 0), std=(1, 1, 1), image_size=(8, 8))
    assert str(error.value) == (
        f"model.name: mine gave {got} for 2 images; expected float [2, 10], a logit for each class."
    )


def test_the_trial_of_an_own_network_leaves_no_trace():
    """Modes, statistics, weights and generators are as if it had not been; its weights are on the CPU."""

    def build(num_classes: int) -> nn.Module:
        network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(192, num_classes))
        network[0].eval()
        return network

    add_model("mine", build)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    made = build_model("mine", num_classes=10, mean=(0, 0, 0), std=(1, 1, 1), seed=5, image_size=(8, 8)).network
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    expected = build(10)
    for name, value in expected.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name
    assert [module.training for module in made.modules()] == [module.training for module in expected.modules()]


def returning(result: Callable[[Tensor], object]) -> Method:
    return Method(title="Mine", loss=lambda logits, targets, weights: result(F.cross_entropy(logits.clean, targets)))


PAIR = "expected a pair: a scalar tensor, and a dict of scalar tensors by name."
SCALAR = "expected a scalar tensor of floats, such as a mean."


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda loss: loss, f"the loss of method 'Mine': got a Tensor; {PAIR}"),
        (lambda loss: (loss,), f"the loss of method 'Mine': got a tuple of 1; {PAIR}"),
        (lambda loss: (loss, loss), f"the loss of method 'Mine': got a pair with a Tensor; {PAIR}"),
        (lambda loss: (3.0, {}), f"the loss of method 'Mine': got a float; {SCALAR}"),
        (lambda loss: (loss.expand(2), {}), f"the loss of method 'Mine': got float32 [2]; {SCALAR}"),
        (
            lambda loss: (loss, {"own": 3.0}),
            "part 'own' of the loss of method 'Mine': got a float; expected a scalar tensor, such as a mean.",
        ),
        (
            lambda loss: (loss, {"loss": loss / 2}),
            "the loss of method 'Mine': got a part named 'loss'; expected another",
        ),
        (lambda loss: (loss, {"epoch": loss}), "the loss of method 'Mine': got a part named 'epoch'; expected "),
    ],
)
def test_what_an_own_loss_returns_is_checked(result, message):
    add_method("mine", returning(result))
    logits = torch.zeros(8, 10, requires_grad=True)
    for name, views in (("mine", LogitViews(logits)), ("mine+magn", LogitViews(logits, noisy=(logits,)))):
        with pytest.raises(InputError) as error:
            get_method(name).checked_loss(views, torch.arange(8), LossConfig())
        assert str(error.value).startswith(message)


def test_a_part_of_an_own_loss_may_be_a_count():
    add_method("mine", returning(lambda loss: (loss, {"num_right": torch.tensor(3)})))
    _, parts = get_method("mine").checked_loss(LogitViews(torch.zeros(8, 10)), torch.arange(8), LossConfig())
    assert parts["num_right"] == 3


def test_an_own_loss_is_tried_once_before_its_step_is_compiled():
    calls = []
    add_method("mine", returning(lambda loss: calls.append(loss)))
    for compiled in (False, True):
        config = Config(method="mine", train=TrainConfig(compile=compiled))
        trial, inputs = LossTrial(get_method("mine"), config), (torch.zeros(4, 3, 8, 8), torch.arange(4), 10)
        if compiled:
            with pytest.raises(InputError, match=r"^the loss of method 'Mine': got a NoneType; expected a pair"):
                trial.before_step(*inputs)
        trial.before_step(*inputs)
    assert len(calls) == 1


def test_an_own_loss_is_one_graph():
    add_method("mine", returning(lambda loss: (loss, {"half": loss.detach() / 2})))
    method, labels, weights = get_method("mine"), torch.arange(8), LossConfig()
    compiled = torch.compile(
        lambda logits: method.checked_loss(LogitViews(logits), labels, weights), backend="eager", fullgraph=True
    )
    loss, parts = compiled(torch.zeros(8, 10))
    assert loss.item() == pytest.approx(math.log(10))
    assert parts["half"].item() == pytest.approx(math.log(10) / 2)


def test_an_own_loss_is_checked_at_the_first_step(tmp_path):
    add_method("mine", returning(lambda loss: (loss, {"loss": loss / 2})))
    with pytest.raises(InputError, match=r"^the loss of method 'Mine': got a part named 'loss'; expected another text"):
        take_steps(start_run(small_default(tmp_path, "--method", "mine", "--train.compile", "false")), 1)


def test_an_own_corruption_gets_indices_and_may_change_its_images():
    def plus(images_u8, severity, seed, indices):
        images_u8 += (severity + seed + indices[:, None, None, None]).astype(np.uint8)
        return images_u8

    add_corruption("plus", plus)
    images_u8 = np.zeros((300, 8, 8, 3), np.uint8)
    corrupted = corrupt(images_u8, "plus", 2, seed=5, indices=np.arange(300) % 7)
    assert not images_u8.any()
    np.testing.assert_array_equal(corrupted[:, 0, 0, 0], 7 + np.arange(300) % 7)
    assert parse_config(["--eval.corruption_set", "c15+plus"], "test", "").eval.corruption_set == "c15+plus"
    assert corrupted_as((1, 32, 32, 3), False, ["plus"])["published"] is None
    assert corrupted_as((1, 32, 32, 3), False, ["plus", "fog"])["published"] == "CIFAR-10-C, CIFAR-100-C"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a", "a")}, "class_names: got ('a', 'a'); expected different strings, one for each class."),
        ({"train": (np.zeros((2, 8, 8), np.float32), [0, 1])}, "train images: got float32 [2, 8, 8]; expected uint8"),
        ({"train": (np.zeros((2, 8, 8), np.uint8), [0, 2])}, "train labels: got labels 0..2; expected integers [2] or"),
        (
            {"test": (np.zeros((2, 8, 8), np.uint8), [0.0, 1.0])},
            "test labels: got float64 [2]; expected integers [2] or",
        ),
        ({"test": (np.zeros((2, 40, 8), np.uint8), [0, 1])}, "got training images of grey 8x8 px"),
        ({"class_names": None}, "class_names: got None; expected different strings, one for each class."),
        ({"class_names": "ab"}, "class_names: got 'ab'; expected different strings, one for each class."),
        ({"train": (np.zeros((2, 8, 8), np.uint8),)}, "train: got a tuple of 1; expected a pair, the images and their"),
        ({"test": np.zeros((2, 8, 8), np.uint8)}, "test: got a ndarray; expected a pair, the images and their labels."),
        ({"test": None}, "test: got a NoneType; expected a pair, the images and their labels."),
        (
            {"train": (np.zeros((2, 8, 8), np.uint8), [[0], [0, 1]])},
            "train labels: got a list that is not an array (",
        ),
        (
            {"test": ([np.zeros((8, 8), np.uint8), np.zeros((8, 9), np.uint8)], [0, 1])},
            "test images: got a list that is not an array (",
        ),
        (
            {"class_names": ("a", "b\tc")},
            r"class_names: 1 of 2 classes have names that results cannot keep: 'b\tc'; exp",
        ),
        ({"test": (np.zeros((2, 8, 9), np.uint8), [0, 1])}, "own data set: got training images of grey 8x8 px, padded"),
    ],
)
def test_arrays_that_are_not_an_image_set(changes, message):
    part = np.zeros((2, 8, 8), np.uint8), [0, 1]
    with pytest.raises(InputError) as error:
        image_set(**({"class_names": ("a", "b"), "train": part, "test": part} | changes))
    assert message in str(error.value)


def test_an_image_set_of_arrays():
    draws = np.random.default_rng(0)
    train_u8, test_u8 = (draws.integers(0, 256, (size, 32, 32, 3), np.uint8) for size in (6, 3))
    made = image_set(class_names=["a", "b"], train=(train_u8, [0, 1] * 3), test=(test_u8, [[1], [0], [1]]))
    np.testing.assert_array_equal(np.asarray(made.train_images_u8), train_u8)
    np.testing.assert_allclose(made.mean, (train_u8 / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(made.std, (train_u8 / 255).std((0, 1, 2)))
    assert made.test_labels.tolist() == [1, 0, 1]
