"""Code that a configuration or a run folder names: only a command line that names it too runs it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmagn import evaluate, export, load, report, sweep, train
from fastmagn.config import own_code
from fastmagn.errors import InputError
from fastmagn.evaluation import corrupt_command
from fastmagn.runs.reading import read_config
from fastmagn.theory import command as theory
from tests.helpers.own_code import forgotten
from tests.helpers.report_folders import rewrite, write_run
from tests.hostile.files import write_run_folder
from tests.hostile.test_code import fires

SAYS = "code runs only if the command line names it"


@pytest.fixture
def payload(attack) -> Iterator[Path]:
    """A file that makes the marker when it is run."""
    file = attack.folder / "evil.py"
    file.write_text(f"open({str(attack.marker)!r}, 'w').close()\n")
    with forgotten() as forget:
        fires(attack, own_code.run_imported, ["--import", str(file)])
        forget()
        yield file


def test_a_run_folder_that_names_code(attack, payload):
    run = write_run_folder(attack.folder / "run")
    config = run / "config.yaml"
    config.write_text(f"imports: {payload}\nmethod: own\n")
    (run / "imports.py").write_bytes(payload.read_bytes())
    for command, arguments in (
        (train, ["--config", config, "--run_dir", run]),
        (evaluate, ["--run", run]),
        (export, ["--run", run, "--format", "safetensors", "--out", "m.safetensors"]),
        (theory, [run, "--out", "out"]),
        (sweep, ["--config", config, "--grid", "train.seed=0,1", "--out", "sweep"]),
    ):
        status, errors = attack.run(command.main, *arguments)
        assert status == 2, errors
        assert not attack.marker.exists()
        attack.note("run folder", "imports: a Python file", f"refused: {errors.splitlines()[-1]}")
    with pytest.raises(Exception, match="checkpoint"):
        load(run)
    assert not attack.marker.exists()


def test_a_configuration_that_names_code(attack, payload):
    file = attack.folder / "own.yaml"
    for text in (f"imports: {payload}\nmethod: own\n", f"base: base.yaml\nimports: {payload}\nmethod: own\n"):
        (attack.folder / "base.yaml").write_text("train: {epochs: 2}\n")
        file.write_text(text)
        attack.refused("--config", "imports: a Python file", train.main, "--config", file, says=SAYS)
    attack.refused(
        "--config", "imports in YAML text", train.main, f"--config=imports: {payload}\nmethod: own", says=SAYS
    )
    file.write_text(f"import: {payload}\nmethod: own\n")
    attack.refused("--config", "import: a Python file", train.main, "--config", file, says=SAYS)
    sweep_file = attack.folder / "sweep.yaml"
    for fields in (f"fields: {{imports: {payload}}}", f"fields: {{import: {payload}}}"):
        sweep_file.write_text(f"{fields}\ngrid: {{train.seed: [0, 1]}}\n")
        attack.refused("sweep --config", fields[:20], sweep.main, "--config", sweep_file, says="import")
    file.write_text(f"import: {payload}\ndataset: own\n")
    made = ["--config", file, "--out", attack.folder / "set"]
    attack.refused("corrupt --config", "import: a Python file", corrupt_command.main, *made, says=SAYS)


def test_texts_that_look_like_the_option(attack, payload):
    """A file's text after its base, a folder's name, the name of a file of weights."""
    (attack.folder / "base.yaml").write_text("train: {epochs: 2}\n")
    file = attack.folder / "own.yaml"
    file.write_text(f"--import={payload}\nbase: base.yaml\n")
    attack.refused("--config", "text --import=FILE", train.main, "--config", file, says="")
    weights = attack.folder / f"--import={payload.name}.pth"
    weights.write_bytes(b"")
    attack.refused("--weights", "--import=evil.py.pth", evaluate.main, "--weights", weights, says="")
    folder = Path(f"--import={payload.name}")
    folder.mkdir()
    (folder / "config.yaml").write_text("method: magn\n")
    with pytest.raises(InputError, match="config: got no value"):
        read_config(folder)
    assert not attack.marker.exists()


def test_a_report_of_a_run_that_names_code(attack, payload):
    run = write_run(attack.folder / "run", data="digits")
    (run / "imports.py").write_bytes(payload.read_bytes())
    rewrite(run, lambda results: results["config"].update(imports=str(payload), method="own"))
    status, errors = attack.run(report.main, str(run), "--out", "out")
    assert status == 0, errors
    assert "add --import" in Path("out", "report.html").read_text()
    assert json.loads((run / "results.json").read_text())["config"]["method"] == "own"
    attack.note("report results.json", "imports: a Python file", "views are not shown, nothing is run")
