"""More recipes for a record of `benchmarks.equal_time`: they train as long as its own, which are not trained again."""

import dataclasses
import shutil
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from benchmarks.equal_time_plan import RATES, TABLE, planned_recipe, rounds_of
from fastmagn.config.command_line import config_of
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import InputError, check
from fastmagn.machine.hardware import is_slow_precision
from fastmagn.runs.changes import PLACE_FIELDS, VALIDATION_FIELDS, keeps_results
from fastmagn.runs.paths import RESULTS
from fastmagn.runs.reading import read_results

HARDWARE_FIELDS = ("device", "train.amp", "train.compile")


class Record(NamedTuple):
    """A record's recipes, by name with their learning rates, and what `equal_time.json` says of them.

    `history` says how each part of the record was made, the oldest first: the name of the record that had it first,
    the command, the environment, and the measured steps.
    """

    folder: Path
    recipes: dict[str, Config]
    plan: dict[str, Any]
    accuracies: dict[str, dict[float, float | None]]
    seeds: list[int]
    history: list[dict[str, Any]]


def read_record(folder: Path) -> Record:
    """Read a folder that `benchmarks.records` has written.

    Raises:
        InputError: It is none, or this version cannot read its configurations.
    """
    measured = _results_in(folder, TABLE)
    settings = measured["settings"]
    plan, seeds = settings["plan"], settings["seeds"]
    recipes = {
        name: config_of(_results_in(folder, f"{name}/seed{seeds[0]}/{RESULTS}")["config"]) for name in plan["recipes"]
    }
    accuracies = {
        name: {float(rate): accuracy for rate, accuracy in of_rate.items()}
        for name, of_rate in settings["rates"].items()
    }
    steps = "rounds_step_s_added" if "rounds_step_s_added" in plan else "rounds_step_s"
    part = {"record": folder.name, "command": measured["command"], "environment": measured["environment"]}
    history = [*settings.get("extends", []), part | {"rounds_step_s": plan[steps]}]
    return Record(folder, recipes, plan, accuracies, seeds, history)


def _results_in(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise InputError(
            f"extend: got {folder}, which has no {name}; expected a folder of benchmarks/records with {TABLE}."
        )
    return read_results(folder / name)


def on_hardware_of(record: Record, name: str, config: Config) -> Config:
    """Let `auto` of device, precision and compilation mean what it meant for the record, whose steps are the measure.

    Raises:
        InputError: The recipe asks for another one, or this machine has no such device, or emulates the precision.
    """
    reference = next(iter(record.recipes.values()))
    ours, theirs = flatten(config), flatten(reference)
    for field in HARDWARE_FIELDS:
        if ours[field] not in ("auto", theirs[field]):
            given, wanted = str(ours[field]).lower(), str(theirs[field]).lower()
            raise InputError(f"run {name}: {field}: got {given}; expected that of the record. Give --{field} {wanted}.")
    if reference.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"extend: {record.folder} was trained on cuda; PyTorch finds no CUDA device here.")
    if is_slow_precision(reference.device, reference.train.amp):
        raise InputError(
            f"extend: {record.folder} was trained in {reference.train.amp}, which this machine's {reference.device}"
            " emulates slowly, so that steps compare otherwise than there; expected a machine that has it."
        )
    train = dataclasses.replace(config.train, amp=reference.train.amp, compile=reference.train.compile)
    return dataclasses.replace(config, device=reference.device, train=train)


def check_new(record: Record, recipes: dict[str, Config]) -> None:
    """Raise InputError if the record has a recipe of one of these names, or measured its own in another way."""
    measured = _measurement(next(iter(record.recipes.values())))
    for name, config in recipes.items():
        if name in record.recipes:
            raise InputError(f"run {name}: is in {record.folder}; expected a name that is not.")
        for field, value in _measurement(config).items():
            check(value == measured[field], f"run {name}: {field}", value, f"that of the record, {measured[field]}")


def check_measured_alike(recipes: dict[str, Config]) -> None:
    """Raise InputError if a recipe is measured in another way than the first one: their numbers do not compare.

    Which weights are measured, and how their answers are averaged, is the recipe's own.
    """
    first, *others = recipes
    measured = _measurement(recipes[first])
    for name in others:
        fields = flatten(recipes[name])
        for field, value in _measurement(recipes[name]).items():
            is_own = field in VALIDATION_FIELDS or field == "eval.save_logits" or keeps_results(field, fields)
            check(
                is_own or value == measured[field],
                f"run {name}: {field}",
                value,
                f"that of run {first}, {measured[field]}",
            )


def _measurement(config: Config) -> dict[str, Any]:
    """Return the fields that decide what a run is measured on."""
    return {
        field: value
        for field, value in flatten(config).items()
        if field == "data.name" or (field.startswith("eval.") and field not in PLACE_FIELDS)
    }


def copy_runs(record: Record, out: Path) -> None:
    """Copy the record's runs to the folder of the comparison, so that they count as finished."""
    for name in record.recipes:
        for seed in record.seeds:
            run = Path(name) / f"seed{seed}"
            if not (out / run / RESULTS).exists():
                shutil.copytree(record.folder / run, out / run, dirs_exist_ok=True)


def longer_plan(record: Record, recipes: dict[str, Config], steps: int, turns: int) -> dict[str, Any]:
    """Measure the new recipes' steps in turns with those of the record's first recipe, and plan their epochs.

    A new recipe's step is its ratio to the first recipe's, in the same turn, times the step that the record has of
    that one. So the epochs fit the record's time, whatever the speed of this machine.

    Args:
        record: The record.
        recipes: name -> the new recipes' configurations.
        steps: As for `make_plan`.
        turns: As for `make_plan`.

    Returns:
        The record's plan with the new recipes, and their turns as `rounds_step_s_added`.
    """
    first = next(iter(record.recipes))
    place = next(iter(recipes.values())).data.dir
    data = dataclasses.replace(record.recipes[first].data, dir=place)
    reference = dataclasses.replace(record.recipes[first], data=data)
    rounds, sizes = rounds_of({first: reference, **recipes}, steps, turns)
    return planned_longer(record.plan, first, rounds, sizes)


def planned_longer(
    plan: dict[str, Any], first: str, rounds: list[dict[str, float]], sizes: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """Plan the new recipes' epochs from the measured steps; see `longer_plan` and `plan_epochs`."""
    rows = dict(plan["recipes"])
    for name, (steps_per_epoch, batch_size) in sizes.items():
        if name == first:
            continue
        step_s = rows[first]["step_s"] * median(one[name] / one[first] for one in rounds)
        epochs = max(1, round(plan["budget_s"] / (step_s * steps_per_epoch)))
        rows[name] = planned_recipe(epochs, steps_per_epoch, step_s, batch_size)
    of_record = {name: value for name, value in plan.items() if name != RATES}  # those of its own runs
    return of_record | {"recipes": rows, "rounds_step_s_added": rounds}
