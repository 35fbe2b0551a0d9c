"""python -m benchmarks.time_to_mca: measure how long recipes take to reach a target mCA, over seeds.

    python -m benchmarks.time_to_mca --target 0.9064 --seeds 0 1 2 --out benchmarks/results/NAME.json \\
        --run paper "--config configs/cifar10_magn_augmix.yaml" --run fast "--config configs/fast/cifar10.yaml"

Each `--run NAME ARGUMENTS` runs `python -m fastmagn.train ARGUMENTS` once per seed, in a separate process; the recipes
take turns. `trained after` is the time from the start of the process to its last checkpoint. It includes imports, data,
compilation and training, but not the evaluation; for a run that was interrupted, it is the sum of the times of its
starts. Finished runs are not trained again, so the same command resumes an interrupted benchmark. The result is one
table and one plot.
"""

import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.measure import (
    check_seeds,
    console,
    device_of_runs,
    mean_sd,
    mean_sd_text,
    words_of_runs,
    write_result,
)
from fastmagn.config.command_line import OwnOptions, given_fields, parse_config
from fastmagn.config.own_code import trusted
from fastmagn.config.text import to_yaml
from fastmagn.errors import InputError, Interrupted, check
from fastmagn.machine.command import run_command
from fastmagn.machine.files import write_json, write_text
from fastmagn.machine.signals import interruptible
from fastmagn.methods.table import get_method
from fastmagn.runs.changes import other_fields
from fastmagn.runs.paths import CONFIG, RESULTS, TRIAL_LOG, last_checkpoint
from fastmagn.runs.reading import read_results
from fastmagn.sweeping.images import has_results_of
from fastmagn.sweeping.sweep import check_folder, keep_precision
from fastmagn.sweeping.trial import run_trial

CLOCK_FILE = "time_to_mca.json"  # in a run folder: how long it was trained, or when it was started


def main(arguments: list[str]) -> int:
    """Train the missing runs, print the table, and write the JSON and the plot if requested."""
    parser = OwnOptions("python -m benchmarks.time_to_mca", __doc__.splitlines()[0])
    parser.add_argument("--run", nargs=2, action="append", required=True, metavar=("NAME", "ARGUMENTS"), dest="recipes")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="train.seed of the runs (default: 0 1 2)"
    )
    parser.add_argument("--target", type=float, default=0.9064, help="mCA in 0..1 (default: 0.9064, the paper's)")
    parser.add_argument(
        "--set", choices=["c15", "c18", "c19"], default="c18", dest="corruption_set", help="for the mCA"
    )
    parser.add_argument("--runs_dir", type=Path, default=Path("runs/time_to_mca"), help="folder for the run folders")
    parser.add_argument("--out", type=Path, help="JSON file to write; the plot is written next to it")
    options = parser.parse_args(arguments)
    check_seeds(options.seeds)
    check(0 < options.target < 1, "target", options.target, "a fraction in (0, 1)")
    recipes = words_of_runs(options.recipes)
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in recipes}
    for seed in options.seeds:
        for name, words in recipes.items():
            run_dir = options.runs_dir / name / f"seed{seed}"
            measured[name].append(train_once(run_dir, words, seed, options.corruption_set))
            row = measured[name][-1]
            console.print(f"{name}, seed {seed}: mCA {100 * row['mca']:.2f} % after {row['trained_after_s']:.0f} s")
    summary = {name: summarise(rows, options.target) for name, rows in measured.items()}
    print_table(summary, options.target, options.corruption_set)
    if options.out:
        settings = {
            "recipes": dict(options.recipes),
            "seeds": options.seeds,
            "target": options.target,
            "corruption_set": options.corruption_set,
        }
        device = device_of_runs(*recipes.values())
        write_result(options.out, "time_to_mca", settings, {"recipes": summary}, device)
        plot(summary, options.target, options.corruption_set, options.out.with_suffix(".png"))
    return 0


def train_once(run_dir: Path, words: list[str], seed: int, corruption_set: str) -> dict[str, Any]:
    """Return one run's numbers; train it first if it is not finished.

    Raises:
        InputError: The folder has a run of another recipe, or one whose start was not timed; or the command failed, or
            its results have no mCA for this set.
    """
    arguments = [*words, "--train.seed", str(seed)]
    check_same_recipe(run_dir, arguments)
    if "trained_after_s" not in read_clock(run_dir):
        time_training(run_dir, arguments)
    results = read_results(run_dir / RESULTS)
    mca = results["mca"][corruption_set]
    check(mca is not None, "set", corruption_set, f"a set that {run_dir} measured; see eval.corruption_set")
    return {
        "seed": seed,
        "mca": mca,
        "clean_accuracy": results["clean_accuracy"],
        "rms_calibration_error": results["rms_calibration_error"]["corrupt"],
        "train_s": results["train_s"],
        "images_per_s": results["images_per_s"],
        **read_clock(run_dir),
    }


