"""A whole run: train, then evaluate, then write results.json."""

import dataclasses
import time
from typing import Any

import torch

from fastmagn.augment.policies.recipe import has_recipe, policy_of
from fastmagn.augment.views import choose_engine
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, TrainConfig
from fastmagn.config.text import plain
from fastmagn.corruptions.sets import set_members
from fastmagn.data import FolderSource, ImageSet, load_data, split_validation
from fastmagn.data.loading import check_kept_names
from fastmagn.data.padding import padded_from
from fastmagn.errors import InputError, counted
from fastmagn.evaluation.logits import check_logits_room, read_logits
from fastmagn.evaluation.protocols import check_protocols
from fastmagn.evaluation.run import check_evaluation, evaluate_model
from fastmagn.machine.compiling import COMPILING
from fastmagn.machine.console import console, warn
from fastmagn.machine.environment import environment
from fastmagn.machine.files import write_json
from fastmagn.machine.hardware import set_backends, settle_hardware
from fastmagn.machine.processes import World, join_world
from fastmagn.methods.effect import without_effect
from fastmagn.methods.table import base_name, get_method
from fastmagn.runs.changes import recipe_fields
from fastmagn.runs.checkpoint_folder import is_measured, put_results_aside
from fastmagn.runs.code import warn_if_code_changed
from fastmagn.runs.failures import explain_failures, explain_measuring
from fastmagn.runs.lock import run_lock
from fastmagn.runs.paths import LOGITS, RESULTS, run_folder_of
from fastmagn.runs.progress import Progress
from fastmagn.runs.reading import check_results, read_results
from fastmagn.runs.records import log_results
from fastmagn.runs.wandb import check_wandb, finished_at_the_end, log_summary
from fastmagn.training.amp import in_begun_precision, warn_if_slow
from fastmagn.training.build import build_run, measured_model
from fastmagn.training.callbacks import NO_CALLBACKS, Callbacks
from fastmagn.training.compiled import settle_compiled
from fastmagn.training.loop import finish_average, train_all
from fastmagn.training.same_images import check_classes_of_all, fingerprint_of_all
from fastmagn.training.saving import restore, saved_however_it_ends
from fastmagn.training.step import Run
from fastmagn.warming.ahead import compile_ahead
from fastmagn.warming.kernels import corruption_groups

_RATE_OF_SGD = 0.03  # adamw diverges, or learns nothing, above about this


def train(config: Config, callbacks: Callbacks = NO_CALLBACKS) -> dict[str, Any]:
    """A whole run; `fastmagn.train.train`, which imports this when it is called, says what it does and raises."""
    asked = config.train
    config = settle_hardware(config)
    run_dir = run_folder_of(config)
    config = dataclasses.replace(config, run_dir=run_dir)
    augment = get_method(config.method).settled(config.augment)
    choose_engine(augment.backend, torch.device(config.device), has_recipe(augment))
    policy_of(augment)
    check_wandb(config)
    with (
        explain_failures(config),
        join_world(torch.device(config.device)) as (world, device),
        run_lock(run_dir, world),
        finished_at_the_end(config),
    ):
        return train_in(world, device, config, callbacks, asked)


