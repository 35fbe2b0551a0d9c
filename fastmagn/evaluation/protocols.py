"""What an evaluation may measure besides accuracy and calibration under corruption."""

import time
from typing import Any

import torch
from torch import nn

from fastmagn.config.schema import Config
from fastmagn.data import ImageSet
from fastmagn.errors import InputError, check
from fastmagn.evaluation.corruption_cache import use_cache
from fastmagn.evaluation.fourier import evaluate_fourier
from fastmagn.evaluation.measure import evaluate
from fastmagn.evaluation.perturbations import evaluate_perturbations, find_sequences
from fastmagn.evaluation.subset import subset_of
from fastmagn.machine.processes import World
from fastmagn.models.batchnorm import batch_statistics, has_batch_norm


def check_protocols(model: nn.Module, image_set: ImageSet, config: Config, world: World) -> None:
    """Check that what `eval` asks for can be measured: before the work, not after it.

    Raises:
        InputError: `perturbations` of images of another size, or a -P set that does not fit; `batch_norm adapt` of a
            network without batch normalisation, or of fewer than two images for each process.
    """
    section = config.eval
    if section.perturbations:
        find_sequences(image_set.test_images_u8, section)
    if section.batch_norm == "adapt" and not has_batch_norm(model):
        raise InputError(
            f"eval.batch_norm: got adapt; expected trained, as {config.model.name} has no batch normalisation whose "
            "statistics could be those of a test batch."
        )
    if section.fourier:
        number = min(section.fourier_images, len(image_set.test_labels))
        check(number >= world.size, "eval.fourier_images", number, f"at least {world.size}, one for each process")
    num_images, least = section.num_images or len(image_set.test_labels), 2 * world.size
    is_enough = section.batch_norm == "trained" or num_images >= least
    check(
        is_enough,
        "eval.num_images",
        num_images,
        f"{least} or more, for batches of two images with eval.batch_norm adapt",
    )


def evaluate_protocols(
    model: nn.Module, original: nn.Module, image_set: ImageSet, config: Config, *, device: torch.device, world: World
) -> dict[str, Any]:
    """Measure what `eval.perturbations`, `eval.fourier` and `eval.batch_norm` ask for; see `evaluation.run`.

    Args:
        model: The model to measure, on `device`.
        original: The same with all of its batch normalisations, which `batch_norm adapt` needs.
        image_set: The run's images.
        config: The run's configuration.
        device: Where the models are.
        world: torchrun's processes.

    Returns:
        `perturbations`, see `evaluate_perturbations`; `fourier`, see `evaluate_fourier`; `adapted_batch_norm`, see
        `evaluate_adapted`; each only if it is asked for, and with its `time_s`.
    """
    section = config.eval
    images_u8, labels = image_set.test_images_u8, image_set.test_labels
    arguments = (model, images_u8, labels, section)
    options: dict[str, Any] = {"device": device, "amp": config.train.amp, "world": world}
    subset = subset_of(config.data.name, section.corruption_seed)
    measures = {
        "perturbations": (
            section.perturbations,
            lambda: evaluate_perturbations(*arguments, **options, subset=subset),
        ),
        "fourier": (section.fourier, lambda: evaluate_fourier(*arguments, **options)),
        "adapted_batch_norm": (
            section.batch_norm == "adapt",
            lambda: evaluate_adapted(original, image_set, config, device=device, world=world),
        ),
    }
    results = {}
    for name, (is_wanted, measure) in measures.items():
        if is_wanted:
            start = time.perf_counter()
            results[name] = measure() | {"time_s": time.perf_counter() - start}
    return results


def evaluate_adapted(
    model: nn.Module, image_set: ImageSet, config: Config, *, device: torch.device, world: World
) -> dict[str, Any]:
    """Accuracy and calibration with batch normalisation by each test batch's own statistics.

    An image's prediction then depends on its batch: on the size, on the other images, on the order and on the number of
    processes. The batches of a process differ by one image at most. They have up to `eval.batch_size` images, or more
    where an image would be alone: of 5 images in batches of 2, three are in one. The images of a folder, which are
    sorted by class, are measured in an order that `eval.corruption_seed` draws.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1]; it is left in the mode it was in.
        image_set: Its test images are measured.
        config: `data.name`, the section `eval`, and `train.amp`, the precision: float32, bf16 or fp16.
        device: Where the model is.
        world: torchrun's processes.

    Returns:
        What `measure.evaluate` returns, and the `batch_size` of the largest batch.

    Source: S. Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation",
    NeurIPS 2020 (its N = 0), and Z. Nado et al., "Evaluating prediction-time batch normalization", 2020.
    """
    section = use_cache(config, world, image_set)
    num_images = section.num_images or len(image_set.test_labels)
    least, most = num_images // world.size, -(-num_images // world.size)  # images of a process
    num_batches = min(-(-most // section.batch_size), max(1, least // 2))  # no batch of a single image
    subset = subset_of(config.data.name, section.corruption_seed)._replace(is_shuffled=True)
    with batch_statistics(model):
        results = evaluate(
            model,
            image_set.test_images_u8,
            image_set.test_labels,
            section,
            device=device,
            amp=config.train.amp,
            world=world,
            class_names=image_set.class_names,
            subset=subset,
            num_batches=num_batches,
        )
    return results | {"batch_size": -(-most // num_batches)}
