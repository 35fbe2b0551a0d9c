"""A run folder that cannot be used is the same line from every command that reads one, and its remedy works."""

import io
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import fastmagn
from fastmagn import evaluate, export, report
from fastmagn.errors import InputError
from fastmagn.evaluation.logits import read_logits
from fastmagn.reporting.runs import read_runs
from fastmagn.runs.paths import CONFIG, RESULTS, last_checkpoint
from fastmagn.runs.reading import check_run_folder, read_results
from fastmagn.theory import command as theory
from fastmagn.train import main as train
from tests.helpers.small_runs import knows_the_network

OLD_RUN = Path(__file__).parent.parent / "compatibility" / "whole"


@pytest.fixture
def run_dir(tmp_path, monkeypatch) -> Path:
    knows_the_network(monkeypatch)
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


def errors(run_dir: Path) -> dict[str, str]:
    """What each reader says of a run folder, without the report's own words around it."""
    out = run_dir.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    commands = {
        "export": lambda: export.main(
            ["--run", str(run_dir), "--format", "safetensors", "--out", f"{out}/file.safetensors"]
        ),
        "evaluate": lambda: evaluate.main(["--run", str(run_dir), "--eval.num_images", "1"]),
        "theory": lambda: theory.main([str(run_dir), "--out", f"{out}/theory", "--num_images", "1"]),
        "report": lambda: report.main([str(run_dir), "--out", f"{out}/report"]),
        "load": lambda: fastmagn.load(run_dir),
    }
    said = {}
    for name, command in commands.items():
        try:
            command()
        except InputError as error:
            said[name] = str(error).removeprefix("RUN: ").removesuffix(" Left out. Nothing is left to report.")
    return said


def test_a_folder_that_is_missing(tmp_path):
    """`load` takes more than runs, and says so."""
    said = errors(tmp_path / "absent")
    assert len(said) == 5
    missing = f"{tmp_path / 'absent'}: no such folder; expected the folder of a run"
    assert said.pop("load").startswith(f"{missing}, a file, or a published model (")
    assert set(said.values()) == {f"{missing}."}


def test_a_folder_that_is_no_run(tmp_path):
    said = errors(tmp_path)
    expected = f"{tmp_path}: is not a run folder: it has no config.yaml. Give one that fastmagn.train made."
    assert len(said) == 5
    assert set(said.values()) == {expected}


def test_a_damaged_checkpoint(run_dir):
    """A report does not read it."""
    path = last_checkpoint(run_dir)
    path.write_bytes(path.read_bytes()[:-1000])
    said = errors(run_dir)
    assert said.keys() == {"export", "evaluate", "theory", "load"}
    assert len(set(said.values())) == 1
    assert next(iter(said.values())).startswith(f"{path}: does not end with a checksum")


@pytest.mark.parametrize("text", ['{"num_images": 20', "[]", '{"num_images": NaN}', '{"a": "\x1b[2J"}', "{}"])
def test_damaged_results_and_the_remedy(text, run_dir):
    """Evaluation and theory do not read them. The command in the error makes them whole again."""
    (run_dir / RESULTS).write_text(text)
    said = errors(run_dir)
    assert said.keys() == {"export", "report", "load"}
    assert said["export"] == said["load"]
    line, remedy = said["export"].removesuffix("`.").split(" To measure the run again: `")
    assert line.startswith(f"{run_dir / RESULTS}: is damaged (")
    if text != "{}":
        assert said["report"] == said["export"]
    assert remedy == shlex.join(
        ["python", "-m", "fastmagn.train", "--config", str(run_dir / CONFIG), "--run_dir", str(run_dir)]
    )
    train(shlex.split(remedy)[3:])
    assert not errors(run_dir)
    assert read_results(run_dir / RESULTS)["mca"]["c15"] == json.loads((OLD_RUN / RESULTS).read_text())["mca"]["c15"]


@pytest.mark.parametrize("harm", ["empty", "short", "of other images", "gone"])
def test_a_finished_run_whose_logits_are_not_whole_is_measured_again(harm, run_dir, capsys):
    """As a power cut may leave it, if results.json reached the disk and the logits did not."""
    logits = run_dir / "logits"
    file = logits / ("labels.npy" if harm == "of other images" else "fog.npy")
    whole = {path.name: path.read_bytes() for path in logits.iterdir()}
    arguments = ["--config", str(run_dir / CONFIG), "--run_dir", str(run_dir)]
    if harm == "gone":  # they are not kept where an image file is unreadable
        shutil.rmtree(logits)
    else:
        content = {"empty": b"", "short": whole[file.name][:-40]}.get(harm)
        if content is None:
            np.save(file, np.load(file)[:-1])
        else:
            file.write_bytes(content)
    train(arguments)
    said = " ".join(capsys.readouterr().out.split())
    if harm == "gone":
        assert "is finished" in said
        assert not logits.exists()
        return
    assert "is finished" not in said
    assert f"warning: {logits}" in said
    assert "The run is measured again." in said
    labels, again = read_logits(logits)
    assert np.array_equal(labels, np.load(io.BytesIO(whole["labels.npy"])))
    for name, cells in again.items():
        np.testing.assert_allclose(cells, np.load(io.BytesIO(whole[f"{name}.npy"])), atol=1e-5)
    train(arguments)
    assert "is finished" in " ".join(capsys.readouterr().out.split())


def test_a_damaged_evaluation_names_the_command_that_writes_it(run_dir):
    file = run_dir / "evaluation.json"
    file.write_text("{")
    with pytest.raises(InputError, match="is damaged") as caught:
        read_runs([file])
    remedy = shlex.split(str(caught.value).split("`")[1])
    assert evaluate.main([*remedy[3:], "--eval.num_images", "20"]) == 0
    assert read_runs([file])[0][0].num_images == 20


def test_a_file_is_not_a_run_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; expected the folder of a run"):
        check_run_folder(tmp_path / "file")
