"""python -m benchmarks.records: keep a comparison of `benchmarks.equal_time` in the repository, and print its table.

    python -m benchmarks.records DATE-NAME --add DIR    copy the finished comparison in DIR to benchmarks/records
    python -m benchmarks.records DATE-NAME              print its table in Markdown, as docs/records.md has it

A record has `equal_time.json` (the command, the environment, the plan, the learning rates, all numbers) and, for every
run, its configuration, results and metrics. Absolute folders of the machine are replaced by DIR, DATA and CACHE.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.equal_time import SIGNIFICANT
from benchmarks.equal_time_plan import TABLE
from benchmarks.measure import console, mean_sd_text
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.plain_yaml import load_plain_yaml
from fastmagn.config.text import yaml_text
from fastmagn.errors import InputError, check
from fastmagn.machine.command import run_command
from fastmagn.machine.files import write_text
from fastmagn.runs.paths import CONFIG, METRICS, RESULTS
from fastmagn.runs.reading import read_results

RECORDS = Path(__file__).parent / "records"
RUN_FILES = (CONFIG, RESULTS, METRICS)
# heading -> (key of a recipe's numbers, which of a column's is the best, if that says something)
COLUMNS: dict[str, tuple[str, Callable[[Iterable[float]], float] | None]] = {
    "clean": ("clean_accuracy", max),
    "c15": ("mca_c15", max),
    "c15 without noises": ("mca_c15_without_noises", max),
    "c18": ("mca_c18", max),
    "C-bar": ("mca_cbar", max),
    "RMS calibration error, clean": ("rms_clean", None),  # little more than chance for many recipes
    "corrupt": ("rms_corrupt", min),
}


def main(arguments: list[str]) -> int:
    """Copy a comparison if asked to, and print its table."""
    parser = OwnOptions("python -m benchmarks.records", __doc__.splitlines()[0])
    parser.add_argument("name", help="the record's folder in benchmarks/records")
    parser.add_argument("--add", type=Path, metavar="DIR", help="the --out of a finished benchmarks.equal_time")
    options = parser.parse_args(arguments)
    record = record_folder(options.name)
    if options.add:
        add(options.add, record)
    print(markdown(read_results(record / TABLE)))
    return 0


def record_folder(name: str) -> Path:
    """Return the folder of the record of this name.

    Raises:
        InputError: It is not a date and lower-case words.
    """
    named = bool(re.fullmatch(r"\d{4}-\d\d-\d\d-[a-z0-9-]+", name))
    check(named, "name", name, "a date and lower-case words, such as 2026-01-31-cifar10-methods")
    return RECORDS / name


def add(out: Path, record: Path) -> None:
    """Copy the finished comparison in `out` to the folder `record`.

    Raises:
        InputError: A run is missing, or not in the table; or the record exists.
    """
    measured = read_results(out / TABLE)
    seeds, recipes = measured["settings"]["seeds"], measured["settings"]["plan"]["recipes"]
    runs = [out / name / f"seed{seed}" for name in recipes for seed in seeds]
    missing = [run for run in runs if not (run / RESULTS).exists()]
    if missing:
        raise InputError(f"{missing[0]}: is not finished; the command of the comparison resumes.")
    rows = {name: [row["seed"] for row in recipe["seeds"]] for name, recipe in measured["recipes"].items()}
    for name in recipes:
        if rows.get(name) != seeds:
            raise InputError(
                f"{out / TABLE}: has seeds {rows.get(name, [])} of {name}; expected {seeds}. The command of the"
                " comparison writes it anew."
            )
    copies = {out / TABLE: record / TABLE}
    for run in runs:
        copies |= {run / name: record / run.relative_to(out) / name for name in RUN_FILES}
    keep(copies, record, [out], runs)


def keep(copies: dict[Path, Path], record: Path, outs: list[Path], runs: list[Path]) -> None:
    """Copy files to the new folder `record`, with DIR, DATA and CACHE in place of the machine's folders.

    Args:
        copies: File -> its copy in the record.
        record: The record's folder.
        outs: The folders that DIR stands for.
        runs: The run folders, whose configurations name the others.

    Raises:
        InputError: The record exists.
    """
    if record.exists():
        raise InputError(f"{record}: exists. Name another record, or remove the folder.")
    folders = _folders(outs, runs)
    try:
        for source, target in copies.items():
            _copy(source, target, folders)
    except BaseException:
        shutil.rmtree(record, ignore_errors=True)
        raise
    console.print(f"written: {record}", soft_wrap=True)


def _folders(outs: list[Path], runs: list[Path]) -> dict[str, str]:
    """Return the absolute folders that the files name, the longest first, and what stands for each in a record.

    Runs that were copied from a record have none of their own.
    """
    folders = {str(out.absolute()): "DIR" for out in outs}
    for run in runs:
        config = json.loads((run / RESULTS).read_text())["config"]
        for folder, name in ((config["data"]["dir"], "DATA"), (config["eval"]["cache_dir"], "CACHE")):
            if folder and Path(folder).is_absolute():
                folders[folder] = name
    return dict(sorted(folders.items(), key=lambda item: -len(item[0])))


def _copy(source: Path, target: Path, folders: dict[str, str]) -> None:
    """Copy a file of JSON or YAML, whose texts name the folders in escapes; YAML also breaks long ones into lines."""
    if source.suffix == ".yaml":
        write_text(target, yaml_text(_with_names(load_plain_yaml(source), folders)))
        return
    escaped = {json.dumps(folder)[1:-1]: name for folder, name in folders.items()}
    write_text(target, _with_names(source.read_text(), escaped))


def _with_names(value: Any, folders: dict[str, str]) -> Any:
    """Return a value of YAML or JSON with the names of the folders in all its texts."""
    if isinstance(value, dict):
        return {key: _with_names(inner, folders) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_names(inner, folders) for inner in value]
    if isinstance(value, str):
        for folder, name in folders.items():
            value = value.replace(folder, name)
    return value


def markdown(measured: dict[str, Any]) -> str:
    """Return the table of a comparison, the highest c18 (else c15) first, in %: the best of each column bold.
    A star marks a mean that differs from the first recipe's with p < 0.01.
    """
    plan, recipes = measured["settings"]["plan"]["recipes"], measured["recipes"]
    shown = {heading: key for heading, (key, _) in COLUMNS.items() if all(key in row for row in recipes.values())}
    best = {
        key: round(100 * best_of(row[key]["mean"] for row in recipes.values()), 1)
        for key, best_of in COLUMNS.values()
        if key in shown.values() and best_of
    }
    lines = ["| | epochs | learning rate | " + " | ".join(shown) + " | seconds | images/s |"]
    lines.append("| --- " * (len(shown) + 5) + "|")
    order = next(key for key in ("mca_c18", "mca_c15") if key in shown.values())
    for name, row in sorted(recipes.items(), key=lambda item: -item[1][order]["mean"]):
        cells = []
        for key in shown.values():
            text = mean_sd_text(row[key], len(row["seeds"]), 100, 1)
            star = r"\*" if row["p_values"].get(key, 1) < SIGNIFICANT else ""
            is_best = round(100 * row[key]["mean"], 1) == best.get(key)
            cells.append((f"**{text}**" if is_best else text) + star)
        rate = measured["settings"]["learning_rates"][name]
        planned = [f"{plan[name]['planned_s']:.0f}", f"{plan[name]['images_per_s']:,.0f}"]
        numbers = [f"{plan[name]['epochs']}", f"{rate:g}", *cells, *planned]
        lines.append(f"| `{name}` | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
