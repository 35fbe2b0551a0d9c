"""The learning rates of `benchmarks.equal_time`: each recipe's is chosen by short runs, on held-out training images."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.equal_time_plan import RATES
from benchmarks.measure import console
from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.errors import InputError, check
from fastmagn.machine.files import write_json
from fastmagn.runs.changes import result_fields
from fastmagn.runs.paths import RESULTS
from fastmagn.runs.reading import read_results
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.images import is_elsewhere
from fastmagn.sweeping.trial import Outcome
from fastmagn.training.saving import NOT_FINITE

SEED = 100  # none of those that are compared
DIVERGED = "diverged.json"  # in the folder of a run that diverged: its configuration, and what was not finite
_MEASURED_IMAGES = 16  # a run ends with an evaluation; nothing here reads it
Accuracies = dict[str, dict[float, float | None]]  # name -> learning rate -> on held-out images; None: diverged


def trials_of_rates(
    recipes: dict[str, Config], plan: dict[str, Any], rates: list[float], seconds: float, held_out: int, out: Path
) -> list[Trial]:
    """Return a short run of each recipe with each learning rate.

    Args:
        recipes: name -> its configuration.
        plan: What `make_plan` returns.
        rates: Values of `optim.lr`.
        seconds: Training time of each run, rounded to whole epochs, at least one.
        held_out: Number of training images that the runs are not trained but measured on.
        out: The folder of the runs.
    """
    trials = []
    for name, config in recipes.items():
        planned = plan["recipes"][name]
        epochs = max(1, round(seconds * planned["epochs"] / planned["planned_s"]))
        for rate in rates:
            short = dataclasses.replace(
                config,
                run_dir=(out / name / f"lr{rate:g}").absolute(),
                resume="auto",
                data=dataclasses.replace(config.data, num_validation_images=held_out),
                optim=dataclasses.replace(config.optim, lr=rate),
                train=dataclasses.replace(config.train, seed=SEED, epochs=epochs),
                eval=dataclasses.replace(config.eval, num_images=_MEASURED_IMAGES, cache_dir=None),
            )
            trials.append(Trial(f"{name}, lr {rate:g}", {"recipe": name, "rate": rate}, short))
    return trials


def accuracies_of(trials: list[Trial]) -> Accuracies:
    """Return what the runs have measured, all of which are finished or have diverged."""
    accuracies: Accuracies = {}
    for trial in trials:
        of_recipe = accuracies.setdefault(trial.values["recipe"], {})
        if has_diverged(trial):
            of_recipe[trial.values["rate"]] = None
        else:
            results = read_results(trial.config.run_folder / RESULTS)
            of_recipe[trial.values["rate"]] = results["best_validation"]["accuracy"]
    return accuracies


def note_diverged(trials: list[Trial], failed: list[Outcome]) -> list[Outcome]:
    """Write DIVERGED to the folders of the runs that diverged; return those that failed otherwise."""
    configs = {trial.name: trial.config for trial in trials}
    others = []
    for outcome in failed:
        if NOT_FINITE in outcome.error:
            config = configs[outcome.name]
            write_json(config.run_folder / DIVERGED, {"error": outcome.error, "config": plain(config)})
        else:
            others.append(outcome)
    return others


def has_diverged(trial: Trial) -> bool:
    """Whether this run is known to diverge."""
    file = trial.config.run_folder / DIVERGED
    if not file.exists():
        return False
    recorded = read_results(file)["config"]
    return not result_fields(trial.config, recorded) and not is_elsewhere(trial.config, recorded)


def best_rates(accuracies: Accuracies) -> dict[str, float]:
    """Return name -> the learning rate of the highest accuracy; of equal ones, the lowest.

    Raises:
        InputError: All runs of a recipe have diverged.
    """
    best = {}
    for name, of_rate in accuracies.items():
        finite = {rate: accuracy for rate, accuracy in sorted(of_rate.items()) if accuracy is not None}
        if not finite:
            raise InputError(
                f"rates: got {sorted(of_rate)}; expected one with which {name} does not diverge. Lower them."
            )
        best[name] = max(finite, key=lambda rate: finite[rate])
    return best


def with_rates(recipes: dict[str, Config], rates: dict[str, float]) -> dict[str, Config]:
    """Return the recipes with these learning rates."""
    return {
        name: dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=rates[name]))
        for name, config in recipes.items()
    }


def print_rates(accuracies: Accuracies, chosen: dict[str, float]) -> None:
    """Print the accuracy of each recipe at each learning rate, in %; a star marks that of the chosen one."""
    rates = sorted({rate for of_rate in accuracies.values() for rate in of_rate})
    table = Table(title="accuracy on held-out training images by learning rate, %; *: chosen")
    for column in ("recipe", *(f"{rate:g}" for rate in rates)):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for name, of_rate in accuracies.items():
        cells = [
            "diverged" if accuracy is None else f"{100 * accuracy:.2f}{'*' if rate == chosen[name] else ''}"
            for rate, accuracy in ((rate, of_rate[rate]) for rate in rates)
        ]
        table.add_row(name, *cells)
    console.print(table)


def asked_rates(rates: list[float] | None, seconds: float, held_out: int) -> dict[str, Any] | None:
    """Return what a plan keeps of these options; None without `--rates`."""
    return {"values": sorted(rates), "rate_s": seconds, "held_out": held_out} if rates else None


def check_kept_rates(path: Path, plan: dict[str, Any], asked: dict[str, Any] | None) -> None:
    """Raise InputError if the plan's runs have learning rates that were chosen otherwise. Older plans do not say."""
    if plan.get(RATES, asked) != asked:
        raise InputError(
            f"{path}: is the plan of another comparison (rates are {plan[RATES]} there and {asked} here). Give its"
            " arguments, or name another --out."
        )


def check_rates(rates: list[float] | None, seconds: float, held_out: int) -> None:
    """Raise InputError unless these options make sense."""
    for rate in rates or ():
        check(rate > 0, "rates", rate, "learning rates above 0")
    check(rates is None or len(set(rates)) == len(rates), "rates", rates, "each learning rate once")
    check(seconds > 0, "rate_s", seconds, "seconds above 0")
    check(held_out >= 1, "held_out", held_out, "1 or more")
