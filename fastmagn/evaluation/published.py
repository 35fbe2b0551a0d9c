"""Measure weights from a file, such as a published checkpoint, without a run."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data import ImageSet, load_measured
from fastmagn.errors import InputError, some
from fastmagn.evaluation.class_names import Classes, check_classes
from fastmagn.evaluation.run import evaluate_model
from fastmagn.machine.console import console, warn
from fastmagn.machine.environment import environment
from fastmagn.machine.hardware import settle_hardware
from fastmagn.machine.processes import join_world
from fastmagn.methods.test_time import MirrorEnsemble
from fastmagn.models import Normalised, build_model
from fastmagn.models.pretrained import Loaded, load_weights
from fastmagn.models.published import published_file
from fastmagn.models.weight_files import Weights, read_weights
from fastmagn.runs.failures import explain_measuring

Channels = tuple[float, float, float]
_NO_MEAN, _NO_STD = (0.0,) * 3, (1.0,) * 3  # of a model whose network alone is used
# With torchvision's own weights these turn ImageNet's normalisation into one by 0.5 and 0.5; ours do not.
_TRANSFORM_INPUT = ("torchvision:googlenet", "torchvision:inception_v3")


class Published(NamedTuple):
    """Weights to measure.

    Args:
        file: The file, or a published model's name; `models.weight_files.read_weights` says what is read.
        mean: What the network's training subtracted from each channel, pixels in [0, 1]. None: what the file says, or
            the data set's own.
        std: What it then divided by; None likewise.
        classes: The classes that the file says the model is for; None if it does not say.
        image_size: (H, W), px, of the images that it was trained on; None likewise.
    """

    file: Path
    mean: Channels | None = None
    std: Channels | None = None
    classes: Classes | None = None
    image_size: tuple[int, int] | None = None


def evaluate_weights(published: Published, config: Config, results_dir: Path) -> dict[str, Any]:
    """Measure weights as the network `model.name` on the test images of `data.name`, on all of torchrun's processes.

    The network itself is measured, or its mean with the mirror image if `eval.test_time_flip` is on; no ensemble of a
    method.

    Args:
        published: The weights.
        config: Its sections data, model, eval and the device say what is measured, and `train.amp` in which precision.
        results_dir: Folder that gets `logits` if `eval.save_logits` is on.

    Returns:
        What `evaluation.run.evaluate_run` returns, and `weights_file`, the absolute path or the published model's name,
        and `normalisation` {mean, std}.

    Raises:
        InputError: The file cannot be read, or is not of this network and these classes; memory is too small; a device
            is lost.
    """
    config = settle_hardware(config)
    with (
        explain_measuring(config.device, config.eval.batch_size),
        join_world(torch.device(config.device)) as (world, device),
    ):
        # Before the images, which may take minutes to list.
        weights = world.together(lambda: read_weights(published.file, "weights"))
        known = published.classes
        image_set = world.rank_0_first(lambda: load_measured(config.data, known and known.names))
        check_classes(image_set, known)
        network, loaded = _load(published.file, weights, config, image_set)
        mean, std, whose = _normalisation(published, loaded, image_set)
        if world.rank == 0:
            console.print(loaded.line, soft_wrap=True)
            console.print(f"normalisation: mean {_shown(mean)}, std {_shown(std)} ({whose})", soft_wrap=True)
            _warn_of_other_size(published, image_set)
            if config.model.name in _TRANSFORM_INPUT and published.std is loaded.std is None:
                warn(f"torchvision's own weights of {config.model.name} need --mean 0.5 --std 0.5 (transform_input).")
        normalised = Normalised(network, mean, std).to(device, memory_format=torch.channels_last).eval()
        model = MirrorEnsemble(normalised) if config.eval.test_time_flip else normalised
        measured = evaluate_model(model, image_set, config, results_dir, device=device, world=world, trained=None)
    about = {"weights_file": _name_anywhere(published.file), "normalisation": {"mean": list(mean), "std": list(std)}}
    return measured | about | {"environment": environment(device), "config": plain(config)}


def _name_anywhere(file: Path) -> str:
    """The absolute path of a file, which names it in every working directory; a published model's name as it is."""
    return str(file if published_file(file) else file.absolute())


def _warn_of_other_size(published: Published, image_set: ImageSet) -> None:
    height, width = image_set.test_images_u8.shape[1:3]
    if published.image_size not in (None, (height, width)):
        trained = "x".join(map(str, published.image_size or ()))
        warn(f"{published.file} was trained on images of {trained} px; it is measured on {height}x{width} px.")


def _normalisation(published: Published, loaded: Loaded, image_set: ImageSet) -> tuple[Channels, Channels, str]:
    """Mean, standard deviation, and where they are from.

    Raises:
        InputError: Nothing says them, as there are no training images.
    """
    sources = {
        "as given": (published.mean, published.std),
        "the file's": (loaded.mean, loaded.std),
        f"those of {image_set.name}; --mean and --std name others": (image_set.mean, image_set.std),
    }
    means = [(pair[0], name) for name, pair in sources.items() if pair[0] is not None]
    stds = [(pair[1], name) for name, pair in sources.items() if pair[1] is not None]
    for field, found in (("mean", means), ("std", stds)):
        if not found:
            raise InputError(
                f"{field}: got none; expected --mean and --std, as {published.file} does not say them, and there are no"
                f" training images of {image_set.name} that could."
            )
    (mean, whose_mean), (std, whose_std) = means[0], stds[0]
    return mean, std, whose_mean if whose_mean == whose_std else f"mean {whose_mean}, std {whose_std}"


def _load(file: Path, weights: Weights, config: Config, image_set: ImageSet) -> tuple[nn.Module, Loaded]:
    """The network with the weights, without its normalisation, and what was loaded."""
    model = build_model(
        config.model.name,
        num_classes=image_set.num_classes,
        mean=_NO_MEAN,
        std=_NO_STD,
        image_size=image_set.test_images_u8.shape[1:3],
    )
    loaded = load_weights(model.network, weights, file, image_set.num_classes, "weights")
    if loaded.new:
        raise InputError(
            f"weights: {file} has no classifier for the {image_set.num_classes} classes of {image_set.name}: "
            f"{some(loaded.new)} would be new. Give weights that were trained on them, or another --data.name."
        )
    return model.network, loaded


def _shown(channels: Channels) -> str:
    return " ".join(f"{value:.4g}" for value in channels)
