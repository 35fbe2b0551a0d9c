"""The plan of `benchmarks.equal_time`: how many epochs each recipe trains in the same time."""

from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.train import endless_batches, tensors_of, timed
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.data import load_data, split_validation
from fastmagn.errors import InputError, check
from fastmagn.machine.hardware import keep_memory_on_cpu, set_backends, settle_hardware
from fastmagn.methods.table import get_method
from fastmagn.runs.changes import keeps_results
from fastmagn.sweeping.images import fingerprints, is_elsewhere, of_user
from fastmagn.training.build import build_run
from fastmagn.training.prefetch import made_ahead
from fastmagn.training.step import make_pieces, train_step

PLAN = "plan.json"  # in the folder of a comparison
TABLE = "equal_time.json"
FITTING_SCHEDULES = ("one_cycle", "triangular")
IMAGES = "images"  # in a plan: what `images_of` returns
RATES = "rates"  # in a plan: the learning rates that its runs were chosen from
WARM_UP_STEPS = 3  # compile; let cuDNN choose its algorithms


def check_recipe(name: str, config: Config, given: Collection[str]) -> None:
    """Raise InputError unless any number of epochs is a whole training of the recipe, all of them of equal time.

    It is raised too if the method would replace the value of a given field; see `Method.check_given`.
    """
    get_method(config.method).check_given(config.augment, given)
    field = f"run {name}: "
    schedule = config.optim.schedule
    allowed = f"{' or '.join(FITTING_SCHEDULES)}, which fit any number of epochs"
    check(schedule in FITTING_SCHEDULES, f"{field}optim.schedule", schedule, allowed)
    check(config.train.max_steps == 0, f"{field}train.max_steps", config.train.max_steps, "0: the budget is the limit")
    equal = "0, as all epochs of a recipe must take the same time"
    check(config.train.clean_epochs == 0, f"{field}train.clean_epochs", config.train.clean_epochs, equal)
    check(config.train.swa_fraction == 0, f"{field}train.swa_fraction", config.train.swa_fraction, equal)


def check_plan(path: Path, plan: dict[str, Any], budget_s: float, configs: dict[str, Any], device: str) -> None:
    """Check that a plan is of this comparison. Fields that change neither results nor speed may differ.

    Args:
        path: Its file.
        plan: What the file holds.
        budget_s: Seconds of training.
        configs: name -> the recipe's flat configuration, as the plan has it.
        device: cpu or cuda.

    Raises:
        InputError: It is of another one.
    """

    def check_equal(what: str, there: object, here: object) -> None:
        if there != here:
            raise InputError(
                f"{path}: is the plan of another comparison ({what} is {there!r} there and {here!r} here). Give its"
                " arguments, or name another --out."
            )

    check_equal("budget_s", plan["wanted_budget_s"], budget_s)
    check_equal("device", "cpu" if plan["environment"]["device"] == "cpu" else "cuda", device)
    check_equal("run", sorted(plan["configs"]), sorted(configs))
    defaults = flatten(Config())  # for fields that are newer than the plan
    for name, ours in configs.items():
        here, there = defaults | ours, defaults | plan["configs"][name]
        for field in ours:
            if not keeps_results(field, here):
                check_equal(f"{name}: {field}", there[field], here[field])


def images_of(recipes: dict[str, Config]) -> dict[str, dict[str, str]]:
    """Return name -> place and fingerprint of the training images of each recipe on a data set of the user's own."""
    return {
        name: {"dir": str(config.data.dir), "fingerprint": fingerprints(config.data).train[0]}
        for name, config in recipes.items()
        if of_user(config.data)
    }


def check_images_of(path: Path, plan: dict[str, Any], recipes: dict[str, Config]) -> None:
    """Raise InputError if a plan's epochs are those of other images. Older plans do not say."""
    for name, there in plan.get(IMAGES, {}).items():
        if name not in recipes or not is_elsewhere(recipes[name], {"data": {"dir": there["dir"]}}):
            continue
        data = recipes[name].data
        if there["fingerprint"] not in fingerprints(data).train:
            raise InputError(
                f"{path}: is the plan of other images ({name}: data.dir is {there['dir']} there and {data.dir} here)."
                " Give the --data.dir that has them, or name another --out."
            )


