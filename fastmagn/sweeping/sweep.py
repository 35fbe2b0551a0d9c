"""A sweep from its request to its report: run the trials that are not finished, then report all that are."""

import fcntl
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastmagn.config.own_code import explained, trusted
from fastmagn.config.schema import Config
from fastmagn.config.text import to_yaml
from fastmagn.data import DATASETS
from fastmagn.data.present import check_present
from fastmagn.errors import InputError, Interrupted, counted
from fastmagn.machine.console import console, warn
from fastmagn.machine.files import check_writable, make_folder, write_text
from fastmagn.methods.table import get_method
from fastmagn.models import MODELS
from fastmagn.registry import resolve
from fastmagn.reporting.document import check_out, report_runs
from fastmagn.runs.paths import CONFIG, LOCK, RESULTS, TRIAL_LOG
from fastmagn.runs.reading import check_results, read_results
from fastmagn.sweeping.arguments import Machines, Request
from fastmagn.sweeping.definition import Trial, definition, keep_definition, make_trials, other_fields
from fastmagn.sweeping.on_ray import check_ray, run_trials
from fastmagn.sweeping.shown import Board, print_summary
from fastmagn.sweeping.trial import Outcome

EXIT_TRIAL_FAILED = 1
REPORT = "report"


def run_sweep(request: Request) -> int:
    """Run a sweep, or resume it, and report its finished trials.

    Returns:
        The exit status: 0, or 1 if a trial failed.

    Raises:
        InputError: The sweep cannot start. Nothing has been trained.
        Interrupted: SIGINT, SIGTERM or SIGHUP came. Every trial has saved its checkpoint.
    """
    base, trials = make_trials(request.arguments, request.search, request.out)
    for trial, point in zip(trials, request.search.points(), strict=True):
        check_names(trial.config, [*request.given, *point])
    check_writable(request.out, request.out)
    check_out(request.out / REPORT)
    check_ray()
    with sweep_lock(request.out):
        keep_definition(request.out, definition(base, request.search))
        board = Board(trials, {trial.name for trial in trials if is_finished(trial)})
        done = sum(state == "finished" for state in board.states.values())
        before = f", {done} of them already finished" if done else ""
        console.print(f"sweep: {counted(len(trials), 'trial')}{before}, in {request.out}", soft_wrap=True)
        signal_number = run_unfinished(trials, board, request.machines)
        return finish_sweep(trials, board, request.out, signal_number)


def check_names(config: Config, given: Collection[str]) -> None:
    """Check that method, data set and network exist, as the schema accepts any name, and that the method keeps `given`.

    Args:
        config: A trial's.
        given: The fields that the command line or the search gives.

    Raises:
        InputError: One does not exist, or the method would replace a given value; see `Method.check_given`.
    """
    with explained(config.imports):
        get_method(config.method).check_given(config.augment, given)
        resolve(DATASETS, config.data.name, "data.name")
        if ":" not in config.model.name:  # else it is one of timm's or torchvision's
            resolve(MODELS, config.model.name, "model.name")


@contextmanager
def sweep_lock(out: Path) -> Iterator[None]:
    """Lock the sweep's folder, so that no other sweep trains the same trials.

    Raises:
        InputError: Another sweep has locked it.
    """
    make_folder(out)
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"--out: another sweep uses {out}; wait until it ends, or name another folder.") from None
        except OSError:
            warn(f"{out} cannot be locked. Make sure that only one sweep at a time uses it.")
        yield


def is_finished(trial: Trial) -> bool:
    """Whether the trial's folder holds the results of its configuration."""
    file = trial.config.run_folder / RESULTS
    try:
        results = read_results(file)
        check_results(results, file)
    except FileNotFoundError:
        return False
    except InputError as error:
        warn(f"{error} The trial runs again.")
        return False
    return not other_fields(trial.config, results["config"])


def run_unfinished(trials: list[Trial], board: Board, machines: Machines) -> int:
    """Run the trials that are not finished. Returns the signal that interrupted them, 0 if none did.

    Raises:
        InputError: A trial's folder of images is not there.
    """
    unfinished = [trial for trial in trials if board.states[trial.name] != "finished"]
    if not unfinished:
        return 0
    for trial in unfinished:
        check_present(trial.config.data)
    for trial in unfinished:
        write_text(trial.config.run_folder / CONFIG, to_yaml(trial.config))
    on_cpu = all(trial.config.device == "cpu" for trial in unfinished)

    def ended(outcome: Outcome) -> None:
        if outcome.state == "interrupted" and is_finished(board.trials[outcome.name]):
            outcome = Outcome(outcome.name, "finished")  # the request to stop came after its last file
        board.ended(outcome)

    with board.live_table():
        return run_trials(
            [trial.config.run_folder for trial in unfinished],
            machines,
            on_cpu,
            board.started,
            ended,
            trusted(unfinished[0].config.imports),
        )


def finish_sweep(trials: list[Trial], board: Board, out: Path, signal_number: int) -> int:
    """Report the finished trials and name the failed ones.

    Returns:
        The exit status.

    Raises:
        Interrupted: `signal_number` is not 0.
    """
    finished = [trial for trial in trials if board.states[trial.name] == "finished"]
    failed = [outcome for outcome in board.outcomes.values() if outcome.state == "failed"]
    if finished and not signal_number:
        report_runs([trial.config.run_folder for trial in finished], out / REPORT)
    if finished:
        print_summary(finished)
    for outcome in failed:
        log = board.trials[outcome.name].config.run_folder / TRIAL_LOG
        console.print(f"failed: {outcome.name}: {outcome.error} (full output: {log})", soft_wrap=True)
    if signal_number:
        console.print(
            f"interrupted: {len(finished)} of {counted(len(trials), 'trial')} finished; the same command resumes the"
            " sweep"
        )
        raise Interrupted(signal_number)
    return EXIT_TRIAL_FAILED if failed else 0
