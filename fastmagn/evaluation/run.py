"""Evaluate a run's model: on its own test images, or on images from elsewhere."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.corruptions import available_corruptions
from fastmagn.corruptions.sets import set_members
from fastmagn.data import ImageSet, load_measured
from fastmagn.errors import InputError
from fastmagn.evaluation.cells import find_corruptions
from fastmagn.evaluation.class_mapping import read_mapping
from fastmagn.evaluation.class_names import Classes, check_classes
from fastmagn.evaluation.corruption_cache import use_cache
from fastmagn.evaluation.fast_forward import model_to_forward
from fastmagn.evaluation.forward import Forward
from fastmagn.evaluation.held_out import VALIDATION, find_held_out, fit_on
from fastmagn.evaluation.image_folder import Seen, measure_folder, side_px
from fastmagn.evaluation.logits import logits_bytes
from fastmagn.evaluation.measure import chosen_rows, evaluate
from fastmagn.evaluation.ood import find_other_sets, measure_other_sets
from fastmagn.evaluation.protocols import check_protocols, evaluate_protocols
from fastmagn.evaluation.subset import subset_of
from fastmagn.evaluation.trained import Trained, load_run, size_in_results
from fastmagn.machine.environment import environment
from fastmagn.machine.files import check_writable
from fastmagn.machine.hardware import settle_hardware
from fastmagn.machine.processes import World, join_world
from fastmagn.methods.test_time import model_for_test
from fastmagn.runs.failures import explain_measuring
from fastmagn.runs.paths import LOGITS, RESULTS
from fastmagn.runs.reading import check_results, read_config, read_results


def evaluate_model(
    model: nn.Module,
    image_set: ImageSet,
    config: Config,
    run_dir: Path,
    *,
    device: torch.device,
    world: World,
    trained: Config | None,
) -> dict[str, Any]:
    """Measure the model of a run on its test images, as the eval section of `config` says.

    `measure.evaluate` and `protocols.evaluate_protocols` say what is returned.

    Args:
        model: The model to measure, on `device`.
        image_set: The run's images.
        config: The run's configuration.
        run_dir: The run's folder, which gets the logits if `eval.save_logits` is on.
        device: Where the model is.
        world: torchrun's processes.
        trained: The configuration of the training, on the training images of `image_set`; None if it is not known.

    Returns:
        What `measure.evaluate` returns; `temperature_scaling` also has what `held_out.Fitted` records, and is None if
        nothing could be fitted. If `eval.ood` names images, `ood` has what `ood.measure_other_sets` returns. With
        `eval.forward fast`, `forward` says what was measured, see `fast_forward.model_to_forward`.
    """
    check_protocols(model, image_set, config, world)
    held_out, others = find_held_out(config, image_set, trained), find_other_sets(config, image_set)
    original, image_size = model, image_set.test_images_u8.shape[1:3]
    model, about_model = model_to_forward(original, config.eval.forward, config.train.amp, device, image_size)
    forward = Forward(device, config.train.amp, config.eval.batch_size, world)
    fitted = fit_on(model, held_out, forward) if held_out is not None else None
    subset = subset_of(config.data.name, config.eval.corruption_seed)
    results = evaluate(
        model,
        image_set.test_images_u8,
        image_set.test_labels,
        use_cache(config, world, image_set),
        device=device,
        amp=config.train.amp,
        logits_dir=run_dir / LOGITS if config.eval.save_logits else None,
        world=world,
        class_names=image_set.class_names,
        subset=subset,
        temperature=fitted.temperature if fitted else None,
    )
    if held_out is not None:
        results["temperature_scaling"] = fitted and fitted.record | results["temperature_scaling"]
    if others:
        rows = subset.rows(image_set.test_labels, config.eval.num_images)
        results["ood"] = measure_other_sets(model, image_set.test_images_u8[rows], others, forward)
    protocols = evaluate_protocols(model, original, image_set, config, device=device, world=world)
    return results | about_model | protocols


def check_evaluation(image_set: ImageSet, config: Config, world: World) -> int:
    """Check what a run's evaluation needs: before the training, not after it.

    A warning names the corruptions that will be left out.

    Returns:
        The bytes that the stored logits will take; 0 without `eval.save_logits`.

    Raises:
        InputError: There are fewer test images than are to be measured; or the -C set, the held-out images or the
            images of other classes cannot be used; or `eval.cache_dir` is not a folder, and none can be made there.
    """
    section, labels = config.eval, image_set.test_labels
    rows = chosen_rows(labels, section.num_images, subset_of(config.data.name, section.corruption_seed), world)
    members = set_members(section.corruption_set, *image_set.test_images_u8.shape[1:3])
    stored = section
    if world.max(set(members).isdisjoint(available_corruptions())):  # a cache may hold them
        stored = use_cache(config, world, image_set, make=False)
    corruptions = find_corruptions(image_set.test_images_u8, labels, stored, image_set.class_names, rows)
    if section.cache_dir is not None:
        # A set may be there; if not, `use_cache` warns.
        check_writable(section.cache_dir, section.cache_dir, "eval.cache_dir", may_be_read_only=True)
    find_held_out(config, image_set, config)
    find_other_sets(config, image_set)
    num_cells = 1 + sum(map(len, corruptions.severities.values()))
    num_bytes = logits_bytes(num_cells, section.num_images or len(labels), image_set.num_classes)
    return num_bytes if section.save_logits else 0


def evaluate_run(run_dir: Path, config: Config) -> dict[str, Any]:
    """Measure a run's last checkpoint on the images that `config` names, on all of torchrun's processes.

    Raises:
        InputError: The run or the images cannot be used; memory is too small; a device is lost.
    """
    config = settle_hardware(config)
    with (
        explain_measuring(config.device, config.eval.batch_size),
        join_world(torch.device(config.device)) as (world, device),
    ):
        known = classes_of_run(run_dir)
        image_set = world.rank_0_first(lambda: load_measured(config.data, known and known.names))
        check_classes(image_set, known)
        run = world.together(lambda: load_run(run_dir, config=config, image_set=image_set, device=device))
        trained = _training_of(run, run_dir, image_set) if config.eval.temperature_images == VALIDATION else None
        measured = evaluate_model(run.measured, image_set, config, run_dir, device=device, world=world, trained=trained)
    return measured | {"steps": run.steps, "environment": environment(device), "config": plain(config)}


def classes_of_run(run_dir: Path) -> Classes | None:
    """The run's classes; None if its results.json does not say which they are, or is damaged or not there."""
    results = _whole_results(run_dir)
    if "class_names" not in results:
        return None
    return Classes(tuple(results["class_names"]), results["config"]["data"]["name"], str(run_dir))


