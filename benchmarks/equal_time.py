"""python -m benchmarks.equal_time: compare recipes that train equally long, over seeds: accuracies and calibration.

    python -m benchmarks.equal_time --out DIR --budget_s 600 --seeds 0 1 2 [--jobs N] [--rates 0.1 0.2 0.4] \\
        [--section.field value ...] --config configs/NAME.yaml \\
        --run standard "--method standard" --run magn_augmix "--method magn_augmix"

1. The plan: the recipes' real steps take turns, and DIR/plan.json gets the epochs that each trains in the budget. Run
   this part on an idle machine (`--plan_only`). The learning rate's cycle is fitted to the epochs.
2. The learning rates, if `--rates` are given: each recipe trains `--rate_s` seconds with each of them in
   DIR/rates/NAME/lrRATE, without `--held_out` training images. The most accurate on those is the recipe's rate; one
   with which it diverges cannot be.
3. The runs: every recipe and seed trains its epochs in DIR/NAME/seedN. The numbers of steps are fixed by the plan, so
   these runs and those of the rates may share the machine with others.
4. The table: DIR/equal_time.json and a table of the finished runs, written anew after each run. A star marks a mean
   that differs from the first recipe's with p < 0.01 (Welch's t test over the seeds).

With `--extend RECORD`, a folder of benchmarks/records, the record's recipes count too, with its time and seeds. Their
runs are copied, not repeated: `python -m benchmarks.equal_time --out DIR --extend RECORD --run mine "--config FILE"`.
The device, the precision and `train.compile` are those of the record.

The same command resumes: a plan that exists is kept, finished runs are skipped, interrupted ones resume. Fields of the
configuration hold for all recipes; those of a `--run` override them, and both override every `--config`. The time is
that of training steps: validation, checkpoints and the evaluation are not counted.
"""

import argparse
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.table import Table
from scipy import stats

from benchmarks.equal_time_extend import (
    Record,
    check_measured_alike,
    check_new,
    copy_runs,
    longer_plan,
    on_hardware_of,
    read_record,
)
from benchmarks.equal_time_plan import (
    IMAGES,
    PLAN,
    RATES,
    TABLE,
    check_images_of,
    check_plan,
    check_recipe,
    images_of,
    make_plan,
)
from benchmarks.equal_time_rates import (
    Accuracies,
    accuracies_of,
    asked_rates,
    best_rates,
    check_kept_rates,
    check_rates,
    has_diverged,
    note_diverged,
    print_rates,
    trials_of_rates,
    with_rates,
)
from benchmarks.measure import check_seeds, console, mean_sd, mean_sd_text, words_of_runs, write_result
from fastmagn.config.command_line import OwnOptions, given_fields, parse_config, parse_own
from fastmagn.config.own_code import trusted
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, to_yaml
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import InputError, Interrupted, check, counted, one_line
from fastmagn.evaluation.metrics.accuracy import mean_cbar_accuracy, mean_corruption_accuracy
from fastmagn.machine.command import run_command
from fastmagn.machine.console import warn
from fastmagn.machine.environment import environment
from fastmagn.machine.files import write_json, write_text
from fastmagn.machine.hardware import settle_hardware
from fastmagn.machine.signals import interruptible
from fastmagn.reporting.names import CORRUPTION_KINDS
from fastmagn.runs.changes import PLACE_FIELDS
from fastmagn.runs.paths import CONFIG, RESULTS, TRIAL_LOG
from fastmagn.runs.reading import read_results
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.sweep import check_folder, is_finished
from fastmagn.sweeping.trial import Outcome, run_trial
from fastmagn_kernels.threads import cpu_share

# column -> (key, scale of the number, digits)
COLUMNS = {
    "epochs": ("epochs", 1, 0),
    "clean": ("clean_accuracy", 100, 1),
    "c15": ("mca_c15", 100, 1),
    "c15\nquiet": ("mca_c15_without_noises", 100, 1),
    "c18": ("mca_c18", 100, 1),
    "C-bar": ("mca_cbar", 100, 1),
    "RMS\nclean": ("rms_clean", 100, 1),
    "RMS\ncorrupt": ("rms_corrupt", 100, 1),
}
CAPTION = "in %; quiet: without the noise corruptions; RMS: the calibration error"
SIGNIFICANT = 0.01
RATES_DIR = "rates"


