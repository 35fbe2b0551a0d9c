"""A sweep from its request to its report: run the trials that are not finished, then report all that are."""

import dataclasses
import fcntl
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

from fastmagn.config.own_code import explained, trusted
from fastmagn.config.plain_yaml import load_plain_yaml
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, to_yaml
from fastmagn.data import DATASETS
from fastmagn.data.present import check_present
from fastmagn.errors import InputError, Interrupted, counted, one_line
from fastmagn.machine.console import console, warn
from fastmagn.machine.files import check_writable, make_folder, write_text
from fastmagn.machine.leftovers import remove_leftovers
from fastmagn.methods.table import get_method
from fastmagn.models import MODELS
from fastmagn.registry import resolve
from fastmagn.reporting.document import check_out, make_report, publish_report
from fastmagn.runs.changes import recipe_fields, result_fields
from fastmagn.runs.paths import CONFIG, LOCK, RESULTS, TRIAL_LOG, last_checkpoint
from fastmagn.runs.reading import check_results, read_results
from fastmagn.sweeping.arguments import Machines, Request
from fastmagn.sweeping.definition import (
    FIELD_TYPES,
    Trial,
    check_definition,
    definition,
    keep_definition,
    make_trials,
)
from fastmagn.sweeping.images import check_images, fingerprints, has_results_of
from fastmagn.sweeping.on_ray import check_ray, run_trials
from fastmagn.sweeping.repeats import without_repeats
from fastmagn.sweeping.shown import Board, print_summary
from fastmagn.sweeping.trial import Outcome

EXIT_TRIAL_FAILED = 1
REPORT = "report"
_PATIENCE_S = 5.0  # what another host writes to a shared file system may be visible that late


def run_sweep(request: Request) -> int:
    """Run a sweep, or resume it, and report its finished trials.

    Returns:
        The exit status: 0, or 1 if a trial failed.

    Raises:
        InputError: The sweep cannot start, and nothing has been trained; or no trial failed, but the report cannot be
            written.
        Interrupted: SIGINT, SIGTERM or SIGHUP came. Every trial has saved its checkpoint.
    """
    base, trials = make_trials(request.arguments, request.search, request.out)
    for trial, point in zip(trials, request.search.points(), strict=True):
        check_names(trial.config, [*request.given, *point])
    trials = without_repeats(trials)
    check_writable(request.out, request.out)
    check_out(request.out / REPORT)
    check_ray()
    fingerprints.cache_clear()  # an earlier sweep of this process may have read what was there then
    wanted = definition(base, request.search)
    with sweep_lock(request.out):
        check_definition(request.out, wanted)
        board = Board(trials, {trial.name for trial in trials if is_finished(trial)})
        for trial in _unfinished(board):
            check_present(trial.config.data)
            check_folder(trial.config)
        keep_definition(request.out, wanted)
        done = sum(state == "finished" for state in board.states.values())
        before = f", {done} of them already finished" if done else ""
        console.print(f"sweep: {counted(len(trials), 'trial')}{before}, in {request.out}", soft_wrap=True)
        signal_number = run_unfinished(board, request.machines)
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
    """Whether the trial's folder holds the results of its configuration, on its images.

    Raises:
        InputError: Those may be others than the recorded ones, and cannot be read.
    """
    file = trial.config.run_folder / RESULTS
    try:
        results = read_results(file)
        check_results(results, file)
    except FileNotFoundError:
        return False
    except InputError as error:
        warn(f"{error} The trial runs again.")
        return False
    return not result_fields(trial.config, results["config"]) and has_results_of(trial.config, results)


def check_folder(config: Config, option: str = "out") -> None:
    """Check that a run folder is free or holds a run of this recipe and images: config.yaml may be written there.

    Args:
        config: The run.
        option: The option that names the folder of all runs, without its dashes.

    Raises:
        InputError: It holds a run of another recipe or of other images.
    """
    recorded, results = _recorded(config.run_folder)
    others = recipe_fields(config, recorded) if recorded else {}
    for name, (there, here) in others.items():
        raise InputError(
            f"{config.run_folder}: has a run of another recipe: {name} is {there!r} there and {here!r} here. Give its"
            f" arguments, or name another --{option}."
        )
    if recorded:
        check_images(config, recorded, results, option)