def train_in(
    world: World, device: torch.device, config: Config, callbacks: Callbacks, asked: TrainConfig
) -> dict[str, Any]:
    """`train` with a settled config, in one of torchrun's processes; `asked` is the section `train` that was given."""
    start, data, run_dir = time.perf_counter(), config.data, config.run_folder
    config = in_begun_precision(config, asked.amp, world)
    set_backends(device, config.train.deterministic, config.train.amp)
    image_set = load_on_all(world, config)
    check_classes_of_all(world, config, image_set.class_names)
    num_logits_bytes = world.together(lambda: check_evaluation(image_set, config, world))
    part, validation = split_validation(image_set, data.num_validation_images, config.train.seed)
    run = build_run(_eager_on_cpu(config), image_set, part, world, device)
    check_protocols(run.model, image_set, config, world)
    progress, saved = restore(run)
    if run.steps_done(progress) < run.last_step:
        progress.ticked = start  # loading is part of what a training waits for
    # Reads images in files: not after the training.
    test_fingerprint = fingerprint_of_all(world, config, "test", lambda: image_set.test_fingerprint)
    if world.rank == 0:
        warn_if_code_changed(run_dir)
    results = finished_results(run, progress)
    if results is not None:
        console.print(f"{run_dir} is finished; name another --run_dir to train from scratch.", soft_wrap=True)
        return results
    if config.eval.save_logits:
        is_moved = saved is None and is_measured(run_dir / LOGITS)  # by `put_results_aside`
        check_logits_room(run_dir / LOGITS, num_logits_bytes, world, follows_link=not is_moved)
    print_start(run, progress, len(part.labels))
    warn_of_fields(run, asked)
    warn_if_slow(run, progress, saved is not None)
    compile_ahead(kernels_of(run), lambda: console.print(COMPILING))
    world.gather(None)
    if device.type == "cpu":
        run = settle_compiled(run, progress, asked.compile, saved)
        config = run.config
    if saved is None:
        world.together(lambda: put_results_aside(run_dir) if world.rank == 0 else None)
    train_all(run, progress, validation, callbacks)
    with saved_however_it_ends(run, progress):
        finish_average(run, progress)
        with explain_measuring(config.device, config.eval.batch_size):
            measured = evaluate_model(
                measured_model(run), image_set, config, run_dir, device=device, world=world, trained=config
            )
    results = measured | _described(run, progress) | {"test_fingerprint": test_fingerprint}
    if world.rank == 0:
        write_json(run_dir / RESULTS, results)
        log_results(run_dir, results, progress.epoch + (progress.step_in_epoch > 0))
        log_summary(config, results)
    return results


def _described(run: Run, progress: Progress) -> dict[str, Any]:
    """What results.json says beside what was measured: of which training that is, and how fast it was."""
    best, padding = progress.best_validation(), padded_from(run.image_set.test_images_u8)
    train_s, wall_s = progress.train_s + progress.epoch_s, progress.train_wall_s + progress.epoch_wall_s
    images = run.last_step * run.config.train.batch_size
    return {
        **({"best_validation": best} if best else {}),
        "class_names": list(run.image_set.class_names),
        "image_size": list(run.image_size),
        **({"padded_from": list(padding)} if padding else {}),
        "steps": run.last_step,
        "train_s": train_s,
        "images_per_s": images / train_s,
        "wall_s": wall_s,
        "wall_images_per_s": images / wall_s,
        "num_processes": run.world.size,
        "environment": environment(run.device),
        "config": plain(run.config),
    }


def load_on_all(world: World, config: Config) -> ImageSet:
    """The image set on every rank; rank 0 downloads or converts it while the others wait.

    Raises:
        InputError: As of `load_data`; or a class has a name that results cannot keep.
    """
    image_set = world.rank_0_first(lambda: load_data(config.data))
    check_kept_names(image_set, config.data)
    return image_set


def _eager_on_cpu(config: Config) -> Config:
    """The settled config, without `train.compile` on a CPU: there `settle_compiled` decides."""
    if config.device != "cpu":
        return config
    return dataclasses.replace(config, train=dataclasses.replace(config.train, compile=False))


def kernels_of(run: Run) -> list[str]:
    """The groups of kernels that the run's steps and its evaluation need, by the names of `warming.kernels`."""
    config, augment = run.config, run.main_stage.augment
    engine = choose_engine(augment.backend, run.device, has_recipe(augment))
    groups = []
    if (engine.backend, engine.device) == ("numba", "cpu"):
        groups.append("recipe_views" if has_recipe(augment) else "views")
    if base_name(config.method) in ("prime", "prime_no_jsd") and run.device.type == "cpu":
        groups.append("prime")
    if config.eval.corrupted_dir is None and config.eval.cache_dir is None:
        groups += corruption_groups(set_members(config.eval.corruption_set, *run.image_size))
    return groups


