"""A sweep's trials: which are finished, which are left, and its report."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, to_yaml
from fastmagn.data import DATASETS
from fastmagn.errors import InputError, Interrupted
from fastmagn.machine.console import console
from fastmagn.machine.files import write_text
from fastmagn.methods.table import METHODS
from fastmagn.models import MODELS
from fastmagn.registry import resolve
from fastmagn.report import main as report
from fastmagn.runs.paths import CONFIG, LOCK, RESULTS, TRIAL_LOG
from fastmagn.sweeping.arguments import Machines
from fastmagn.sweeping.definition import PLACES, Trial
from fastmagn.sweeping.on_ray import run_trials
from fastmagn.sweeping.shown import Board, print_summary, read_json
from fastmagn.sweeping.trial import Outcome

EXIT_TRIAL_FAILED = 1


def check_names(config: Config) -> None:
    """Raise InputError unless method, data set and network exist; the schema takes any name."""
    resolve(METHODS, config.method, "method")
    resolve(DATASETS, config.data.name, "data.name")
    if ":" not in config.model.name:  # else timm's or torchvision's
        resolve(MODELS, config.model.name, "model.name")


def is_finished(trial: Trial) -> bool:
    """Whether the trial's folder holds the results of its configuration."""
    results = read_json(trial.config.run_dir / RESULTS)
    if results is None:
        return False
    measured = flatten(results["config"])
    return all(
        measured.get(name, value) == value or value == "auto"  # auto: the run has settled it
        for name, value in flatten(trial.config).items()
        if name not in PLACES
    )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the sweep's folder: two sweeps would train the same trials.

    Raises:
        InputError: Another one holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"--out: {out} is in use by another sweep; wait for it, or name another.") from None
        except OSError:
            console.print(f"warning: {out} cannot be locked: see to it that one sweep at a time uses it.", markup=False)
        yield


def run_left(trials: list[Trial], board: Board, machines: Machines) -> int:
    """Run the trials that are not finished; the signal that interrupted them, 0 for none."""
    left = [trial for trial in trials if board.states[trial.name] != "finished"]
    if not left:
        return 0
    for trial in left:
        write_text(trial.config.run_dir / CONFIG, to_yaml(trial.config))
    on_cpu = all(trial.config.device == "cpu" for trial in left)

    def ended(outcome: Outcome) -> None:
        if outcome.state == "interrupted" and is_finished(board.trials[outcome.name]):
            outcome = Outcome(outcome.name, "finished")  # it was asked to stop after its last file
        board.ended(outcome)

    with board.live():
        return run_trials([trial.config.run_dir for trial in left], machines, on_cpu, board.started, ended)


def conclude(trials: list[Trial], board: Board, out: Path, signal_number: int) -> int:
    """Report what is finished, name what has failed; the exit status.

    Raises:
        Interrupted: SIGINT or SIGTERM came; all is saved.
    """
    finished = [trial for trial in trials if board.states[trial.name] == "finished"]
    failed = [outcome for outcome in board.outcomes.values() if outcome.state == "failed"]
    if finished and not signal_number:
        report([*(str(trial.config.run_dir) for trial in finished), "--out", str(out / "report")])
    if finished:
        print_summary(finished)
    for outcome in failed:
        log = board.trials[outcome.name].config.run_dir / TRIAL_LOG
        console.print(f"failed: {outcome.name}: {outcome.error} (all of it: {log})", soft_wrap=True, markup=False)
    if signal_number:
        console.print(f"interrupted with {len(finished)} of {len(trials)} trials finished; the same command goes on")
        raise Interrupted(signal_number)
    return EXIT_TRIAL_FAILED if failed else 0
