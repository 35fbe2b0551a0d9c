"""The notebook of examples/ runs from its first to its last cell. It is stored without outputs."""

import re
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT, command_environment

nbformat = pytest.importorskip("nbformat", reason="needs nbformat, nbclient and ipykernel (extra test)")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
LIMIT_S = 300  # a guard, for one cell
EPOCHS = '"--train.epochs", "5"'


def of_kind(notebook: dict, kind: str) -> list[dict]:
    """All outputs of this MIME type, or of this stream."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [output for output in outputs if kind in output.get("data", ()) or output.get("name") == kind]


def test_it_is_stored_without_outputs_and_named():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
    assert f"`{NOTEBOOK.name}`" in (NOTEBOOK.parent / "README.md").read_text()


@pytest.mark.process
def test_it_runs(tmp_path, monkeypatch):
    """With a training of two steps; that more of them make it accurate is tests/training/test_train.py's."""
    monkeypatch.setenv("PYTHONPATH", command_environment()["PYTHONPATH"])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    text = NOTEBOOK.read_text().replace('\\"', '"')
    assert text.count(EPOCHS) == 1
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].replace(EPOCHS, f'{EPOCHS}, "--train.max_steps", "2"')
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources=resources).execute()
    assert len(of_kind(notebook, "image/png")) == 3
    printed = "".join(output["text"] for output in of_kind(notebook, "stdout"))
    assert re.search(r"clean accuracy [\d.]+%, mCA c15 [\d.]+%\n", printed)
    assert (Path(tmp_path) / "run" / "results.json").exists()
    assert re.search(r"clean: \d with probability [01]\.\d\d; it is \d\nfog: ", printed)
