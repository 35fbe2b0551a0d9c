"""Measure weights from a file, such as a published checkpoint, without a run."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data import ImageSet, load_measured
from fastmagn.data.padding import padded_from
from fastmagn.errors import InputError, some
from fastmagn.evaluation.class_mapping import read_mapping
from fastmagn.evaluation.class_names import Classes, check_classes
from fastmagn.evaluation.image_folder import Seen, measure_folder, side_px
from fastmagn.evaluation.run import evaluate_model
from fastmagn.machine.console import console, warn
from fastmagn.machine.environment import environment
from fastmagn.machine.hardware import settle_hardware
from fastmagn.machine.processes import World, join_world
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
        seen: The images that it is for; None likewise.
    """

    file: Path
    mean: Channels | None = None
    std: Channels | None = None
    classes: Classes | None = None
    seen: Seen | None = None


class _Target(NamedTuple):
    """The images that the weights are measured on: their set's name, their size (H, W) in px, and its statistics."""

    name: str
    num_classes: int
    image_size: tuple[int, int]
    mean: Channels | None = None
    std: Channels | None = None


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
        `weights_sha256`, the digest of the file, and `normalisation` {mean, std}.

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
        model, about = _model(published, weights, config, _target(image_set), device, world)
        measured = evaluate_model(model, image_set, config, results_dir, device=device, world=world, trained=None)
    return measured | about | {"environment": environment(device), "config": plain(config)}


def evaluate_weights_on_folder(
    published: Published, config: Config, folder: Path, classes: Path | None
) -> dict[str, Any]:
    """Measure weights on all images of a folder, CLASS/IMAGE, as `evaluation.run.evaluate_images` measures a run.

    Weights that do not say their classes have those of the images that `config.data` names, which must be there.

    Args:
        published: The weights.
        config: As for `evaluate_weights`. `eval.num_images` is ignored: all images are measured.
        folder: The folder.
        classes: As for `evaluate_images`.

    Returns:
        The folder's entry of `image_folders`, by the folder's name, with what `evaluate_weights` says of the weights.

    Raises:
        InputError: As `evaluate_weights`; or the folder or the file of classes cannot be used.
    """
    config = settle_hardware(config)
    mapping = read_mapping(classes) if classes is not None else {}
    with (
        explain_measuring(config.device, config.eval.batch_size),
        join_world(torch.device(config.device)) as (world, device),
    ):
        weights = world.together(lambda: read_weights(published.file, "weights"))
        seen, target = world.rank_0_first(lambda: _seen(published, config))
        model, about = _model(published, weights, config, target, device, world)
        entry = measure_folder(model, seen, folder, mapping, config, device=device, world=world)
    settings = {"classes": plain(classes), "test_time_flip": config.eval.test_time_flip}
    return {str(folder): entry | settings | about | {"environment": environment(device)}}


def _target(image_set: ImageSet) -> _Target:
    height, width = image_set.test_images_u8.shape[1:3]
    return _Target(image_set.name, image_set.num_classes, (height, width), image_set.mean, image_set.std)


def _seen(published: Published, config: Config) -> tuple[Seen, _Target]:
    """What the model is for, and what it is measured on in a folder."""
    seen, known = published.seen, published.classes
    if seen is not None and known is not None:
        target = _Target(known.data, len(seen.class_names), seen.image_size)
    else:
        image_set = load_measured(config.data, known and known.names)
        check_classes(image_set, known)
        target = _target(image_set)
        seen = Seen(image_set.class_names, target.image_size, padded_from(image_set.test_images_u8))
    return seen, target._replace(image_size=(side_px(seen, config),) * 2)


def _model(
    published: Published, weights: Weights, config: Config, target: _Target, device: torch.device, world: World
) -> tuple[nn.Module, dict[str, Any]]:
    """The model to measure, on `device`, and what results say of the weights; rank 0 prints what was loaded."""
    network, loaded = _load(published.file, weights, config, target)
    mean, std, whose = _normalisation(published, loaded, target)
    if world.rank == 0:
        console.print(loaded.line, soft_wrap=True)
        console.print(f"normalisation: mean {_shown(mean)}, std {_shown(std)} ({whose})", soft_wrap=True)
        _warn_of_other_size(published, target)
        if config.model.name in _TRANSFORM_INPUT and published.std is loaded.std is None:
            warn(f"torchvision's own weights of {config.model.name} need --mean 0.5 --std 0.5 (transform_input).")
    normalised = Normalised(network, mean, std).to(device, memory_format=torch.channels_last).eval()
    model = MirrorEnsemble(normalised) if config.eval.test_time_flip else normalised
    with (published_file(published.file) or published.file).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    normalisation = {"mean": list(mean), "std": list(std)}
    about = {"weights_file": _name_anywhere(published.file), "weights_sha256": digest, "normalisation": normalisation}
    return model, about


def _name_anywhere(file: Path) -> str:
    """The absolute path of a file, which names it in every working directory; a published model's name as it is."""
    return str(file if published_file(file) else file.absolute())


def _warn_of_other_size(published: Published, target: _Target) -> None:
    if published.seen is not None and published.seen.image_size != target.image_size:
        trained, measured = ("x".join(map(str, size)) for size in (published.seen.image_size, target.image_size))
        warn(f"{published.file} was trained on images of {trained} px; it is measured on {measured} px.")


def _normalisation(published: Published, loaded: Loaded, target: _Target) -> tuple[Channels, Channels, str]:
    """Mean, standard deviation, and where they are from.

    Raises:
        InputError: Nothing says them, as there are no training images.
    """
    sources = {
        "as given": (published.mean, published.std),
        "the file's": (loaded.mean, loaded.std),
        f"those of {target.name}; --mean and --std name others": (target.mean, target.std),
    }
    means = [(pair[0], name) for name, pair in sources.items() if pair[0] is not None]
    stds = [(pair[1], name) for name, pair in sources.items() if pair[1] is not None]
    for field, found in (("mean", means), ("std", stds)):
        if not found:
            raise InputError(
                f"{field}: got none; expected --mean and --std, as {published.file} does not say them, and there are no"
                f" training images of {target.name} that could."
            )
    (mean, whose_mean), (std, whose_std) = means[0], stds[0]
    return mean, std, whose_mean if whose_mean == whose_std else f"mean {whose_mean}, std {whose_std}"


def _load(file: Path, weights: Weights, config: Config, target: _Target) -> tuple[nn.Module, Loaded]:
    """The network with the weights, without its normalisation, and what was loaded."""
    model = build_model(
        config.model.name,
        num_classes=target.num_classes,
        mean=_NO_MEAN,
        std=_NO_STD,
        image_size=target.image_size,
    )
    loaded = load_weights(model.network, weights, file, target.num_classes, "weights")
    if loaded.new:
        raise InputError(
            f"weights: {file} has no classifier for the {target.num_classes} classes of {target.name}: "
            f"{some(loaded.new)} would be new. Give weights that were trained on them, or another --data.name."
        )
    return model.network, loaded


def _shown(channels: Channels) -> str:
    return " ".join(f"{value:.4g}" for value in channels)
