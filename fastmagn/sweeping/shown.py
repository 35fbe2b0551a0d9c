"""What a sweep prints: a live table at a terminal, a line when a trial ends, and a table of results at the end."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich.live import Live
from rich.table import Table

from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.sets import MEASURED, with_severities
from fastmagn.errors import counted
from fastmagn.evaluation.metrics.accuracy import mean_of_all, measured_mean
from fastmagn.evaluation.shown import mca_title, percent
from fastmagn.machine.console import console
from fastmagn.runs.paths import METRICS, RESULTS
from fastmagn.runs.reading import read_results
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.trial import Outcome

_SETS = ("c18", "c15", "c19", "cbar")  # the first one that all trials have measured sorts them
_ROWS = 20  # of the live table
_STATE_ORDER = ("running", "failed", "interrupted", "finished", "waiting")


class Summary(NamedTuple):
    """A finished trial, its numbers as fractions; None where logits were not finite.

    `mca` is over the corruptions that all trials have measured.
    """

    trial: Trial
    clean_accuracy: float | None
    mca: float | None
    rms_corrupt: float | None
    rms_set: str  # the corruptions that it is over


class Board:
    """The state of every trial."""

    def __init__(self, trials: list[Trial], finished: set[str]) -> None:
        self.trials = {trial.name: trial for trial in trials}
        self.states = {name: "finished" if name in finished else "waiting" for name in self.trials}
        self.outcomes: dict[str, Outcome] = {}
        self.started_at: dict[str, float] = {}

    def started(self, name: str) -> None:
        """Record that a trial has started."""
        self.states[name], self.started_at[name] = "running", time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """Record that a trial has ended, and print a line."""
        name, trial = outcome.name, self.trials[outcome.name]
        if outcome.state == "interrupted" and name not in self.started_at:
            return  # the sweep was interrupted before the trial started
        self.states[name], self.outcomes[name] = outcome.state, outcome
        done = sum(state in ("finished", "failed") for state in self.states.values())
        now = time.monotonic()
        seconds = now - self.started_at.get(name, now)  # a worker may fail before its trial starts
        what = outcome.state + (f": {outcome.error}" if outcome.error else "")
        if outcome.state == "finished":
            # On a shared file system, the file may not be visible yet; `finish_sweep` reads it again.
            with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
                results = read_results(trial.config.run_folder / RESULTS)
                what = f"clean accuracy {percent(results['clean_accuracy'])} %{_mca_text(results)}"
        console.print(f"[{done}/{len(self.trials)}] {name}: {what} ({seconds:.0f} s)", soft_wrap=True)

    @contextmanager
    def live_table(self) -> Iterator[None]:
        """Show the table at a terminal, renewed once a second. Other outputs show nothing."""
        if not console.is_terminal:
            yield
            return
        with Live(get_renderable=self.table, console=console, refresh_per_second=1, transient=True):
            yield

    def table(self) -> Table:
        """The trials' states and last epochs, running trials first."""
        table = Table(title=f"{self._count('finished')} of {counted(len(self.trials), 'trial')} finished")
        for column in ("trial", "state", "epoch", "loss", "train %", "minutes"):
            table.add_column(column, justify="left" if column in ("trial", "state") else "right")
        names = sorted(self.trials, key=lambda name: _STATE_ORDER.index(self.states[name]))
        for name in names[:_ROWS]:
            table.add_row(name, self.states[name], *self._progress(name))
        if len(names) > _ROWS:
            table.add_row(f"and {len(names) - _ROWS} more")
        return table

    def _progress(self, name: str) -> tuple[str, str, str, str]:
        if name not in self.started_at:
            return ("", "", "", "")
        config = self.trials[name].config
        row = _last_row(config.run_folder / METRICS)
        minutes = f"{(time.monotonic() - self.started_at[name]) / 60:.1f}" if self.states[name] == "running" else ""
        if row is None:
            return (f"0/{config.train.epochs}", "", "", minutes)
        epoch = f"{row['epoch'] + 1}/{config.train.epochs}"
        return (epoch, f"{row['loss']:.3f}", f"{100 * row['train_accuracy']:.1f}", minutes)

    def _count(self, state: str) -> int:
        return sum(one == state for one in self.states.values())


def _last_row(path: Path) -> dict[str, Any] | None:
    """The last complete row of a metrics.jsonl, to which a trial may be writing. None if there is none."""
    try:
        rows = [row for row in path.read_text().splitlines(keepends=True) if row.endswith("\n")]
        return json.loads(rows[-1])
    except (OSError, IndexError, ValueError):
        return None


def _mca_text(results: dict[str, Any]) -> str:
    known = [name for name in (*_SETS, MEASURED) if results["mca"].get(name) is not None]
    return f", mCA {mca_title(known[0], results)} {percent(results['mca'][known[0]])} %" if known else ""


def summarise_trials(trials: list[Trial]) -> tuple[str, list[Summary]]:
    """The title of the corruptions that all these finished trials have measured, and the trials by mCA, best first."""
    results = {trial.name: read_results(trial.config.run_folder / RESULTS) for trial in trials}
    known = [name for name in _SETS if all(one["mca"].get(name) is not None for one in results.values())]
    shared = _shared(list(results.values()))
    summaries = []
    for trial in trials:
        one = results[trial.name]
        mca = one["mca"].get(known[0]) if known else None
        if not known and shared:
            means = [measured_mean(one["corruption_accuracy"][name], severities) for name, severities in shared.items()]
            mca = mean_of_all(means)
        rms = one["rms_calibration_error"]
        summaries.append(
            Summary(trial, one["clean_accuracy"], mca, rms["corrupt"], str(rms.get("corruption_set", "corrupt")))
        )
    title = known[0] if known else with_severities(f"of {counted(len(shared), 'corruption')}", shared)
    return title, sorted(summaries, key=lambda summary: -1 if summary.mca is None else summary.mca, reverse=True)


def _shared(results: list[dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    """The corruptions that all have measured at the same severities, and these."""

    def measured(one: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        few = one.get("severities", {})
        return {name: tuple(few.get(name, SEVERITIES)) for name in one["corruption_accuracy"]}

    def is_whole(one: dict[str, Any], name: str, severities: tuple[int, ...]) -> bool:
        return measured(one).get(name) == severities and (
            measured_mean(one["corruption_accuracy"][name], severities) is not None
        )

    return {
        name: severities
        for name, severities in measured(results[0]).items()
        if all(is_whole(one, name, severities) for one in results)
    }


def print_summary(trials: list[Trial]) -> None:
    """Print a table of these finished trials, sorted by mCA."""
    title, summaries = summarise_trials(trials)
    table = Table(title=f"trials by mCA {title}", caption="in %")
    for name in trials[0].values:
        table.add_column(name.split(".")[-1], justify="right")
    rms_sets = list(dict.fromkeys(summary.rms_set for summary in summaries))
    for column in ("clean", f"mCA {title}", *(f"RMS {name}" for name in rms_sets)):
        table.add_column(column, justify="right")
    for summary in summaries:
        errors = [percent(summary.rms_corrupt) if summary.rms_set == name else "" for name in rms_sets]
        values = [str(value) for value in summary.trial.values.values()]
        table.add_row(*values, percent(summary.clean_accuracy), percent(summary.mca), *errors)
    console.print(table)