def keep_precision(config: Config) -> Config:
    """The configuration with the `train.amp` of the run that its folder holds, where it says auto.

    On this host auto may mean another precision, with which that run cannot be resumed.
    """
    if config.train.amp != "auto" or not last_checkpoint(config.run_folder).exists():
        return config
    amp: Any = flatten(_recorded(config.run_folder)[0]).get("train.amp")
    if amp not in get_args(FIELD_TYPES["train.amp"]):
        return config
    return dataclasses.replace(config, train=dataclasses.replace(config.train, amp=amp))


def _recorded(run_dir: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The configuration, nested, of the results that a folder holds, and these.

    Without results, it is that of the checkpoint, and empty if there is none either.
    """
    with suppress(FileNotFoundError, InputError):
        results = read_results(run_dir / RESULTS)
        check_results(results, run_dir / RESULTS)
        return results["config"], results
    if last_checkpoint(run_dir).exists():
        with suppress(InputError):  # the run itself compares the checkpoint
            config = load_plain_yaml(run_dir / CONFIG)
            return (config if isinstance(config, dict) else {}), None
    return {}, None


def _unfinished(board: Board) -> list[Trial]:
    return [trial for name, trial in board.trials.items() if board.states[name] != "finished"]


def run_unfinished(board: Board, machines: Machines) -> int:
    """Run the trials that are not finished. Returns the signal that interrupted them, 0 if none did."""
    unfinished = _unfinished(board)
    if not unfinished:
        return 0
    for trial in unfinished:
        write_text(trial.config.run_folder / CONFIG, to_yaml(keep_precision(trial.config)))
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
    """Show the finished trials, name those that failed or were ended from outside, and write the report.

    Returns:
        The exit status.

    Raises:
        Interrupted: `signal_number` is not 0.
        InputError: No trial failed, but the report cannot be written.
    """
    finished = [trial for trial in trials if board.states[trial.name] == "finished"]
    failed = [outcome for outcome in board.outcomes.values() if outcome.state == "failed"]
    readable = with_results(finished)
    if readable:
        print_summary(readable)
    for outcome in failed:
        log = board.trials[outcome.name].config.run_folder / TRIAL_LOG
        console.print(f"failed: {outcome.name}: {outcome.error} (full output: {log})", soft_wrap=True)
    if signal_number:
        console.print(
            f"interrupted: {len(finished)} of {counted(len(trials), 'trial')} finished; the same command resumes the"
            " sweep"
        )
        raise Interrupted(signal_number)
    stopped = [outcome.name for outcome in board.outcomes.values() if outcome.state == "interrupted"]
    for name in stopped:
        console.print(f"interrupted: {name}: ended from outside; the same command resumes it", soft_wrap=True)
    try:
        if readable:
            report(readable, out / REPORT)
    except (InputError, OSError) as error:
        if not failed:
            raise
        warn(f"no report: {one_line(error, None)}")
    return EXIT_TRIAL_FAILED if failed or stopped else 0


def with_results(finished: list[Trial]) -> list[Trial]:
    """Those of the finished trials whose results can be read; a warning names each of the others."""
    readable, deadline = [], time.monotonic() + _PATIENCE_S
    for trial in finished:
        file = trial.config.run_folder / RESULTS
        while not os.path.exists(file) and time.monotonic() < deadline:
            time.sleep(0.2)
            with suppress(OSError):
                os.listdir(file.parent)  # lets a network's file system look for new files
        try:
            check_results(read_results(file), file)
        except FileNotFoundError:
            warn(f"{file}: no such file, though the trial has finished. It is left out; the same command looks again.")
        except InputError as error:
            warn(f"{error} The trial is left out.")
        else:
            readable.append(trial)
    return readable


def report(trials: list[Trial], out: Path) -> None:
    """Write the report of trials with results to the folder `out`, or warn that none of them can be reported.

    Raises:
        InputError: The folder cannot be written.
    """
    remove_leftovers(out)
    check_out(out)
    try:
        made = make_report([trial.config.run_folder for trial in trials])
    except InputError as error:
        warn(f"no report: {error}")
        return
    publish_report(made, out)
