"""Measure a model on all images of a folder from elsewhere, CLASS/IMAGE, on all of torchrun's processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastmagn.config.schema import Config
from fastmagn.data import ENCODED
from fastmagn.data.files.decoding import resize_px
from fastmagn.evaluation.fast_forward import model_to_forward
from fastmagn.evaluation.measure import predict
from fastmagn.evaluation.metrics.predictions import concatenate
from fastmagn.evaluation.other_images import MeasuredTwice, find_images, measure_images, summarise_images
from fastmagn.evaluation.shown import print_images
from fastmagn.machine.processes import World
from fastmagn.models import evaluation_mode


class Seen(NamedTuple):
    """The images that a model is for.

    Args:
        class_names: K names; label k is class_names[k].
        image_size: (H, W), px.
        padded_from: (H, W) of the set's own images, px, if they are padded to `image_size`; else None.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    padded_from: tuple[int, int] | None


def side_px(seen: Seen, config: Config) -> int:
    """The side of the squares that are cut out of the folder's images."""
    return config.data.image_size if config.data.name in ENCODED else seen.image_size[0]


def measure_folder(
    model: nn.Module,
    seen: Seen,
    folder: Path,
    mapping: Mapping[str, str],
    config: Config,
    *,
    device: torch.device,
    world: World,
) -> dict[str, Any]:
    """Measure and print the folder's entry of `image_folders`; see `other_images.summarise_images`.

    Args:
        model: Takes float images [B, 3, S, S] in [0, 1], S = `side_px`; on `device`.
        seen: Its classes and images.
        folder: Holds CLASS/IMAGE.
        mapping: Folder name -> class name, see `other_images.find_images`.
        config: `eval.num_images` is ignored: all images are measured.
        device: Where the model is.
        world: torchrun's processes.

    Raises:
        InputError: The folder cannot be used.
    """
    size = side_px(seen, config)
    shorter_side = resize_px(config.data) if config.data.name in ENCODED else size
    sizes: dict[str, Any] = {"image_size": size, "resize_px": shorter_side, "padded_from": seen.padded_from}
    found = world.together(lambda: find_images(folder, seen.class_names, mapping, **sizes))
    model, about_model = model_to_forward(model, config.eval.forward, config.train.amp, device, (size, size))
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
    own_names = [seen.class_names[label] for label in own_labels]
    entry = summarise_images(joined, places, own_names, sum(num_unreadable), config.eval)
    print_images(str(folder), entry, len(seen.class_names))
    return entry | about_model