def finished_results(run: Run, progress: Progress) -> dict[str, Any] | None:
    """The results of a run that has nothing left to train or measure, else None."""
    run_dir = run.config.run_folder
    path = run_dir / RESULTS
    if run.steps_done(progress) < run.last_step or not path.exists():
        return None
    try:
        results = read_results(path)
        check_results(results, path)
        measured_with = plain(EvalConfig()) | results["config"]["eval"]  # a field may be newer than the results
        if results.get("steps") != run.last_step or measured_with != plain(run.config.eval):
            return None
        if run.config.eval.save_logits and (run_dir / LOGITS).exists():
            read_logits(run_dir / LOGITS)
    except InputError as error:
        if run.world.rank == 0:
            warn(f"{error} The run is measured again.")
        return None
    if other := recipe_fields(run.config, results["config"]):
        name, (there, here) = next(iter(other.items()))
        console.print(
            f"{run_dir} was measured after another training ({name} was {there}, is {here}); it is measured again.",
            soft_wrap=True,
        )
        return None
    if not _has_test_images(run, results):
        console.print(f"{run_dir} was measured on other test images; it is measured again.", soft_wrap=True)
        return None
    return results


def _has_test_images(run: Run, results: dict[str, Any]) -> bool:
    """Whether results are of the test images of the run, as far as they tell: older ones have no fingerprint."""
    if "test_fingerprint" in results:
        return results["test_fingerprint"] == run.image_set.test_fingerprint
    return results["config"]["data"].get("test_shards") == run.config.data.test_shards


def print_start(run: Run, progress: Progress, num_images: int) -> None:
    """Print what is about to run, in lines that fit a terminal."""
    config = run.config
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    num_views = run.main_stage.method.layout(config.augment).num_views
    augment = run.main_stage.augment
    engine = choose_engine(augment.backend, run.device, has_recipe(augment))
    processes = f" by {run.world.size} processes" if run.world.size > 1 else ""
    lines = [
        f"{config.method} on {config.data.name}: {counted(num_images, 'image')} in {counted(num_views, 'view')}",
        f"{config.model.name} ({parameters / 1e6:.2f} M parameters), {config.train.amp} on {config.device}{processes}, "
        f"views by {engine}",
        _length(run),
        f"run folder {config.run_dir}",
    ]
    if isinstance(run.source, FolderSource):
        lines.insert(1, f"images decoded by {run.source.description}")
    done = run.steps_done(progress)
    if done >= run.last_step:
        lines.append(f"trained already ({counted(done, 'step')}); it is only measured")
    elif done:
        lines.append(f"resumed at epoch {done // run.source.steps_per_epoch + 1}, after {counted(done, 'step')}")
    console.print("\n".join(lines), soft_wrap=True)


def warn_of_fields(run: Run, asked: TrainConfig) -> None:
    """Warn of fields that do nothing without others, and of a learning rate that is not the optimiser's.

    `asked` is the section `train` before `auto` was settled.
    """
    if run.world.rank != 0:
        return
    config, lr = dataclasses.replace(run.config, train=asked), run.config.optim.lr
    if texts := without_effect(config, decodes_files=isinstance(run.source, FolderSource)):
        warn(f"without effect: {'; '.join(texts)}.")
    if config.optim.name == "adamw" and lr >= _RATE_OF_SGD:
        warn(f"optim.lr: {lr} is a learning rate for sgd; adamw usually takes 0.00001 to 0.01.")


def _length(run: Run) -> str:
    """How long the run is, in epochs and steps, or in the steps that `train.max_steps` allows."""
    epochs, steps = run.config.train.epochs, run.source.steps_per_epoch
    if run.last_step < epochs * steps:
        return f"{counted(run.last_step, 'step')} (train.max_steps), {steps} per epoch"
    images = run.source.num_images
    left_out = images - steps * run.config.train.batch_size
    unused = f"; {left_out} of {images} images, others in each epoch, fill no batch" if 4 * left_out > images else ""
    return f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}{unused}"
