"""`benchmarks.train --data folder`: measure how fast image files become AugMix views, here and in the usual loop.

The benchmark creates JPEGs of 500 x 375 px in a temporary folder. They are enlarged CIFAR-10 images, or digits if
`data.dir` does not hold CIFAR-10, with added grain. The contenders read them, epoch by epoch:

- `dali`, `torchvision`: our two sources, followed by our views (clean and two AugMix views), all in this process;
- `conventional`: a DataLoader whose worker processes decode with Pillow, crop with torchvision's RandomResizedCrop,
  flip, and make the same views with Pillow's AugMix.

No network runs: only the supply of views is timed. The contenders take turns, one epoch each, so a drift of the
machine's speed affects all of them; a ratio compares epochs of the same turn.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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
PHOTO_PX = (375, 500)  # height, width; a usual size in ImageNet
JPEG_QUALITY = 90
GRAIN = 6.0  # standard deviation in levels; with it, files are as large as photographs
NUM_CLASSES = 10
NUM_VALIDATION = 10


@contextmanager
def made_folder(config: Config, num_images: int) -> Iterator[Config]:
    """Yield the config with `data` set to a folder of `num_images` training images; remove the folder on exit."""
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
        # The usual loop crops photographs at random; it does not pad, jitter or rotate them.
        augment = dataclasses.replace(config.augment, crop_padding_px=0, color_jitter=0.0, rotation_deg=0.0)
        data = dataclasses.replace(config.data, name="folder", dir=Path(folder))
        yield dataclasses.replace(config, data=data, augment=augment)


def our_sources(config: Config, workers: int) -> dict[str, FolderSource]:
    """Our sources of the configuration's images, by decoder, each with `workers` threads."""
    sources, size = {}, config.train.batch_size
    for name in ("dali", "torchvision") if has_dali() else ("torchvision",):
        data = dataclasses.replace(config.data, source=name, num_workers=workers)
        part, _ = split_validation(load_data(data), 0, config.train.seed)
        sources[name] = make_source(
            part, batch_size=size, seed=config.train.seed, device=torch.device(config.device), share=slice(0, size)
        )
    return sources


def usual_loader(config: Config, workers: int) -> DataLoader:
    """The usual loop over the files that `made_folder` makes."""
    image_set, device = load_data(config.data), torch.device(config.device)
    return DataLoader(
        PillowFiles(image_set.train_images_u8, image_set.train_labels, config.augment, VIEWS.num_augmix_views),
        batch_size=config.train.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        multiprocessing_context="spawn",
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )


def measure_feeding(
    config: Config, sources: dict[str, FolderSource], loader: DataLoader | None, turns: int, base: str = "conventional"
) -> dict[str, Any]:
    """Measure the images/s of each contender and its ratio to one of them.

    Args:
        config: The configuration that `made_folder` yields.
        sources: Our sources, by name.
        loader: The usual loop, which is called `conventional`; None leaves it out.
        turns: Number of epochs of each.
        base: What the others are compared with.
    """
    device = torch.device(config.device)

    def usual_epoch(loader: DataLoader) -> int:
        count = 0
        for views, labels in loader:
            views.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            count += len(labels)
        _finish(device)
        return count

    def images_per_s(epoch: Callable[[], int]) -> float:
        counts: list[int] = []
        elapsed_s = seconds(lambda: counts.append(epoch()))
        return counts[0] / elapsed_s

    contenders: dict[str, Callable[[], int]] = {
        name: partial(feed, source, config, device) for name, source in sources.items()
    }
    if loader is not None:
        contenders["conventional"] = partial(usual_epoch, loader)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, epoch in contenders.items():
            rate = images_per_s(epoch)
            if turn > 0:  # the first turn compiles kernels and starts workers
                rates[name].append(rate)
    return {
        name: {
            "images_per_s": spread(values),
            f"ratio_to_{base}": spread([a / b for a, b in zip(values, rates[base], strict=True)]),
        }
        for name, values in rates.items()
    }


def memory_growth(config: Config, steps: int) -> dict[str, dict[str, float]]:
    """Measure how much the process's memory grows over `steps` batches, in MiB for each source.

    Allocators and decoders keep the most that they have needed, so that memory grows at first and then stays. A leak
    grows as much in the second half as in the first.

    Returns:
        `memory_growth_mib`, after the first tenth of the steps; and `memory_growth_second_half_mib` of it.
    """
    device = torch.device(config.device)
    grown: dict[str, dict[str, float]] = {"memory_growth_mib": {}, "memory_growth_second_half_mib": {}}
    for name in ("dali", "torchvision") if has_dali() else ("torchvision",):
        part, _ = split_validation(load_data(dataclasses.replace(config.data, source=name)), 0, config.train.seed)
        size = config.train.batch_size
        source = make_source(part, batch_size=size, seed=config.train.seed, device=device, share=slice(0, size))
        after_mib = []
        for epoch in range(-(-steps // source.steps_per_epoch)):
            feed(source, config, device, epoch)
            after_mib.append(resident_mib())
        first, middle = len(after_mib) // 10, (len(after_mib) - 1) // 2
        grown["memory_growth_mib"][name] = after_mib[-1] - after_mib[first]
        grown["memory_growth_second_half_mib"][name] = after_mib[-1] - after_mib[middle]
    return grown


def feed(source: FolderSource, config: Config, device: torch.device, epoch: int = 0) -> int:
    """Make views of every batch of one epoch, and wait until they are complete; returns the number of images."""
    size = (config.data.image_size, config.data.image_size)
    for batch in source.batches(epoch):
        params = sample_view_params(config.train.seed, epoch, batch.indices, VIEWS, config.augment, size)
        make_views(batch.images, params, config.augment.backend)
    _finish(device)
    return source.steps_per_epoch * source.batch_size


def measure_folder(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what `benchmarks.train --data folder` reports, and print its table."""
    with made_folder(config, options.folder_images) as config:
        sources, loader = our_sources(config, options.workers), usual_loader(config, options.workers)
        measured: dict[str, Any] = {"feeding": measure_feeding(config, sources, loader, options.turns)}
        if options.memory_steps:
            measured |= memory_growth(config, options.memory_steps)
    print_feeding(config, options, measured, "files", "conventional", "times the usual loop")
    return measured


def print_feeding(
    config: Config, options: argparse.Namespace, measured: dict[str, Any], what: str, base: str, ratio_title: str
) -> None:
    """Print the table of what `measure_feeding` measured with `base`, and the growth of memory."""
    size, side = config.train.batch_size, config.data.image_size
    table = Table(title=f"{what} to views, batches of {size} at {side} px, {options.workers} workers")
    for column in ("", "images/s", "lowest", "highest", ratio_title):
        table.add_column(column, justify="left" if not column else "right")
    for name, entry in measured["feeding"].items():
        rate, ratio = entry["images_per_s"], entry[f"ratio_to_{base}"]
        cells = [f"{rate[key]:,.0f}" for key in ("median", "lowest", "highest")]
        table.add_row(name, *cells, f"{ratio['median']:.2f} ({ratio['lowest']:.2f}..{ratio['highest']:.2f})")
    console.print(table)
    for name, grown in measured.get("memory_growth_mib", {}).items():
        later = measured["memory_growth_second_half_mib"][name]
        steps = f"over {options.memory_steps} steps, {name}: {grown:+.1f} MiB"
        console.print(f"memory growth {steps}, {later:+.1f} MiB of it in the second half")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