def main(arguments: list[str]) -> int:
    """Make the plan, train the missing runs, print the table."""
    options, recipes, record = _parse(arguments)
    plan = kept_plan(options.out / PLAN, recipes, record, options)
    print_plan(plan)
    if options.plan_only:
        return 0
    asked = asked_rates(options.rates, options.rate_s, options.held_out)
    check_kept_rates(options.out / PLAN, plan, asked)
    accuracies, failed = measured_rates(recipes, plan, options)
    report_failed(failed)
    if failed:
        return 1
    if accuracies:
        rates = best_rates(accuracies)
        print_rates(accuracies, rates)
        recipes = with_rates(recipes, rates)
    if record:
        copy_runs(record, options.out)
        recipes, accuracies = record.recipes | recipes, record.accuracies | accuracies
    trials = [trial for seed in options.seeds for trial in trials_of(seed, recipes, plan, options.out)]
    left = unfinished(trials)
    if RATES not in plan:
        plan[RATES] = asked
        write_json(options.out / PLAN, plan)
    failed = run_all(left, options, lambda: report(trials, plan, accuracies, record, options))
    print_table(report(trials, plan, accuracies, record, options), first_recipe(trials))
    report_failed(failed)
    return 1 if failed else 0


def report_failed(failed: list[Outcome]) -> None:
    """Print a line for each run that has not finished."""
    for outcome in failed:
        console.print(f"{outcome.state}: {outcome.name}: {outcome.error}", soft_wrap=True)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Config], Record | None]:
    parser = OwnOptions("python -m benchmarks.equal_time", __doc__.splitlines()[0])
    parser.add_argument("--run", nargs=2, action="append", required=True, metavar=("NAME", "ARGUMENTS"), dest="runs")
    parser.add_argument("--budget_s", type=float, help="training time of each run, s; not with --extend")
    parser.add_argument("--extend", type=Path, metavar="RECORD", help="folder of a record to add recipes to")
    parser.add_argument("--seeds", type=int, nargs="+", help="train.seed (default: 0 1 2, or the record's)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the plan, the runs and the table")
    parser.add_argument("--steps", type=int, default=5, help="steps of a recipe in a turn of the plan (default: 5)")
    parser.add_argument("--turns", type=int, default=9, help="turns of each recipe in the plan (default: 9)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores (default: 1)")
    parser.add_argument("--rates", type=float, nargs="+", help="learning rates to choose each recipe's from")
    parser.add_argument("--rate_s", type=float, default=60, help="training time of a run for a rate, s (default: 60)")
    parser.add_argument("--held_out", type=int, default=5000, help="training images that decide it (default: 5000)")
    parser.add_argument("--plan_only", action="store_true", help="stop after the plan")
    options, fields = parse_own(parser, arguments)
    record = read_record(options.extend) if options.extend else None
    _settle_time_and_seeds(options, record)
    for name in ("steps", "turns", "jobs"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    check_rates(options.rates, options.rate_s, options.held_out)
    runs = words_of_runs(options.runs)
    check(RATES_DIR not in runs, "run", RATES_DIR, "another name: that folder is for the learning rates' runs")
    recipes = {}
    for name, words in runs.items():
        given = [*fields, *words]
        config = parse_config(given, parser.prog, "")
        recipes[name] = settle_hardware(on_hardware_of(record, name, config) if record else config)
        check_recipe(name, recipes[name], given_fields(given))
    if record:
        check_new(record, recipes)
    else:
        check_measured_alike(recipes)
    return options, recipes, record


def _settle_time_and_seeds(options: argparse.Namespace, record: Record | None) -> None:
    """Check `--budget_s` and `--seeds`, or take the record's."""
    if record is None:
        check(options.budget_s is not None and options.budget_s > 0, "budget_s", options.budget_s, "seconds above 0")
        options.seeds = options.seeds or [0, 1, 2]
        check_seeds(options.seeds)
        return
    check(options.budget_s is None, "budget_s", options.budget_s, "nothing with --extend: the record's time counts")
    check(options.seeds in (None, record.seeds), "seeds", options.seeds, f"those of the record, {record.seeds}")
    options.budget_s, options.seeds = record.plan["wanted_budget_s"], record.seeds


def kept_plan(
    path: Path, recipes: dict[str, Config], record: Record | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the plan of these recipes and this budget, from the file or, if there is none, measured and written.

    With a record, it has the record's recipes too.

    Raises:
        InputError: The file is a plan of other recipes, of other images or of another budget.
    """
    ignored = PLACE_FIELDS | {"train.seed", "train.epochs"}
    configs = {
        name: {field: value for field, value in flatten(config).items() if field not in ignored}
        for name, config in recipes.items()
    }
    if record:
        configs = record.plan["configs"] | configs
    device = _device(recipes)
    if path.exists():
        plan = read_results(path)
        check_plan(path, plan, options.budget_s, configs, device.type)
        check_images_of(path, plan, recipes)
        return plan
    ours = {"wanted_budget_s": options.budget_s, "configs": configs}
    console.print(f"the plan: {options.turns} turns of {options.steps} steps of each recipe")
    if record:
        plan = longer_plan(record, recipes, options.steps, options.turns) | ours
    else:
        plan = make_plan(recipes, options.budget_s, options.steps, options.turns) | ours
    plan["environment"] = environment(device)
    plan[IMAGES] = images_of(recipes)
    write_json(path, plan)
    console.print(f"written: {path}", soft_wrap=True)
    return plan


def _device(recipes: dict[str, Config]) -> torch.device:
    return torch.device("cuda" if any(config.device == "cuda" for config in recipes.values()) else "cpu")


def trials_of(seed: int, recipes: dict[str, Config], plan: dict[str, Any], out: Path) -> list[Trial]:
    """Return a run of each recipe with this seed and the plan's epochs."""
    trials = []
    for name, config in recipes.items():
        train = dataclasses.replace(config.train, seed=seed, epochs=plan["recipes"][name]["epochs"])
        run_dir = (out / name / f"seed{seed}").absolute()
        run = dataclasses.replace(config, train=train, run_dir=run_dir, resume="auto")
        trials.append(Trial(f"{name}, seed {seed}", {"recipe": name, "seed": seed}, run))
    return trials


def measured_rates(
    recipes: dict[str, Config], plan: dict[str, Any], options: argparse.Namespace
) -> tuple[Accuracies, list[Outcome]]:
    """Train the missing runs of the learning rates; return what `accuracies_of` returns, and the runs that failed."""
    if not options.rates:
        return {}, []
    out = options.out / RATES_DIR
    trials = trials_of_rates(recipes, plan, options.rates, options.rate_s, options.held_out, out)
    failed = run_all([trial for trial in unfinished(trials) if not has_diverged(trial)], options, lambda: None)
    failed = note_diverged(trials, failed)
    return ({} if failed else accuracies_of(trials)), failed


def unfinished(trials: list[Trial]) -> list[Trial]:
    """Return the runs that are not finished.

    Raises:
        InputError: The folder of one holds a run of another recipe.
    """
    left = [trial for trial in trials if not is_finished(trial)]
    for trial in left:
        check_folder(trial.config)
    return left


def run_all(trials: list[Trial], options: argparse.Namespace, after_run: Callable[[], Any]) -> list[Outcome]:
    """Train the runs, `options.jobs` at a time; call `after_run` whenever one has finished. Return those that have not.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived. The runs have saved their checkpoints.
    """
    threads = max(1, cpu_share() // options.jobs)
    left = []
    broken = threading.Event()
    with interruptible() as signal_received, ThreadPoolExecutor(options.jobs) as pool:

        def should_stop() -> bool:
            return bool(signal_received()) or broken.is_set()

        def run(trial: Trial) -> Outcome:
            run_dir = trial.config.run_folder
            if should_stop():
                return Outcome(trial.name, "interrupted")
            try:
                write_text(run_dir / CONFIG, to_yaml(trial.config))
                console.print(
                    f"{trial.name}: epochs {trial.config.train.epochs}, output in {run_dir / TRIAL_LOG}", soft_wrap=True
                )
                outcome = run_trial(run_dir, Path.cwd(), threads, should_stop, trusted(trial.config.imports))
            except BaseException:
                broken.set()  # the others save and end, and the error is shown
                raise
            return outcome._replace(name=trial.name)

        for future in as_completed([pool.submit(run, trial) for trial in trials]):
            outcome = future.result()
            console.print(f"{outcome.name}: {outcome.state}", soft_wrap=True)
            if outcome.state == "finished":
                _at_any_rate(after_run)
            else:
                left.append(outcome._replace(error=outcome.error or "ended from outside; the same command resumes it"))
        number = signal_received()
    if number:
        console.print("interrupted; the same command resumes")
        raise Interrupted(number)
    return left


def _at_any_rate(work: Callable[[], Any]) -> None:
    """Do what is done again at the end; what fails meanwhile, as on a full disk, is a warning."""
    try:
        work()
    except (OSError, InputError) as error:
        warn(f"{one_line(error)}; this is written again after the next run.")


def report(
    trials: list[Trial],
    plan: dict[str, Any],
    accuracies: Accuracies,
    record: Record | None,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Write DIR/equal_time.json for the runs that are finished, and return each recipe's numbers."""
    rows: dict[str, list[dict[str, Any]]] = {trial.values["recipe"]: [] for trial in trials}
    for trial in trials:
        if is_finished(trial):
            numbers = numbers_of(read_results(trial.config.run_folder / RESULTS))
            rows[trial.values["recipe"]].append({"seed": trial.values["seed"], **numbers})
    summary = {name: summarise(seeds) for name, seeds in rows.items() if seeds}
    reference = summary.get(first_recipe(trials))
    for row in summary.values():
        row["p_values"] = p_values(row, reference) if reference else {}
    settings = {
        "seeds": options.seeds,
        "budget_s": options.budget_s,
        "extends": record.history if record else [],
        "plan": plan,
        "rates": accuracies,
        "learning_rates": {trial.values["recipe"]: trial.config.optim.lr for trial in trials},
    }
    device = _device({trial.name: trial.config for trial in trials})
    write_result(options.out / TABLE, "equal_time", settings, {"recipes": summary}, device)
    return summary


def first_recipe(trials: list[Trial]) -> str:
    """Return the recipe that the others are compared with, whether its runs are finished or not."""
    return trials[0].values["recipe"]


def numbers_of(results: dict[str, Any]) -> dict[str, float | None]:
    """Return a finished run's numbers; None for those of corruptions that it has not measured."""
    table, calibration = results["corruption_accuracy"], results["rms_calibration_error"]
    quiet = [name for name in CORRUPTION_SETS["c15"] if name not in CORRUPTION_KINDS["Noise"]]
    return {
        "epochs": results["config"]["train"]["epochs"],
        "train_s": results["train_s"],
        "wall_s": results["wall_s"],
        "clean_accuracy": results["clean_accuracy"],
        "mca_c15": mean_corruption_accuracy(table, CORRUPTION_SETS["c15"]),
        "mca_c15_without_noises": mean_corruption_accuracy(table, quiet),
        "mca_c18": mean_corruption_accuracy(table, CORRUPTION_SETS["c18"]),
        "mca_cbar": mean_cbar_accuracy(table),
        "rms_clean": calibration["clean"],
        "rms_corrupt": calibration["corrupt"],
    }


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean and the standard deviation of each number that all seeds have, and the seeds."""
    names = [name for name in rows[0] if name != "seed" and all(row[name] is not None for row in rows)]
    return {name: mean_sd([row[name] for row in rows]) for name in names} | {"seeds": rows}


def p_values(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Return, for each number of two recipes, how likely such a difference of the means is if there is none.

    By Welch's t test over the seeds; a number is left out where a recipe has one seed or none of its values differ.
    """
    found = {}
    for key in (key for key, _, _ in COLUMNS.values()):
        if key in row and key in reference:
            ours, others = ([seed[key] for seed in recipe["seeds"]] for recipe in (row, reference))
            if min(len(ours), len(others)) > 1 and len({*ours}) + len({*others}) > 2:
                found[key] = float(stats.ttest_ind(ours, others, equal_var=False).pvalue)
    return found


def print_plan(plan: dict[str, Any]) -> None:
    """Print each recipe's speed and epochs."""
    table = Table(title=f"the plan: {plan['budget_s']:.0f} s, whole epochs of {plan['slowest']}")
    for column in ("recipe", "images/s", "epochs", "steps", "planned, s"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for name, row in plan["recipes"].items():
        rate, planned = f"{row['images_per_s']:,.0f}", f"{row['planned_s']:.0f}"
        table.add_row(name, rate, str(row["epochs"]), f"{row['steps']:,}", planned)
    console.print(table)


def print_table(summary: dict[str, dict[str, Any]], first: str) -> None:
    """Print one row per recipe, with the columns that some recipe has: a mean, and below it the standard deviation.

    The stars are against the recipe `first`, which may have no finished run.
    """
    shown = [column for column, (key, _, _) in COLUMNS.items() if any(key in row for row in summary.values())]
    title = "equal training time; mean and standard deviation over seeds"
    stars = f"*: p < {SIGNIFICANT} against {first}" if first in summary else f"no *: {first} has no finished run"
    table = Table(title=title, caption=f"{CAPTION}; {stars}", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("recipe", overflow="fold")
    for column in shown:
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in summary.items():
        cells = [
            mean_sd_text(row[key], len(row["seeds"]), scale, digits).replace(" ±", "\n±")
            + ("*" if row["p_values"].get(key, 1) < SIGNIFICANT else "")
            if key in row
            else "–"
            for key, scale, digits in (COLUMNS[column] for column in shown)
        ]
        table.add_row(f"{name}\n{counted(len(row['seeds']), 'seed')}", *cells)
    console.print(table)


if __name__ == "__main__":
    run_command(main)
