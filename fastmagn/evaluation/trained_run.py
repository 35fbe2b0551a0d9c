"""Measure a run's last checkpoint, on its own images or on others."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data import load_data
from fastmagn.data.files.decoding import resize_px
from fastmagn.evaluation.corrupted_set import use_cache
from fastmagn.evaluation.measure import evaluate, predict
from fastmagn.evaluation.metrics.predictions import concatenate
from fastmagn.evaluation.other_images import (
    Measured,
    find_images,
    measure_images,
    print_images,
    read_mapping,
    summarise_images,
)
from fastmagn.evaluation.trained import load_run
from fastmagn.machine.environment import environment
from fastmagn.machine.hardware import settle_hardware
from fastmagn.machine.processes import join_world
from fastmagn.methods.test_time import model_for_test
from fastmagn.models import evaluation_mode
from fastmagn.runs.paths import LOGITS


def evaluate_run(run_dir: Path, config: Config) -> dict[str, Any]:
    """Measure a run's last checkpoint on the images that `config` names, on all of torchrun's processes."""
    config = settle_hardware(config)
    with join_world(torch.device(config.device)) as (world, device):
        image_set = load_data(config.data)
        measured = evaluate(
            load_run(run_dir, config=config, image_set=image_set, device=device).measured,
            image_set.test_images_u8,
            image_set.test_labels,
            use_cache(config, world),
            device=device,
            amp=config.train.amp,
            logits_dir=run_dir / LOGITS if config.eval.save_logits else None,
            world=world,
            class_names=image_set.class_names,
        )
    return measured | {"environment": environment(device), "config": plain(config)}


def evaluate_images(run_dir: Path, config: Config, folder: Path, classes: Path | None) -> dict[str, Any]:
    """Measure a run's last checkpoint on all images of DIR/CLASS/IMAGE, on all of torchrun's processes.

    The images that it was trained on are not needed: results.json has the names of its classes.

    Args:
        run_dir: The run.
        config: Its configuration; `eval.num_images` is not looked at: the first images are all of a few classes.
        folder: DIR.
        classes: A file that says which class of the run a class folder is of; None where it has the class's name.

    Returns:
        What results hold under `image_folders`, by the folder's name: see `other_images.summarise_images`.
    """
    config = settle_hardware(config)
    mapping = read_mapping(classes) if classes is not None else {}
    with join_world(torch.device(config.device)) as (world, device):
        trained = load_run(run_dir, config=config, device=device)
        class_names, (size, whole_px) = trained.class_names, (trained.image_size[0],) * 2
        if config.data.name == "folder":
            size, whole_px = config.data.image_size, resize_px(config.data)
        found = find_images(folder, class_names, mapping, image_size=size, resize_px=whole_px)
        model = model_for_test(trained.network, config, (size, size))
        share = world.share(len(found.labels))
        images = found.images[share]
        with evaluation_mode(model):
            logits = predict(model, images, device=device, amp=config.train.amp, batch_size=config.eval.batch_size)
        kept = images.readable()
        own_labels = np.unique(found.labels)
        measured = measure_images(logits[torch.from_numpy(kept).to(device)], found.labels[share][kept], own_labels)
        shares = world.gather((measured, int(np.count_nonzero(~kept))))
    whole = Measured(*(concatenate(list(parts)) for parts in zip(*(part for part, _ in shares), strict=True)))
    entry = summarise_images(whole, len(own_labels), sum(count for _, count in shares), config.eval)
    print_images(str(folder), entry, len(class_names))
    settings = {"classes": plain(classes), "weights": config.eval.weights, "test_time_flip": config.eval.test_time_flip}
    return {str(folder): entry | settings | {"environment": environment(device)}}
