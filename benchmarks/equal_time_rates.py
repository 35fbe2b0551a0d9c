"""The learning rates of `benchmarks.equal_time`: each recipe's is chosen by short runs, on held-out training images."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.measure import console
from fastmagn.config.schema import Config
from fastmagn.errors import check
from fastmagn.runs.paths import RESULTS
from fastmagn.runs.reading import read_results
from fastmagn.sweeping.definition import Trial

SEED = 100  # none of those that are compared
_MEASURED_IMAGES = 16  # a run ends with an evaluation; nothing here reads it


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


def accuracies_of(trials: list[Trial]) -> dict[str, dict[float, float]]:
    """Return name -> learning rate -> the accuracy on the held-out images, from the finished runs' results."""
    accuracies: dict[str, dict[float, float]] = {}
    for trial in trials:
        results = read_results(trial.config.run_dir / RESULTS)
        of_recipe = accuracies.setdefault(trial.values["recipe"], {})
        of_recipe[trial.values["rate"]] = results["best_validation"]["accuracy"]
    return accuracies


def best_rates(accuracies: dict[str, dict[float, float]]) -> dict[str, float]:
    """Return name -> the learning rate of the highest accuracy; of equal ones, the lowest."""
    return {name: max(sorted(of_rate), key=lambda rate: of_rate[rate]) for name, of_rate in accuracies.items()}


def with_rates(recipes: dict[str, Config], rates: dict[str, float]) -> dict[str, Config]:
    """Return the recipes with these learning rates."""
    return {
        name: dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=rates[name]))
        for name, config in recipes.items()
    }


def print_rates(accuracies: dict[str, dict[float, float]], chosen: dict[str, float]) -> None:
    """Print the accuracy of each recipe at each learning rate, in %; a star marks that of the chosen one."""
    rates = sorted({rate for of_rate in accuracies.values() for rate in of_rate})
    table = Table(title="accuracy on held-out training images by learning rate, %; *: chosen")
    for column in ("recipe", *(f"{rate:g}" for rate in rates)):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for name, of_rate in accuracies.items():
        table.add_row(name, *(f"{100 * of_rate[rate]:.2f}{'*' if rate == chosen[name] else ''}" for rate in rates))
    console.print(table)


def check_rates(rates: list[float] | None, seconds: float, held_out: int) -> None:
    """Raise InputError unless these options make sense."""
    for rate in rates or ():
        check(rate > 0, "rates", rate, "learning rates above 0")
    check(rates is None or len(set(rates)) == len(rates), "rates", rates, "each learning rate once")
    check(seconds > 0, "rate_s", seconds, "seconds above 0")
    check(held_out >= 1, "held_out", held_out, "1 or more")
