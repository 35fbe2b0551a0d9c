"""Trials of a sweep that would repeat others, as they differ only in fields that have no effect in them."""

import json

from fastmagn.config.own_code import explained
from fastmagn.errors import counted
from fastmagn.machine.console import console
from fastmagn.methods.effect import in_effect
from fastmagn.sweeping.definition import Trial

_FOLDER = ("run_dir", "resume")  # each trial has its own


def without_repeats(trials: list[Trial]) -> list[Trial]:
    """The trials, the first of each group of equal ones alone. A line names each group's first and the idle fields.

    Raises:
        InputError: A trial's method and its settings of the views do not go together.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        with explained(trial.config.imports):
            fields = in_effect(trial.config)
        kept = {name: value for name, value in fields.items() if name not in _FOLDER}
        groups.setdefault(json.dumps(kept, sort_keys=True), []).append(trial)
    for first, *others in groups.values():
        if others:
            idle = [name for name, value in first.values.items() if any(t.values[name] != value for t in others)]
            what = f"{' and '.join(idle)} {'makes' if len(idle) == 1 else 'make'} no difference there"
            repeats = f"{counted(len(others), 'trial')} that would repeat {first.name}"
            console.print(f"left out: {repeats}: {what}", soft_wrap=True)
    return [group[0] for group in groups.values()]