def check_same_recipe(run_dir: Path, arguments: list[str]) -> None:
    """Raise InputError if the folder holds the results of other arguments of `fastmagn.train`, or of other images."""
    if (run_dir / RESULTS).exists():
        results = read_results(run_dir / RESULTS)
        recorded = results["config"]
        config = dataclasses.replace(parse_config(arguments, "fastmagn.train", ""), run_dir=run_dir.absolute())
        for name, (there, here) in other_fields(config, recorded).items():
            raise InputError(
                f"{run_dir}: has the results of another recipe: {name} is {there!r} there and {here!r} here. Give its"
                " arguments, or another name to --run."
            )
        if not has_results_of(config, results):
            raise InputError(
                f"{run_dir}: has the results of other images: data.dir is {recorded['data'].get('dir')} there and"
                f" {config.data.dir} here. Give the --data.dir that has its images, or another name to --run."
            )


def time_training(run_dir: Path, arguments: list[str]) -> None:
    """Train a run, or resume it, and write how long all its starts took.

    Raises:
        InputError: The run cannot start, or failed.
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived. The run has saved its checkpoint.
    """
    config = dataclasses.replace(parse_config(arguments, "fastmagn.train", ""), run_dir=run_dir.absolute())
    get_method(config.method).check_given(config.augment, given_fields(arguments))
    earlier_s = trained_s(run_dir, read_clock(run_dir))
    check_folder(config, "runs_dir")
    write_text(run_dir / CONFIG, to_yaml(keep_precision(config)))
    clock = {"earlier_s": earlier_s, "started_s": time.time()}
    write_json(run_dir / CLOCK_FILE, clock)
    with interruptible() as signal_received:
        outcome = run_trial(
            config.run_folder, Path.cwd(), None, lambda: bool(signal_received()), trusted(config.imports)
        )
        number = signal_received()
    if outcome.state == "failed":
        raise InputError(f"{run_dir}: {outcome.error} (full output: {run_dir / TRIAL_LOG})")
    if outcome.state == "finished":
        write_json(run_dir / CLOCK_FILE, {"trained_after_s": trained_s(run_dir, clock)})
    if number or outcome.state == "interrupted":
        console.print("interrupted; the same command resumes")
        raise Interrupted(number or signal.SIGTERM)


def trained_s(run_dir: Path, clock: dict[str, float]) -> float:
    """Return the seconds from each start of a run to the last checkpoint that it wrote, over all starts.

    Args:
        run_dir: The run folder.
        clock: Of its last start: `earlier_s`, what this returned then, and `started_s`, s since 1970; empty if there
            was none.

    Raises:
        InputError: There is a checkpoint, but no start.
    """
    checkpoint = last_checkpoint(run_dir)
    if not checkpoint.exists():
        return 0.0
    if not clock:
        raise InputError(
            f"{run_dir}: has a checkpoint, but no {CLOCK_FILE}, so how long it was trained is unknown. Remove the"
            " folder, or name another --runs_dir."
        )
    return clock["earlier_s"] + max(0.0, checkpoint.stat().st_mtime - clock["started_s"])


def read_clock(run_dir: Path) -> dict[str, float]:
    """Return what the folder's clock says; empty if it has none."""
    path = run_dir / CLOCK_FILE
    return read_results(path) if path.exists() else {}


def summarise(rows: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """Return the mean and standard deviation of each number over the seeds, and how many seeds reached the target."""
    numbers = [name for name in rows[0] if name != "seed"]
    means = {name: mean_sd([row[name] for row in rows]) for name in numbers}
    return means | {"reached": sum(row["mca"] >= target for row in rows), "seeds": rows}


def print_table(summary: dict[str, dict[str, Any]], target: float, corruption_set: str) -> None:
    """Print throughput next to accuracy, one row per recipe."""
    table = Table(title=f"time to mCA {corruption_set} {100 * target:.2f} %; mean and standard deviation over seeds")
    for column in ("recipe", "trained after, s", "images/s", "mCA, %", "clean, %", "RMS error, %", "reached"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for name, row in summary.items():
        table.add_row(
            name,
            mean_sd_text(row["trained_after_s"], len(row["seeds"]), 1, 0),
            mean_sd_text(row["images_per_s"], len(row["seeds"]), 1, 0),
            mean_sd_text(row["mca"], len(row["seeds"]), 100, 2),
            mean_sd_text(row["clean_accuracy"], len(row["seeds"]), 100, 2),
            mean_sd_text(row["rms_calibration_error"], len(row["seeds"]), 100, 2),
            f"{row['reached']} of {len(row['seeds'])}",
        )
    console.print(table)


def plot(summary: dict[str, dict[str, Any]], target: float, corruption_set: str, path: Path) -> None:
    """Plot mCA against time: one point per recipe, bars of one standard deviation, and the target as a line."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, row in summary.items():
        x, y = row["trained_after_s"], row["mca"]
        bars = {"xerr": x["sd"], "yerr": 100 * y["sd"]} if len(row["seeds"]) > 1 else {}
        axes.errorbar(x["mean"], 100 * y["mean"], **bars, fmt="o", capsize=3, label=name)
    axes.axhline(100 * target, linestyle="--", color="grey", linewidth=1, label=f"target {100 * target:.2f} %")
    axes.set_xlabel("trained after, s")
    axes.set_ylabel(f"mCA {corruption_set}, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    console.print(f"written: {path}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