def make_plan(recipes: dict[str, Config], budget_s: float, steps: int, turns: int) -> dict[str, Any]:
    """Measure the steps of the recipes and plan their epochs.

    Args:
        recipes: name -> its configuration; `train.epochs` does not matter.
        budget_s: Seconds of training for each recipe.
        steps: Steps of a recipe in a turn.
        turns: Turns of each recipe.

    Returns:
        `budget_s`, the budget in whole epochs of the slowest recipe, and `recipes`; see `plan_epochs`.
    """
    return plan_epochs(*rounds_of(recipes, steps, turns), budget_s)


def rounds_of(
    recipes: dict[str, Config], steps: int, turns: int
) -> tuple[list[dict[str, float]], dict[str, tuple[int, int]]]:
    """Measure the steps of the recipes in turns; return the rounds and the sizes that `plan_epochs` takes."""
    steppers = {name: stepper(config) for name, config in recipes.items()}
    rounds = [{name: step_s(steps) for name, (step_s, _) in steppers.items()} for _ in range(turns)]
    sizes = {name: (steps_per_epoch, recipes[name].train.batch_size) for name, (_, steps_per_epoch) in steppers.items()}
    return rounds, sizes


def plan_epochs(rounds: list[dict[str, float]], sizes: dict[str, tuple[int, int]], budget_s: float) -> dict[str, Any]:
    """Plan the epochs from the measured steps.

    A recipe's step is compared with that of the slowest recipe in the same round, so that a drift of the machine's
    speed affects both. The budget becomes a whole number of epochs of the slowest recipe; the others are rounded to the
    nearest whole number of theirs.

    Args:
        rounds: name -> seconds of a step, for each round.
        sizes: name -> (steps of an epoch, images of a step).
        budget_s: Seconds of training.

    Raises:
        InputError: The budget is less than half an epoch of the slowest recipe.
    """
    epoch_s = {name: count * median(one[name] for one in rounds) for name, (count, _) in sizes.items()}
    slowest = max(epoch_s, key=lambda name: epoch_s[name])
    most = round(budget_s / epoch_s[slowest])
    if most < 1:
        raise InputError(
            f"budget_s: got {budget_s:g}; expected {epoch_s[slowest]:.0f} or more, an epoch of {slowest}, the slowest."
        )
    planned_s, recipes = most * epoch_s[slowest], {}
    for name, (steps_per_epoch, batch_size) in sizes.items():
        step_s = epoch_s[slowest] / sizes[slowest][0] * median(one[name] / one[slowest] for one in rounds)
        epochs = round(planned_s / (step_s * steps_per_epoch))
        recipes[name] = planned_recipe(epochs, steps_per_epoch, step_s, batch_size)
    return {"budget_s": planned_s, "slowest": slowest, "recipes": recipes, "rounds_step_s": rounds}


def planned_recipe(epochs: int, steps_per_epoch: int, step_s: float, batch_size: int) -> dict[str, float]:
    """Return what a plan says of a recipe: epochs, steps, seconds of a step and of all, images/s."""
    return {
        "epochs": epochs,
        "steps": epochs * steps_per_epoch,
        "step_s": step_s,
        "images_per_s": batch_size / step_s,
        "planned_s": epochs * steps_per_epoch * step_s,
    }


def stepper(config: Config) -> tuple[Callable[[int], float], int]:
    """Return a function that takes a number of real steps and returns a step's mean seconds, and an epoch's steps."""
    config = settle_hardware(config)
    image_set = _load(config.data)
    part, _ = split_validation(image_set, config.data.num_validation_images, config.train.seed)
    run = build_run(config, image_set, part)
    set_backends(run.device, config.train.deterministic, config.train.amp)
    keep_memory_on_cpu(config.device)
    run.model.train()
    ahead = made_ahead(
        endless_batches(run),
        lambda batch: make_pieces(run, batch, run.config.train.clean_epochs),
        tensors_of,
        run.device,
    )

    def one_step() -> None:
        train_step(run, next(ahead), 0)

    timed(run, one_step, WARM_UP_STEPS)
    return lambda steps: timed(run, one_step, steps) / steps, run.source.steps_per_epoch


_load = cache(load_data)
