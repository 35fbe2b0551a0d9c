"""python -m benchmarks.paper_record: keep a sweep over the paper's methods in the repository, beside the paper's table.

    python -m benchmarks.paper_record DATE-NAME --add DIR [DIR ...]    copy finished sweeps to benchmarks/records
    python -m benchmarks.paper_record DATE-NAME                        print their tables in Markdown

DIR is the folder of `python -m fastmagn.sweep --config configs/sweeps/paper_small.yaml`. Further seeds are further
sweeps, with `--train.seed 1 --out DIR`. A record has each sweep's definition, and for each run METHOD/seedN its
configuration, results and metrics. Absolute folders of the machine are replaced by DIR, DATA and CACHE.
"""

from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.equal_time import numbers_of, summarise
from benchmarks.measure import mean_sd_text
from benchmarks.records import COLUMNS, RUN_FILES, keep, record_folder
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import InputError, check
from fastmagn.machine.command import run_command
from fastmagn.reporting.names import CORRUPTION_KINDS, method_order
from fastmagn.reporting.paper import paper_value
from fastmagn.runs.changes import NO_WEIGHTS, keeps_results, views_of
from fastmagn.runs.paths import CONFIG, RESULTS
from fastmagn.runs.reading import read_results
from fastmagn.sweeping.definition import DEFINITION

PAPER_NETWORK = "resnet18"
MEAN = "mca"  # the paper's mean over c18
Runs = dict[str, list[dict[str, Any]]]  # method -> the results of its seeds


class Row(NamedTuple):
    """Accuracies of all methods in one condition, method -> a fraction in 0..1."""

    ours: dict[str, float]
    paper: dict[str, float]

    def same_order(self) -> int:
        """The number of pairs of methods that ours and the paper's accuracies order alike."""
        return sum(
            (self.ours[one] - self.ours[other]) * (self.paper[one] - self.paper[other]) > 0
            for one, other in combinations(self.ours, 2)
        )


def main(arguments: list[str]) -> int:
    """Copy sweeps if asked to, and print the tables."""
    parser = OwnOptions("python -m benchmarks.paper_record", __doc__.splitlines()[0])
    parser.add_argument("name", help="the record's folder in benchmarks/records")
    parser.add_argument("--add", type=Path, nargs="+", metavar="DIR", help="the folders of finished sweeps")
    options = parser.parse_args(arguments)
    record = record_folder(options.name)
    if options.add:
        add(options.add, record)
    runs = read_runs(record)
    print(f"{summary_table(runs)}\n\n{corruption_table(runs)}")
    return 0


def add(sweeps: list[Path], record: Path) -> None:
    """Copy finished sweeps to the new folder `record`.

    Raises:
        InputError: A trial is missing, the paper has no such run, two are of the same method and seed, or two seeds of
            a method are of other recipes; or the record exists.
    """
    copies: dict[Path, Path] = {}
    runs: list[Path] = []
    recipes: dict[str, dict[str, Any]] = {}
    for sweep in sweeps:
        trials = sorted(file.parent for file in sweep.glob(f"*/{CONFIG}"))
        if not (sweep / DEFINITION).exists() or not trials:
            raise InputError(f"{sweep}: is not the folder of a sweep. Name the --out of python -m fastmagn.sweep.")
        for trial in trials:
            if not (trial / RESULTS).exists():
                raise InputError(f"{trial}: is not finished; the command of the sweep resumes.")
            results = read_results(trial / RESULTS)
            check_paper_has(trial, results)
            config = results["config"]
            recipe = recipe_of(config)
            for field, value in recipes.setdefault(config["method"], recipe).items():
                check(recipe[field] == value, f"{trial}: {field}", recipe[field], f"{value}, as the other seeds")
            target = record / config["method"] / f"seed{config['train']['seed']}"
            if target / RESULTS in copies.values():
                raise InputError(f"{trial}: is a second run of this method and seed. Give each sweep its own seed.")
            copies |= {trial / name: target / name for name in RUN_FILES}
            definition = record / f"seed{config['train']['seed']}-{DEFINITION}"
            if copies.get(sweep / DEFINITION) != definition and definition in copies.values():
                raise InputError(f"{trial}: is of a second sweep of this seed. Give each sweep its own seed.")
            copies[sweep / DEFINITION] = definition
        runs += trials
    keep(copies, record, sweeps, runs)


