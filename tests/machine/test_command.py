"""How a command ends: its status, and one line for what went wrong."""

import pytest

from fastmagn.machine.command import run_command
from fastmagn.machine.files import write_json


def test_a_file_that_cannot_be_replaced_is_named_by_its_final_name(tmp_path, capsys):
    taken = tmp_path / "results.json"
    taken.mkdir()
    with pytest.raises(SystemExit) as ended:
        run_command(lambda arguments: write_json(taken, {}) or 0)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {taken}: Is a directory\n"
    assert list(tmp_path.iterdir()) == [taken]
