"""Evaluate a run's model: on its own test images, or on images from elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data import ENCODED, ImageSet, load_data
from fastmagn.data.files.decoding import resize_px
from fastmagn.errors import InputError
from fastmagn.evaluation.cells import find_corruptions
from fastmagn.evaluation.class_mapping import read_mapping
from fastmagn.evaluation.class_names import Classes, check_classes
from fastmagn.evaluation.corruption_cache import use_cache
from fastmagn.evaluation.fast_forward import model_to_forward
from fastmagn.evaluation.forward import Forward
from fastmagn.evaluation.held_out import VALIDATION, find_held_out, fit_on
from fastmagn.evaluation.logits import logits_bytes
from fastmagn.evaluation.measure import chosen_rows, evaluate, predict
from fastmagn.evaluation.metrics.predictions import concatenate
from fastmagn.evaluation.ood import find_other_sets, measure_other_sets
from fastmagn.evaluation.other_images import MeasuredTwice, find_images, measure_images, summarise_images
from fastmagn.evaluation.protocols import check_protocols, evaluate_protocols
from fastmagn.evaluation.shown import print_images
from fastmagn.evaluation.subset import subset_of
from fastmagn.evaluation.trained import Trained, load_run
from fastmagn.machine.environment import environment
from fastmagn.machine.files import check_writable
from fastmagn.machine.hardware import settle_hardware
from fastmagn.machine.processes import World, join_world
from fastmagn.methods.test_time import model_for_test
from fastmagn.models import evaluation_mode
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
    corruptions = find_corruptions(image_set.test_images_u8, labels, section, image_set.class_names, rows)
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
        image_set = world.rank_0_first(lambda: load_data(config.data))
        check_own_classes(run_dir, image_set)
        run = world.together(lambda: load_run(run_dir, config=config, image_set=image_set, device=device))
        trained = _training_of(run, run_dir, image_set) if config.eval.temperature_images == VALIDATION else None
        measured = evaluate_model(run.measured, image_set, config, run_dir, device=device, world=world, trained=trained)
    return measured | {"steps": run.steps, "environment": environment(device), "config": plain(config)}


def check_own_classes(run_dir: Path, image_set: ImageSet) -> None:
    """Check that the images have the run's classes, as far as its results.json says which they are.

    Raises:
        InputError: They have others.
    """
    file = run_dir / RESULTS
    if not file.is_file():
        return
    try:
        results = read_results(file)
        check_results(results, file)
    except InputError:  # a run with damaged results can still be measured
        return
    if "class_names" in results:
        names, data = tuple(results["class_names"]), results["config"]["data"]["name"]
        check_classes(image_set, Classes(names, data, str(run_dir)))


def _training_of(run: Trained, run_dir: Path, image_set: ImageSet) -> Config:
    """The run's own configuration.

    Raises:
        InputError: It was trained on other images, so that those held out then are not those of the same split now.
    """
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
        class_names = trained.class_names
        if config.data.name in ENCODED:
            size, shorter_side = config.data.image_size, resize_px(config.data)
        else:
            size = shorter_side = trained.image_size[0]
        padding = trained.padded_from
        found = world.together(
            lambda: find_images(
                folder, class_names, mapping, image_size=size, resize_px=shorter_side, padded_from=padding
            )
        )
        original = model_for_test(trained.network, config, (size, size))
        model, about_model = model_to_forward(original, config.eval.forward, config.train.amp, device, (size, size))
        share = world.share(len(found.labels))
        images, labels, own_labels = found.images[share], found.labels[share], np.unique(found.labels)
        with evaluation_mode(model):
            logits = predict(model, images, device=device, amp=config.train.amp, batch_size=config.eval.batch_size)
        readable = images.readable()
        measured = measure_images(logits[torch.from_numpy(readable).to(device)], labels[readable], own_labels)
        shares = world.gather((measured, labels[readable], int(np.count_nonzero(~readable))))
    predictions, readable_labels, num_unreadable = zip(*shares, strict=True)
    joined = MeasuredTwice(*(concatenate(list(parts)) for parts in zip(*predictions, strict=True)))
    places = np.searchsorted(own_labels, np.concatenate(readable_labels))
    own_names = [class_names[label] for label in own_labels]
    entry = summarise_images(joined, places, own_names, sum(num_unreadable), config.eval)
    print_images(str(folder), entry, len(class_names))
    settings = {"classes": plain(classes), "weights": config.eval.weights, "test_time_flip": config.eval.test_time_flip}
    about = about_model | {"steps": trained.steps, "environment": environment(device)}
    return {str(folder): entry | settings | about}
