"""`benchmarks.train --data folder`: how fast photographs in files become AugMix views, here and as it is done today.

A folder of JPEGs of 500 x 375 px is made in a temporary folder: CIFAR's images enlarged, with grain, where `data.dir`
holds CIFAR-10, else the digits. An epoch of it is fed by

- `dali`, `torchvision`: our two sources, then our views (clean and two of AugMix), all in this process;
- `conventional`: a DataLoader whose worker processes decode by Pillow, crop by torchvision's RandomResizedCrop, flip,
  and make the same views by Pillow's AugMix.

No network runs: it is what waits for the views. The contenders take turns, an epoch each, so that a drift of the
machine's speed meets all; ratios are of one turn.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch.utils.data import DataLoader

from benchmarks.conventional import PillowFiles
from benchmarks.measure import console, resident_mib, seconds, spread
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import Config
from fastmagn.data import FolderSource, load_data, load_images, make_source, split_validation
from fastmagn.data.files.crops import has_dali
from fastmagn.errors import InputError

VIEWS = ViewSpec(num_augmix_views=2, num_noise_views=0)
PHOTO_PX = (375, 500)  # height, width: usual in ImageNet
JPEG_QUALITY = 90
GRAIN = 6.0  # levels: of a photograph's noise, which makes files as large as photographs'
NUM_CLASSES = 10
NUM_VALIDATION = 10


@contextmanager
def made_folder(config: Config, num_images: int) -> Iterator[Config]:
    """The config with `data` a folder of `num_images` training photographs, which is there as long as the context."""
    try:
        pictures = load_images("cifar10", config.data.dir).test_images_u8
    except InputError:
        pictures = load_images("digits", config.data.dir).train_images_u8
    generator = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        for i in range(num_images + NUM_VALIDATION):
            part = "train" if i < num_images else "val"
            path = Path(folder) / part / str(i % NUM_CLASSES) / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pictures[i % len(pictures)])
            pixels = np.asarray(picture.resize(PHOTO_PX[::-1], Image.Resampling.BICUBIC))
            grainy = pixels + generator.normal(0, GRAIN, (*PHOTO_PX, 1))
            Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(path, quality=JPEG_QUALITY)
        # What the usual loop has no part in: the network's photographs are cropped at random, not moved and turned.
        augment = dataclasses.replace(config.augment, crop_padding_px=0, color_jitter=0.0, rotation_deg=0.0)
        data = dataclasses.replace(config.data, name="folder", dir=Path(folder))
        yield dataclasses.replace(config, data=data, augment=augment)


def measure_feeding(config: Config, workers: int, turns: int) -> dict[str, Any]:
    """Images/s of each contender with `workers` threads or processes, and the ratios to the usual loop's.

    Args:
        config: Of `made_folder`.
        workers: Threads of ours and processes of theirs.
        turns: Epochs of each.
    """
    device = torch.device(config.device)
    image_set = load_data(config.data)
    batch_size = config.train.batch_size
    sources = {}
    for name in ("dali", "torchvision") if has_dali() else ("torchvision",):
        data = dataclasses.replace(config.data, source=name, num_workers=workers)
        part, _ = split_validation(load_data(data), 0, config.train.seed)
        sources[name] = make_source(
            part, batch_size=batch_size, seed=config.train.seed, device=device, share=slice(0, batch_size)
        )
    loader = DataLoader(
        PillowFiles(image_set.train_images_u8, image_set.train_labels, config.augment, VIEWS.num_augmix_views),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        multiprocessing_context="spawn",
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )

    def usual_epoch() -> None:
        for views, labels in loader:
            views.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        _finish(device)

    contenders = {name: lambda source=source: feed(source, config, device) for name, source in sources.items()}
    contenders["conventional"] = usual_epoch
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    num_images = len(image_set.train_labels) // batch_size * batch_size
    for turn in range(turns + 1):
        for name, epoch in contenders.items():
            elapsed_s = seconds(epoch)
            if turn > 0:  # the first compiles kernels and starts workers
                rates[name].append(num_images / elapsed_s)
    return {
        name: {
            "images_per_s": spread(values),
            "ratio_to_conventional": spread([a / b for a, b in zip(values, rates["conventional"], strict=True)]),
        }
        for name, values in rates.items()
    }


def memory_growth_mib(config: Config, steps: int) -> dict[str, float]:
    """What the process has more of after `steps` batches of each source and their views than after a tenth of them."""
    device, grown = torch.device(config.device), {}
    for name in ("dali", "torchvision") if has_dali() else ("torchvision",):
        part, _ = split_validation(load_data(dataclasses.replace(config.data, source=name)), 0, config.train.seed)
        size = config.train.batch_size
        source = make_source(part, batch_size=size, seed=config.train.seed, device=device, share=slice(0, size))
        epochs = -(-steps // source.steps_per_epoch)
        before_mib = 0.0
        for epoch in range(epochs):
            feed(source, config, device, epoch)
            if epoch == epochs // 10:
                before_mib = resident_mib()
        grown[name] = resident_mib() - before_mib
    return grown


def feed(source: FolderSource, config: Config, device: torch.device, epoch: int = 0) -> None:
    """An epoch of a source, every batch made into views; complete when it returns."""
    size = (config.data.image_size, config.data.image_size)
    for batch in source.batches(epoch):
        params = sample_view_params(config.train.seed, epoch, batch.indices, VIEWS, config.augment, size)
        make_views(batch.images, params, config.augment.backend)
    _finish(device)


def measure_folder(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """What `benchmarks.train --data folder` measures; prints its table."""
    with made_folder(config, options.folder_images) as config:
        measured: dict[str, Any] = {"feeding": measure_feeding(config, options.workers, options.turns)}
        if options.memory_steps:
            measured["memory_growth_mib"] = memory_growth_mib(config, options.memory_steps)
    data = config.data
    table = Table(
        title=f"files to views, {config.train.batch_size} of {data.image_size} px a batch, {options.workers} workers"
    )
    for column in ("", "images/s", "lowest", "highest", "times the usual loop"):
        table.add_column(column, justify="left" if not column else "right")
    for name, entry in measured["feeding"].items():
        rate, ratio = entry["images_per_s"], entry["ratio_to_conventional"]
        cells = [f"{rate[key]:,.0f}" for key in ("median", "lowest", "highest")]
        table.add_row(name, *cells, f"{ratio['median']:.2f} ({ratio['lowest']:.2f}..{ratio['highest']:.2f})")
    console.print(table)
    for name, grown in measured.get("memory_growth_mib", {}).items():
        console.print(f"memory over {options.memory_steps} steps, {name}: {grown:+.1f} MiB")
    return measured


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