def recipe_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that decide a run's numbers but for its seed, those that are newer than the run at defaults."""
    fields = flatten(Config()) | flatten(config)
    fields["augment.backend"] = views_of(fields["augment.backend"])
    harmless = NO_WEIGHTS | {"train.seed", "eval.save_logits"}
    return {name: value for name, value in fields.items() if name not in harmless and not keeps_results(name, fields)}


def check_paper_has(trial: Path, results: dict[str, Any]) -> None:
    """Raise InputError if the paper has no such run, or the run has no mean over the paper's corruptions."""
    for condition in ("clean", MEAN):
        paper_accuracy(results, condition)
    check(results["mca"].get("c18") is not None, f"{trial}: mca.c18", None, "a run that has measured c18")


def read_runs(record: Path) -> Runs:
    """Return the results of a record, the methods in the order of the paper.

    Raises:
        InputError: It has none.
    """
    runs: Runs = {}
    for file in sorted(record.glob(f"*/seed*/{RESULTS}")):
        runs.setdefault(file.parts[-3], []).append(read_results(file))
    if not runs:
        raise InputError(f"{record}: has no runs. Add sweeps with --add DIR.")
    return dict(sorted(runs.items(), key=lambda item: method_order(item[0])))


def accuracy_of(results: dict[str, Any], condition: str) -> float:
    """Return a run's accuracy on clean images, under a corruption, or its mean over c18, a fraction in 0..1."""
    if condition == "clean":
        return results["clean_accuracy"]
    return results["mca"]["c18"] if condition == MEAN else fmean(results["corruption_accuracy"][condition])


def paper_accuracy(results: dict[str, Any], condition: str) -> float:
    """Return the paper's accuracy of a run's data and method with ResNet-18, a fraction in 0..1."""
    config = flatten(results["config"])
    value = paper_value(config["data.name"], PAPER_NETWORK, config["method"], config, condition)
    if value is None:
        raise InputError(f"{config['method']}, {config['data.name']}: the paper has no {condition} for this run.")
    return value


def row_of(runs: Runs, condition: str) -> Row:
    """Return all methods' accuracies in one condition: the means over our seeds, and the paper's."""
    ours = {method: fmean(accuracy_of(results, condition) for results in seeds) for method, seeds in runs.items()}
    return Row(ours, {method: paper_accuracy(seeds[0], condition) for method, seeds in runs.items()})


def summary_table(runs: Runs) -> str:
    """Return a row for each method, in %: our accuracies and calibration errors, and the paper's with ResNet-18."""
    titles = ["epochs", *COLUMNS, "the paper's clean", "c18"]
    lines = ["| | " + " | ".join(titles) + " |", "| --- " * (len(titles) + 1) + "|"]
    for method, seeds in runs.items():
        numbers = [numbers_of(results) for results in seeds]
        means = summarise(numbers)
        cells = [f"{numbers[0]['epochs']}"]
        for key, _ in COLUMNS.values():
            cells.append(mean_sd_text(means[key], len(seeds), 100, 1))
        cells += [f"{100 * paper_accuracy(seeds[0], condition):.1f}" for condition in ("clean", MEAN)]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def corruption_table(runs: Runs) -> str:
    """Return a row for each condition, in %: our accuracies, the paper's, and how many pairs they order alike."""
    kinds = [name for names in CORRUPTION_KINDS.values() for name in names if name in CORRUPTION_SETS["c18"]]
    titles = [*(f"`{method}`" for method in runs), *(f"paper `{method}`" for method in runs), "pairs in its order"]
    lines = ["| | " + " | ".join(titles) + " |", "| --- " * (len(titles) + 1) + "|"]
    for condition in ("clean", *kinds, MEAN):
        row = row_of(runs, condition)
        cells = [
            f"**{100 * value:.1f}**" if value == max(values.values()) else f"{100 * value:.1f}"
            for values in row
            for value in values.values()
        ]
        pairs = len(runs) * (len(runs) - 1) // 2
        name = "mean of c18" if condition == MEAN else condition.replace("_", " ")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {row.same_order()} of {pairs} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
