"""Temperature scaling on held-out images: which images those are, and the fit.

They are never the images that are measured, nor images that the network was trained on. Shape letters: n images, K
classes, H W image.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmagn.config.paths import user_path
from fastmagn.config.schema import Config, DataConfig
from fastmagn.data import ENCODED, OWN, ImageSet, split_validation
from fastmagn.data.files.decoding import resize_px
from fastmagn.data.files.on_demand import FolderImages, LazyImages
from fastmagn.data.image_set import Images
from fastmagn.data.padding import padded_from
from fastmagn.errors import InputError, check, counted
from fastmagn.evaluation.forward import Forward, logits_of
from fastmagn.evaluation.metrics.predictions import row_parts
from fastmagn.evaluation.metrics.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from fastmagn.evaluation.other_images import find_images
from fastmagn.evaluation.subset import subset_of
from fastmagn.machine.console import warn

FIELD = "eval.temperature_images"
VALIDATION, TEST = "validation", "test"


class HeldOut(NamedTuple):
    """Images that temperature scaling is fitted on.

    Args:
        images_u8: uint8 [n, H, W, 3].
        labels: int64 [n].
        source: Where they are from: validation, test, or a folder.
    """

    images_u8: Images | LazyImages
    labels: np.ndarray
    source: str


class Fitted(NamedTuple):
    """A temperature, above 0, and what results.json says about it: `temperature`, `images`, `num_images`, `nll`."""

    temperature: float
    record: dict[str, Any]


def find_held_out(config: Config, image_set: ImageSet, trained: Config | None) -> HeldOut | None:
    """The images that `eval.temperature_images` names; None if it names none.

    Args:
        config: The configuration of the evaluation.
        image_set: The images of `config.data`.
        trained: The configuration that the network was trained with on the training images of `image_set`; None if
            nobody knows how it was trained.

    Raises:
        InputError: There are no such images, or they are images of the training or of the measurement.
    """
    name = config.eval.temperature_images
    if name is None:
        return None
    if name == VALIDATION:
        return _validation(config, image_set, trained)
    return _rest_of_test(config, image_set) if name == TEST else _folder(name, config, image_set)


def _validation(config: Config, image_set: ImageSet, trained: Config | None) -> HeldOut:
    if trained is None:
        raise InputError(
            f"{FIELD}: got validation; expected test or a folder, as a file of weights does not say which images its"
            " training left out."
        )
    for field, now, then in (
        ("data.num_validation_images", config.data.num_validation_images, trained.data.num_validation_images),
        ("train.seed", config.train.seed, trained.train.seed),
    ):
        check(now == then, field, now, f"{then}, as in the training, with {FIELD} validation")
    _, part = split_validation(image_set, trained.data.num_validation_images, trained.train.seed)
    if len(part.labels) == 0:
        raise InputError(
            f"{FIELD}: got validation; expected test or a folder, as the run held out no training images"
            " (data.num_validation_images 0)."
        )
    return HeldOut(part.images_u8, part.labels, VALIDATION)


def _rest_of_test(config: Config, image_set: ImageSet) -> HeldOut:
    labels = image_set.test_labels
    measured = subset_of(config.data.name, config.eval.corruption_seed).rows(labels, config.eval.num_images)
    rest = np.delete(np.arange(len(labels)), measured)
    if len(rest) == 0:
        raise InputError(
            f"{FIELD}: got test; expected an eval.num_images below {len(labels)} with it: all test images are measured,"
            " and none of them may be fitted on."
        )
    return HeldOut(image_set.test_images_u8[rest], labels[rest], TEST)


def _folder(name: str, config: Config, image_set: ImageSet) -> HeldOut:
    folder = user_path(name, FIELD)
    if not folder.is_dir():
        raise InputError(f"{FIELD}: got {name!r}; expected {VALIDATION}, {TEST}, or a folder, CLASS/IMAGE in it.")
    size = shorter_side = image_set.test_images_u8.shape[1]
    if config.data.name in ENCODED:
        shorter_side = resize_px(config.data)
    _check_apart(folder, config.data, image_set)
    padding = padded_from(image_set.test_images_u8)
    found = find_images(folder, image_set.class_names, {}, image_size=size, resize_px=shorter_side, padded_from=padding)
    return HeldOut(found.images, found.labels, str(folder))


def _check_apart(folder: Path, data: DataConfig, image_set: ImageSet) -> None:
    """Raise InputError if a folder holds training or measured images, or lies in a folder of theirs."""
    ours, has_parts = Path(os.path.realpath(folder)), data.name in ENCODED and data.name in OWN
    for part, said, images in (
        ("train", "the training images", image_set.train_images_u8),
        ("val", "the measured images", image_set.test_images_u8),
    ):
        places = _places_of(images)
        if has_parts and (data.dir / part).is_dir():
            places.add(data.dir / part)
        for theirs in sorted(Path(os.path.realpath(place)) for place in places):
            if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
                raise InputError(f"{FIELD}: got {folder}; expected other images than {said}, {theirs}.")


def _places_of(images: Images) -> set[Path]:
    """The folders of image files; of images in shards the shards themselves, in whose folder others may lie."""
    if not isinstance(images, FolderImages):
        return set()
    files = images.files
    if files.spans is not None:
        return set(map(Path, files.spans.shards))
    return {files.root / folder for folder in {os.path.dirname(name) for name in files.names.tolist()}}


def fit_on(model: nn.Module, held_out: HeldOut, forward: Forward, field: str = FIELD) -> Fitted | None:
    """The temperature that fits the held-out images best; None, with a warning, if no likelihood is finite.

    Logits may be NaN or infinite; or -inf may rule out the class that a label names, at every temperature.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1].
        held_out: The images.
        forward: How the model is run.
        field: The option that names the images, for messages.

    Returns:
        `nll` of the record has the mean negative log-likelihood of the held-out images `before` and `after`, in nats.
    """
    logits, readable = logits_of(model, held_out.images_u8, forward, field)
    logits, labels = logits[readable], torch.from_numpy(held_out.labels[readable])
    num_classes = logits.shape[1]
    check(int(labels.max()) < num_classes, f"{field}: labels", int(labels.max()), f"classes 0..{num_classes - 1}")
    if not all(torch.isfinite(torch.logsumexp(part.double(), dim=1)).all() for part in row_parts(logits)):
        warn(f"{field}: no temperature is fitted, as logits are not finite.")
        return None
    num_ruled_out = int(torch.isneginf(logits.gather(1, labels[:, None])).sum())
    if num_ruled_out:
        warn(
            f"{field}: no temperature is fitted, as the model rules the right class of"
            f" {counted(num_ruled_out, 'image')} out (-inf)."
        )
        return None
    temperature = fit_temperature(logits, labels)
    if temperature in (MIN_TEMPERATURE, MAX_TEMPERATURE):
        limits = f"{MIN_TEMPERATURE:g}..{MAX_TEMPERATURE:g}"
        warn(f"{field}: the temperature {temperature:g} is a limit of {limits}; a better one may lie beyond it.")
    nll = {"before": _mean_nll(logits, labels, 1.0), "after": _mean_nll(logits, labels, temperature)}
    record = {"temperature": temperature, "images": held_out.source, "num_images": len(labels), "nll": nll}
    return Fitted(temperature, record)


def _mean_nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """The mean negative log-likelihood of softmax(logits / temperature), in float64, nats."""
    parts = row_parts(logits)
    of_parts = zip(parts, labels.split([len(part) for part in parts]), strict=True)
    total = sum(float(F.cross_entropy(part.double() / temperature, own, reduction="sum")) for part, own in of_parts)
    return total / len(labels)
