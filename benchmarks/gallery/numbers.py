"""The numbers of README's picture: a small file, written once from finished runs, that holds no path."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from fastmagn.config.text import flatten
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import InputError, check
from fastmagn.machine.files import write_json
from fastmagn.reporting.provenance import command
from fastmagn.reporting.runs import FinishedRun, read_runs
from fastmagn.runs.reading import read_results

NUMBERS = Path(__file__).parents[1] / "results" / "accuracy-by-corruption-digits-cpu-2cores.json"
BASELINE, JUDGED_BY = "standard", "c18"
_PLACES = ("run_dir", "data.dir", "data.download", "eval.cache_dir")
_SAME = ("data", "network", "num_images")


def write_numbers(runs: list[Path], path: Path) -> None:
    """Write what README's picture shows of finished runs, of which one is of `standard`.

    Raises:
        InputError: A run cannot be read, has not measured all of c19, or has another data set, network or number of
            test images than the first one.
    """
    read, warnings = read_runs(runs)
    if warnings:
        raise InputError(" ".join(warnings))
    names = CORRUPTION_SETS["c19"]
    for run in read:
        check(run.complete >= set(names), f"{run.path}", f"{len(run.complete)} corruptions", "all 19 of c19")
        for field in _SAME:
            first, own = getattr(read[0], field), getattr(run, field)
            check(own == first, f"{run.path}: {field}", own, f"{first}, as {read[0].path} has")
    check(BASELINE in [run.method for run in read], "runs", [run.method for run in read], f"one of {BASELINE} too")
    result = {
        "benchmark": "gallery",
        "command": shlex.join(["python", "-m", "benchmarks.gallery", "--runs", *["RUN"] * len(read)]),
        "runs": [_numbers(run, names) for run in read],
    }
    write_json(path, result)


def read_numbers(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run of `standard`, and the other one with the highest mCA, c18.

    Raises:
        InputError: All the runs are of `standard`.
    """
    runs = read_results(path)["runs"]
    (baseline,) = (run for run in runs if run["method"] == BASELINE)
    others = [run for run in runs if run["method"] != BASELINE]
    check(len(others) > 0, f"{path}: runs", [BASELINE], "another method too")
    return baseline, max(others, key=lambda run: run["mca"][JUDGED_BY])


def _numbers(run: FinishedRun, names: tuple[str, ...]) -> dict[str, Any]:
    flat = {name: value for name, value in flatten(run.config).items() if name not in _PLACES}
    return {
        "command": command(dataclasses.replace(run, config=flat)),
        "environment": run.environment,
        **{field: getattr(run, field) for field in ("method", "data", "network", "seed", "num_images")},
        "epochs": flat["train.epochs"],
        "clean_accuracy": run.clean_accuracy,
        "mca": {name: run.mca(members) for name, members in CORRUPTION_SETS.items()},
        "corruption_accuracy": {name: list(run.corruption_accuracy[name]) for name in names},
    }
