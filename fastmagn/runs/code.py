"""Whether a run's copy of the user's own code, RUN/imports.py, is what this command has run."""

import os
from pathlib import Path

from fastmagn.config import own_code
from fastmagn.machine.console import warn
from fastmagn.runs.paths import CODE


def warn_if_code_changed(run_dir: Path) -> None:
    """Warn if `--import` has run a file, and the run was made with another content of it. The copy is not run."""
    copy, run = run_dir / CODE, own_code.sources()
    if not run or not os.path.isfile(copy):
        return
    longest = max(map(len, run.values()))
    try:
        with copy.open("rb") as file:
            kept = file.read(longest + 1)
    except OSError as error:
        warn(f"import: {copy} cannot be read ({error.strerror}), so {list(run)[-1]} may differ from it.")
        return
    if kept not in run.values():
        warn(
            f"import: {list(run)[-1]} has changed since {run_dir} was trained, or is another file; {copy} is a copy of"
            " what it was."
        )
