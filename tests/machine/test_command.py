"""How a command ends: its status, and one line for what went wrong."""

import pytest

from fastmagn.machine.command import run_command
from fastmagn.machine.files import write_json
from tests.helpers.processes import run


def test_a_file_that_cannot_be_replaced_is_named_by_its_final_name(tmp_path, capsys):
    taken = tmp_path / "results.json"
    taken.mkdir()
    with pytest.raises(SystemExit) as ended:
        run_command(lambda arguments: write_json(taken, {}) or 0)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {taken}: Is a directory\n"
    assert list(tmp_path.iterdir()) == [taken]


STALLED = """
import time
from concurrent.futures import ThreadPoolExecutor
from fastmagn.errors import Stalled
from fastmagn.machine.command import run_command

def main(arguments):
    ThreadPoolExecutor(1).submit(time.sleep, 1000)
    raise Stalled("no image for 300 s")

run_command(main)
"""


@pytest.mark.process
def test_a_command_ends_while_a_thread_waits_for_a_disk(tmp_path):
    assert run(["-c", STALLED], tmp_path, expect=2).stderr == "error: no image for 300 s\n"