def seen_by_run(run_dir: Path) -> Seen | None:
    """The images that the run is for; None likewise."""
    results = _whole_results(run_dir)
    if "class_names" not in results or "image_size" not in results:
        return None
    return Seen(tuple(results["class_names"]), *size_in_results(results, results["config"]["data"]["name"]))


def _whole_results(run_dir: Path) -> dict[str, Any]:
    """results.json; empty where it is damaged, as such a run can still be measured, or not there."""
    file = run_dir / RESULTS
    if not file.is_file():
        return {}
    try:
        results = read_results(file)
        check_results(results, file)
    except InputError:
        return {}
    return results


def _training_of(run: Trained, run_dir: Path, image_set: ImageSet) -> Config:
    """The run's own configuration.

    Raises:
        InputError: Its training images are missing; or it was trained on other images, so that those held out then are
            not those of the same split now.
    """
    if len(image_set.train_labels) == 0:
        raise InputError(
            "eval.temperature_images: got validation; expected test or a folder, as there are test images only. Give"
            " the data.dir that has the run's training images for validation."
        )
    if run.data_fingerprint not in (image_set.fingerprint, image_set.former_fingerprint):
        raise InputError(
            "eval.temperature_images: got validation; expected test or a folder, as the training images here are not"
            f" those of {run_dir}. Give the data.dir that has them for validation."
        )
    return read_config(run_dir)


def evaluate_images(run_dir: Path, config: Config, folder: Path, classes: Path | None) -> dict[str, Any]:
    """Measure a run's last checkpoint on all images of a folder, CLASS/IMAGE, on all of torchrun's processes.

    The run's own images are not needed: results.json holds the names of its classes.

    Args:
        run_dir: The run.
        config: Its configuration. `eval.num_images` is ignored: all images are measured.
        folder: The folder.
        classes: A file that names the run's class of each class folder; None if the folders are named like the classes.

    Returns:
        The folder's entry of `image_folders` in the results, by the folder's name; see `other_images.summarise_images`.

    Raises:
        InputError: The run, the folder or the file cannot be used; memory is too small; a device is lost.
    """
    config = settle_hardware(config)
    mapping = read_mapping(classes) if classes is not None else {}
    with (
        explain_measuring(config.device, config.eval.batch_size),
        join_world(torch.device(config.device)) as (world, device),
    ):
        trained = world.together(lambda: load_run(run_dir, config=config, device=device))
        seen = Seen(trained.class_names, trained.image_size, trained.padded_from)
        size = side_px(seen, config)
        model = model_for_test(trained.network, config, (size, size))
        entry = measure_folder(model, seen, folder, mapping, config, device=device, world=world)
    settings = {"classes": plain(classes), "weights": config.eval.weights, "test_time_flip": config.eval.test_time_flip}
    about = {"steps": trained.steps, "environment": environment(device)}
    return {str(folder): entry | settings | about}
