"""The export command: what its files hold and compute, the card, and what it refuses."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from safetensors import safe_open

import fastmagn
from fastmagn.config.command_line import parse_config
from fastmagn.config.text import flatten
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import InputError
from fastmagn.evaluation.trained import load_run
from fastmagn.export import main
from fastmagn.exporting import export as export_module
from fastmagn.exporting import onnx_file
from fastmagn.exporting.card import model_card
from fastmagn.exporting.config import ExportConfig
from fastmagn.exporting.info import model_info
from fastmagn.machine.files import write_json
from fastmagn.methods.test_time import model_for_test
from fastmagn.runs.progress import Progress
from tests.helpers.run_folders import CLASS_NAMES, MEAN, STD, made_results, make_run, plain_probabilities, write_run

ROOT = Path(__file__).parent.parent.parent
CARD = ExportConfig(run=Path("run"), format="safetensors", out=Path("m.safetensors"))


def export(run_dir: Path, out: Path, *arguments: str) -> Path:
    assert main(["--run", str(run_dir), "--format", out.suffix[1:], "--out", str(out), *arguments]) == 0
    return out


def read_tensors(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["fastmagn"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def run_onnx(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["images"]
    return tuple(session.run(["logits", "probabilities"], {"images": images}))


def test_safetensors_hold_the_weights_and_what_is_known(run_dir, tmp_path, capsys):
    out = export(run_dir, tmp_path / "new" / "model.safetensors")
    header, tensors = read_tensors(out)
    saved = torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)["model"]
    assert set(tensors) == set(saved)
    for name, tensor in tensors.items():
        assert tensor.is_contiguous()
        assert tensor.dtype in (torch.float32, torch.int64)
        assert torch.equal(tensor, saved[name].to(tensor.dtype)), name
    assert header["format_version"] == 1
    assert (header["network"], header["num_classes"], header["image_size"]) == ("resnet_small", 10, [32, 32])
    assert (header["method"], header["data"], header["weights"]) == ("magn", "digits", "last")
    assert tuple(header["class_names"]) == CLASS_NAMES
    assert header["mean"] == pytest.approx(MEAN)
    assert header["std"] == pytest.approx(STD)
    assert header["results"]["clean_accuracy"] == 0.9876
    assert {path.name for path in out.parent.iterdir()} == {"model.safetensors", "model.safetensors.md"}
    assert str(out) in capsys.readouterr().out


def test_safetensors_are_the_same_bytes_each_time(run_dir, tmp_path):
    first, second = (export(run_dir, tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_onnx_takes_uint8_batches_of_any_size(run_dir, onnx_u8, images_u8):
    wanted = plain_probabilities(load_run(run_dir).network, images_u8)
    for batch in (1, 3, 5):
        logits, probabilities = run_onnx(onnx_u8, images_u8[:batch])
        assert logits.dtype == probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, wanted[:batch], atol=1e-5)
        exponentials = np.exp(logits.astype(np.float64))
        np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(axis=1, keepdims=True), atol=1e-6)


def test_onnx_names_its_classes_and_numbers_and_no_path_of_the_machine(onnx_u8):
    model = onnx.load(onnx_u8)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 18
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert tuple(json.loads(metadata["class_names"])) == CLASS_NAMES
    assert (metadata["method"], metadata["data"]) == ("magn", "digits")
    assert float(metadata["clean_accuracy"]) == 0.9876
    assert json.loads(metadata["mca"])["c15"] == 0.8765
    assert metadata["input"] == "uint8 [B, 32, 32, 3]"
    written = onnx_u8.read_bytes()
    for place in (str(ROOT), sys.prefix, "site-packages", ".py"):
        assert place.encode() not in written


def test_onnx_takes_floats_and_averages_mirror_images(tmp_path, images_u8, capsys):
    _, model = make_run(tmp_path / "run", "--eval.test_time_flip", "true", results=False)
    out = export(tmp_path / "run", tmp_path / "model.onnx", "--input", "float")
    images = (images_u8.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    logits, _ = run_onnx(out, images)
    with torch.no_grad():
        both = [model(torch.from_numpy(side.copy())).numpy() for side in (images, images[..., ::-1])]
    np.testing.assert_allclose(logits, (both[0] + both[1]) / 2, atol=1e-4)
    bound = re.search(r"differ from PyTorch's by (\S+) at most \(bound 1e-04\)", capsys.readouterr().out)
    assert 0 <= float(bound[1]) <= 1e-4


@pytest.mark.parametrize("suffix", ["onnx", "safetensors"])
def test_rse_is_its_ensemble_over_the_noises_that_are_measured(tmp_path, images_u8, suffix):
    config, model = make_run(tmp_path / "run", "--method", "rse", "--eval.rse_draws", "2", "--train.seed", "5")
    out = export(tmp_path / "run", tmp_path / f"model.{suffix}")
    noises = model_for_test(model, config, (32, 32)).noises
    assert noises.std() == pytest.approx(0.1, rel=0.05)
    images = torch.from_numpy(images_u8).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        wanted = torch.stack([model(images + noise).softmax(dim=1) for noise in noises]).mean(dim=0)
    if suffix == "onnx":
        _, probabilities = run_onnx(out, images_u8)
        np.testing.assert_allclose(probabilities, wanted.numpy(), atol=1e-5)
    else:
        header, tensors = read_tensors(out)
        assert header["noise_draws"] == 2
        assert torch.equal(tensors["noises"], noises)


def test_the_average_of_the_weights(tmp_path):
    run_dir = tmp_path / "run"
    make_run(run_dir, "--train.ema_decay", "0.9")
    saved = torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)
    for weights, state in (("last", "model"), ("ema", "average")):
        header, tensors = read_tensors(export(run_dir, tmp_path / f"{weights}.safetensors", "--weights", weights))
        assert header["weights"] == weights
        assert all(torch.equal(tensors[name], value) for name, value in saved[state].items())
        assert (header["results"] is None) == (weights == "ema"), "numbers of other weights than these"
    assert "measures other weights" in (tmp_path / "ema.safetensors.md").read_text()


def test_numbers_of_an_earlier_step_are_of_other_weights(tmp_path, capsys):
    """The run ended at step 100, went on with a larger train.max_steps, and was interrupted at step 250."""
    run_dir, out = tmp_path / "run", tmp_path / "model.safetensors"
    config, model = make_run(run_dir, results=False)
    write_run(run_dir, config, step=250, model=model)
    for steps, is_measured in ((100, False), (250, True)):
        write_json(run_dir / "results.json", made_results(config, steps=steps))
        header, _ = read_tensors(export(run_dir, out))
        assert (header["results"] is not None) == is_measured
        card = out.with_name("model.safetensors.md").read_text()
        assert ("98.76 %" in card) == is_measured
        assert ("has no results.json of these weights" in capsys.readouterr().out) != is_measured


def test_batch_normalisation_by_view_is_plain_when_exported(tmp_path, images_u8):
    _, model = make_run(tmp_path / "run", "--model.bn_views", "per_view")
    header, _ = read_tensors(export(tmp_path / "run", tmp_path / "model.safetensors"))
    assert header["bn_views"] == "per_view"
    assert load_run(tmp_path / "run").network.state_dict().keys() == model.state_dict().keys()


def test_the_card_says_what_must_be_known(run_dir, tmp_path):
    export(run_dir, tmp_path / "model.safetensors")
    card = (tmp_path / "model.safetensors.md").read_text()
    for wanted in (
        *(
            "# model.safetensors",
            "`resnet_small`",
            "`magn`",
            "`digits`",
            "CC BY 4.0",
            "Licence of the weights",
            "limits",
        ),
        *("clean accuracy | 98.76 %", "mCA c15 | 87.65 %", "corrupt (c15) | 4.56 %", "On 599 test images"),
        'fastmagn.load("model.safetensors").predict(images)',
    ):
        assert wanted in card, wanted
    assert "c18" not in card, "a number that was not measured"
    assert str(tmp_path) not in card
    assert str(run_dir) not in card


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--train.ema_decay", "0.9"], "weights: a moving average over the steps."),
        (
            ["--train.swa_fraction", "0.5"],
            "weights: an equal average of those after each of the last epochs (train.swa_fraction 0.5).",
        ),
        (
            ["--train.swa_fraction", "0.25", "--train.max_steps", "9"],
            "(train.swa_fraction 0.25), or the last step's if train.max_steps ended the run before these epochs.",
        ),
    ],
)
def test_the_card_says_which_average_the_weights_are(run_dir, arguments, said):
    config = parse_config([*arguments, "--eval.weights", "ema", "--data.name", "digits"], "test", "A test.")
    trained = dataclasses.replace(load_run(run_dir), config=config)
    assert said in model_card(trained, "m.safetensors", CARD, None)


def test_the_cards_class_names_can_be_told_apart(run_dir):
    names = ("<none>", "__background__", "a|b", "c, d", "`e`", "*f*", "g", "h", "i", "j")
    trained = dataclasses.replace(load_run(run_dir), class_names=names)
    card = model_card(trained, "m.safetensors", CARD, None)
    shown = "`<none>`, `__background__`, `a|b`, `c, d`, `` `e` ``, `*f*`, `g`, `h`, `i`, `j`."
    assert f"Classes, in order: {shown}" in card


def test_class_names_that_are_not_utf8_are_escapes_in_the_card(run_dir, tmp_path, monkeypatch):
    """No run has such names any more; files that earlier versions exported do, and load."""
    names = (os.fsdecode(b"caf\xe9"), "café", *CLASS_NAMES[2:])
    trained = dataclasses.replace(load_run(run_dir), class_names=names)
    monkeypatch.setattr(export_module, "load_run", lambda *arguments, **options: trained)
    out = export(run_dir, tmp_path / "m.safetensors")
    card = out.with_name("m.safetensors.md").read_text(encoding="utf-8")
    assert r"Classes, in order: `caf\udce9`, `café`, " in card
    assert fastmagn.load(out).class_names == names


@pytest.mark.parametrize(
    ("names", "few", "title"),
    [
        (("fog",), None, "fog"),
        (("fog", "snow"), [1, 3, 5], "snow+fog at severities 1, 3 and 5"),
        (CORRUPTION_SETS["c15"], [2], "c15 at severity 2"),
        (CORRUPTION_SETS["c15"][:9], None, "9 corruptions"),
    ],
)
def test_the_card_says_what_a_mean_over_some_cells_is_over(run_dir, names, few, title):
    results = json.loads((run_dir / "results.json").read_text())
    results |= {
        "corruption_accuracy": {name: [0.5] * 5 for name in names},
        "mca": {"c15": None, "measured": 0.5},
        "severities": dict.fromkeys(names, few) if few else {},
    }
    card = model_card(dataclasses.replace(load_run(run_dir), results=results), "m.safetensors", CARD, None)
    assert f"| mCA measured ({title}) | 50.00 % |" in card
    assert "mCA c15 |" not in card


def test_texts_of_results_are_shown_literally_in_the_card(run_dir):
    """They may come from anyone."""
    hostile, shown = "a|b <img src=x>", r"a\|b \<img src=x>"
    results = json.loads((run_dir / "results.json").read_text())
    results |= {
        "mca": {hostile: 0.5},
        "steps": 5,
        "train_s": 1.0,
        "corrupted_as": {"version": 2, "jpeg_quality": hostile},
    }
    results["rms_calibration_error"] |= dict.fromkeys(("corruption_set", "binning", "pooling"), hostile)
    results["environment"] = dict.fromkeys(("device", "cpu", "torch"), hostile)
    card = model_card(dataclasses.replace(load_run(run_dir), results=results), "a|b<m.safetensors", CARD, None)
    outside_code = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<", outside_code)
    assert card.startswith("# a\\|b\\<m.safetensors\n")
    assert f"| mCA {shown} | 50.00 % |" in card
    rows = re.findall(r"^\|.*\|$", card, flags=re.MULTILINE)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert f"(version 2, JPEG {shown})" in card
    assert f"5 steps in 1 s on {shown} ({shown}), torch {shown}." in card
    assert f"({shown}, {shown})." in card


@pytest.mark.parametrize(
    ("changed", "folder", "said"),
    [
        ({}, None, "On 599 test images, with corruptions made by fastmagn; mCA"),
        (
            {
                "subset": {"chosen": "by class", "of": 5000, "seed": 3},
                "corrupted_as": {"published": "CIFAR-10-C", "version": 2, "jpeg_quality": 85},
            },
            None,
            "On 599 test images of 5,000 (drawn evenly over the classes by seed 3), with corruptions made by fastmagn"
            " (version 2, JPEG 85); mCA",
        ),
        (
            {"subset": {"chosen": "first", "of": 1000}, "corrupted_as": None},
            "CIFAR-10-C",
            "On 599 test images of 1,000 (the first), with corruptions from the files of a -C set that fastmagn has not"
            " made; mCA",
        ),
        ({"subset": {"chosen": "all", "of": 599}}, None, "On 599 test images, with corruptions made by fastmagn; mCA"),
    ],
)
def test_the_card_says_what_was_measured_on(run_dir, changed, folder, said):
    trained = load_run(run_dir)
    results = json.loads((run_dir / "results.json").read_text()) | changed
    results["config"]["eval"]["corrupted_dir"] = folder
    trained = dataclasses.replace(trained, results=results)
    assert said in model_card(trained, "m.safetensors", CARD, None)
    info = model_info(trained).results
    assert {name: info[name] for name in changed} == changed


def test_the_cards_configuration_trains_the_same(tmp_path):
    config, _ = make_run(tmp_path / "run", "--method", "cutmix", "--optim.lr", "1e-05", "--train.seed", "12")
    export(tmp_path / "run", tmp_path / "model.safetensors")
    text = re.search(r"```yaml\n(.*?)```", (tmp_path / "model.safetensors.md").read_text(), re.DOTALL)[1]
    assert "dir" not in yaml.safe_load(text)["data"]
    (tmp_path / "again.yaml").write_text(text)
    again, before = flatten(parse_config(["--config", str(tmp_path / "again.yaml")], "t", "t")), flatten(config)
    assert {name for name in before if before[name] != again[name]} == {"run_dir"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(["--licence", "MIT"], "MIT."), ([], "Yours to choose, within what the licence of the data allows. **Fill in.**")],
)
def test_the_card_names_the_licence_of_the_weights(arguments, line, run_dir, tmp_path):
    export(run_dir, tmp_path / "model.safetensors", *arguments)
    card = (tmp_path / "model.safetensors.md").read_text()
    assert card.partition("## Licence of the weights")[2].split("\n\n")[1].strip() == line


@pytest.mark.parametrize(("data", "licence"), [("cifar100", "Krizhevsky"), ("cifar10", "without an explicit licence")])
def test_the_images_need_not_be_here(tmp_path, data, licence):
    config, _ = make_run(tmp_path / "run", "--data.name", data, "--data.dir", str(tmp_path / "gone"), results=False)
    out = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="gone"):
        export(tmp_path / "run", out)
    write_json(tmp_path / "run" / "results.json", made_results(config))
    assert licence in export(tmp_path / "run", out).with_name("model.safetensors.md").read_text()


def test_a_file_that_computes_something_else_is_not_written(onnx_u8, tmp_path, monkeypatch):
    make_run(tmp_path / "other", "--train.ema_decay", "0.9")
    monkeypatch.setattr(onnx_file, "_serialised", lambda *_: onnx_u8.read_bytes())
    (tmp_path / "model.onnx").write_text("the one before")
    with pytest.raises(InputError, match=r"not written: onnxruntime's probabilities differ .* by .*; expected 1e-04"):
        export(tmp_path / "other", tmp_path / "model.onnx", "--weights", "ema")
    assert (tmp_path / "model.onnx").read_text() == "the one before"
    assert {path.name for path in tmp_path.iterdir()} == {"other", "model.onnx"}


@pytest.mark.parametrize("suffix", ["onnx", "safetensors"])
def test_metadata_that_could_not_be_read_are_not_written(run_dir, tmp_path, monkeypatch, suffix):
    trained = dataclasses.replace(load_run(run_dir), class_names=())
    monkeypatch.setattr(export_module, "load_run", lambda *arguments, **options: trained)
    with pytest.raises(InputError, match=r"its metadata are damaged \(ValueError\)"):
        export(run_dir, tmp_path / f"model.{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(run_dir, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as error:
        export(run_dir, tmp_path / "model.onnx")
    assert str(error.value) == f"onnx: needs {package}; pip install 'fastmagn[onnx]'."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "R", "--format", "onnx", "--out", "m.pt"], "out: got 'm.pt'; expected a name that ends in .onnx."),
        (
            ["--run", "R", "--format", "safetensors", "--out", "m.safetensors", "--input", "float"],
            "input: got 'float'; expected none: it is for --format onnx.",
        ),
        (
            ["--run", "R", "--format", "safetensors", "--out", "m.safetensors"],
            "R: no such folder; expected the folder of a run.",
        ),
        (["--run", "R", "--format", "torchscript", "--out", "m.pt"], "torchscript"),
        (["--run", "R", "--format", "onnx"], "out"),
        (["--run", "R", "--format", "onnx", "--out", "m.onnx", "--wieghts", "ema"], "--wieghts"),
    ],
)
def test_unusable_arguments_are_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        main(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unusable_runs_are_one_line(tmp_path):
    run_dir, out = tmp_path / "run", tmp_path / "model.safetensors"
    make_run(run_dir)
    with pytest.raises(
        InputError,
        match=r"eval\.weights: got 'ema'; expected last, or a train\.ema_decay or tr",
    ):
        export(run_dir, out, "--weights", "ema")
    for text in ("{", "[]", '{"clean_accuracy": 1}'):
        (run_dir / "results.json").write_text(text)
        with pytest.raises(InputError, match=r"results\.json: .*measure the run again"):
            export(run_dir, out)
    (run_dir / "results.json").unlink()
    with pytest.raises(InputError, match="cannot be written"):
        export(run_dir, run_dir / "config.yaml" / "model.safetensors")
    (run_dir / "checkpoints" / "last.pt").unlink()
    with pytest.raises(InputError, match="no such checkpoint"):
        export(run_dir, out)
    assert not out.exists()


def test_a_run_without_numbers_is_exported_with_a_warning(tmp_path, capsys):
    run_dir = tmp_path / "run"
    make_run(run_dir)
    export(run_dir, tmp_path / "measured.safetensors")
    assert "warning" not in capsys.readouterr().out
    (run_dir / "results.json").unlink()
    export(run_dir, tmp_path / "unmeasured.safetensors")
    assert "has no results.json of these weights, so the card has no numbers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("position", "arguments", "has_ended"),
    [
        ({"epoch": 2}, ["--train.epochs", "2"], True),
        ({"epoch": 1, "step_in_epoch": 3}, ["--train.epochs", "2"], False),
        ({"epoch": 1, "step_in_epoch": 3}, ["--train.epochs", "2", "--train.max_steps", "7"], True),
        ({"epoch": 1, "step_in_epoch": 3}, ["--train.epochs", "2", "--train.max_steps", "8"], False),
    ],
)
def test_weights_of_a_training_that_has_not_ended_are_said_to_be(position, arguments, has_ended, tmp_path, capsys):
    """Also if an earlier, shorter one has left results."""
    run_dir, out = tmp_path / "run", tmp_path / "model.safetensors"
    config, model = make_run(run_dir, *arguments)
    write_run(run_dir, config, step=7, progress=Progress(**position), model=model)
    export(run_dir, out)
    said = f"warning: {run_dir}: training has not ended. These are its weights after 7 steps."
    assert (said in capsys.readouterr().out) != has_ended
    on_card = "**Training had not ended: these are the weights after 7 steps.**"
    assert (on_card in Path(f"{out}.md").read_text()) != has_ended


@pytest.mark.parametrize(("weights", "has_ended"), [("ema", False), ("last", True)])
def test_an_average_without_its_batch_statistics_is_not_the_end(weights, has_ended, tmp_path, capsys):
    """They are measured after the last step, and then saved."""
    run_dir = tmp_path / "run"
    config, model = make_run(run_dir, "--train.swa_fraction", "0.5", "--eval.weights", weights, results=False)
    write_run(run_dir, config, step=7, model=model, average=model)
    export(run_dir, tmp_path / "model.safetensors")
    assert ("training has not ended" in capsys.readouterr().out) != has_ended
