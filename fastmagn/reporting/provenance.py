"""Where runs come from: how their configurations differ, their environments, and the commands that repeat them."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastmagn.config.of_weights import SAID_BY_FILE, SAID_BY_RUN, weights_fields
from fastmagn.config.own_code import OPTION
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, plain, yaml_text
from fastmagn.reporting.experiments import Experiment
from fastmagn.reporting.names import network_title
from fastmagn.reporting.runs import FinishedRun
from fastmagn.runs.paths import run_of_checkpoint


class Environment(NamedTuple):
    """The environment of some runs: their folders, and (name, value) of all that is known."""

    runs: tuple[str, ...]
    values: tuple[tuple[str, str], ...]


def command(run: FinishedRun) -> str:
    """The command that repeats a run, or measures weights again, with every field that differs from its default."""
    defaults, always = flatten(Config()), {"method", "data.name", "model.name", "train.seed"}
    words = ["fastmagn.train"]
    if run.weights:
        words = ["fastmagn.evaluate", "--weights", run.weights.file]
        for option, values in (("--mean", run.weights.mean), ("--std", run.weights.std)):
            words += [option, *map(repr, values)] if values else []
        file = Path(run.weights.file)  # what it or its run may say otherwise is always given
        defaults = defaults | weights_fields(file)
        always = set(SAID_BY_RUN if run_of_checkpoint(file) else SAID_BY_FILE)
        defaults["run_dir"] = run.config.get("run_dir")  # there it would name a run to measure
    for name, value in flatten(run.config).items():
        if name in always or defaults.get(name) != value:
            words += [OPTION if name == "imports" else f"--{name}", argument(value)]
    return shlex.join(["python", "-m", *words])


def measuring_command(run: FinishedRun, *options: str) -> str:
    """The command that measures a run, or weights, again with these options; the weights' results go where they are."""
    if run.weights:
        return f"{command(run)} {shlex.join([*options, '--out', str(run.path)])}"
    return shlex.join(["python", "-m", "fastmagn.evaluate", "--run", str(run.folder), *options])


def report_command(experiments: Sequence[Experiment], out: Path) -> str:
    """The command that repeats the report of these runs."""
    paths = sorted(str(run.path) for experiment in experiments for run in experiment.runs)
    return shlex.join(["python", "-m", "fastmagn.report", *paths, "--out", str(out)])


def argument(value: Any) -> str:
    """A field's value as the command line takes it."""
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value)


def runs_table(experiments: Sequence[Experiment]) -> list[tuple[str, ...]]:
    """A header, and a row for each run: its folder, what it is, and what it was made with."""
    what, made_with = ("run", "method", "network", "seed", "test images"), ("fastmagn", "torch", "device", "CPU")
    lines: list[tuple[str, ...]] = [(*what, "epochs", "images/s", *made_with)]
    for experiment in experiments:
        for run in experiment.runs:
            version = f"{run.environment.get('fastmagn') or '–'} {run.environment.get('commit') or ''}".strip()
            lines.append(
                (
                    str(run.path),
                    experiment.label,
                    network_title(run.network),
                    "–" if run.weights else str(run.seed),
                    f"{run.num_images:,}",
                    run.trained_for,
                    "–" if run.images_per_s is None else f"{run.images_per_s:.0f}",
                    version,
                    *(str(run.environment.get(name) or "–") for name in ("torch", "device", "cpu")),
                )
            )
    return lines


def differing_fields(experiments: Sequence[Experiment]) -> list[tuple[str, tuple[str, ...]]]:
    """The fields that differ between the runs, except run_dir: (field, its value in each experiment).

    An experiment's different values are listed with commas. A field that an older configuration lacks is a dash.
    """
    flat = [[flatten(run.config) for run in experiment.runs] for experiment in experiments]
    names = dict.fromkeys(name for runs in flat for config in runs for name in config if name != "run_dir")
    rows = []
    for name in names:
        each = [[argument(config[name]) if name in config else "–" for config in runs] for runs in flat]
        if len({value for values in each for value in values}) > 1:
            rows.append((name, tuple(", ".join(dict.fromkeys(values)) for values in each)))
    return rows


def environments(experiments: Sequence[Experiment]) -> list[Environment]:
    """The different environments, each with the runs that were measured in it."""
    runs_of: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for experiment in experiments:
        for run in experiment.runs:
            values = tuple((name, "–" if value is None else str(value)) for name, value in run.environment.items())
            runs_of.setdefault(values, []).append(str(run.path))
    return [Environment(tuple(runs), values) for values, runs in runs_of.items()]


def whole_config(run: FinishedRun) -> str:
    """The configuration of a run, as in its config.yaml."""
    return yaml_text(run.config)
