"""The commands, the file and the script of the page on sweeps."""

import shlex
import shutil

from fastmagn.sweeping.arguments import parse_arguments
from fastmagn.sweeping.definition import make_trials
from tests.helpers.pages import DOCS, blocks, commands, of_checkout
from tests.helpers.processes import ROOT

PAGE = DOCS / "sweeps.md"


def test_each_names_fields_files_and_values_that_exist(tmp_path):
    """And the file that it shows is one."""
    (script,) = blocks(PAGE, "bash")
    lines = script.replace("\\\n", " ").splitlines()
    found = [*commands(PAGE), *(line[line.index("python -m") :] for line in lines if "-m fastmagn.sweep" in line)]
    shown = tmp_path / "configs" / "sweeps" / "shown.yaml"
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shown.write_text(next(block for block in blocks(PAGE, "text") if block.startswith("base:")))
    counts = []
    for command in [*found, f"python -m fastmagn.sweep --config {shown}"]:
        request = parse_arguments([of_checkout(word) for word in shlex.split(command)[3:]])
        counts.append(len(make_trials(request.arguments, request.search, request.out)[1]))
    assert counts == [6, 6, 20, 4, 4, 24]
