"""`benchmarks.train --data webdataset`: measure how fast tar shards become AugMix views, beside a folder of the files.

The JPEGs are those of `--data folder`, in shards. The contenders take turns, one epoch each:

- `dali`, `torchvision`: our two decoders, from the shards;
- `folder_dali`, `folder_torchvision`: the same from the folder;
- `conventional`, where the package webdataset is installed: its usual loop (shards in turn, a shuffle buffer of 1,000
  images, Pillow in the worker processes of a DataLoader) with the same crops and Pillow's AugMix.
"""

import argparse
import dataclasses
import tarfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.conventional import augmix_views
from benchmarks.folder import VIEWS, made_folder, measure_feeding, memory_growth, our_sources, print_feeding
from fastmagn.config.schema import AugmentConfig, Config

NUM_SHARDS = 8
_BUFFER = 1000  # images, as in most webdataset loops


class PillowSample:
    """A sample of a shard as views float32 [1 + J, 3, S, S] and label; picklable, for worker processes."""

    def __init__(self, config: Config) -> None:
        crop = v2.RandomResizedCrop(config.data.image_size, (config.data.min_crop_area, 1.0), antialias=True)
        self.base = v2.Compose([crop, v2.RandomHorizontalFlip()] if config.augment.horizontal_flip else [crop])
        self.augment: AugmentConfig = config.augment

    def __call__(self, pair: tuple[Any, int]) -> tuple[Tensor, int]:
        image, label = pair
        return augmix_views(np.array(self.base(image)), VIEWS, self.augment), label


def make_shards(folder: Path, out: Path) -> None:
    """Tar shards of train and val of a folder, its images dealt to the shards in turn."""
    for part in ("train", "val"):
        files = sorted((folder / part).glob("*/*.jpg"))
        for number in range(NUM_SHARDS if part == "train" else 1):
            with tarfile.open(out / f"{part}-{number:03}.tar", "w") as archive:
                for file in files[number :: NUM_SHARDS if part == "train" else 1]:
                    label = out / "label"
                    label.write_text(file.parent.name)
                    archive.add(file, f"{file.stem}.jpg")
                    archive.add(label, f"{file.stem}.cls")


def webdataset_loader(config: Config, workers: int) -> DataLoader | None:
    """The usual loop of the package webdataset; None if it is not installed."""
    if find_spec("webdataset") is None:
        return None
    import webdataset

    shards = sorted(map(str, config.data.dir.glob("train-*.tar")))
    samples = webdataset.WebDataset(shards, shardshuffle=len(shards), nodesplitter=None)
    views = samples.shuffle(_BUFFER).decode("pilrgb").to_tuple("jpg", "cls").map(PillowSample(config))
    return DataLoader(
        views,
        batch_size=config.train.batch_size,
        num_workers=workers,
        multiprocessing_context="spawn",
        persistent_workers=True,
    )


def measure_shards(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what `benchmarks.train --data webdataset` reports, and print its table."""
    with made_folder(config, options.folder_images) as on_files, TemporaryDirectory() as folder:
        make_shards(on_files.data.dir, Path(folder))
        data = dataclasses.replace(on_files.data, name="webdataset", dir=Path(folder))
        config = dataclasses.replace(on_files, data=data)
        files = {f"folder_{name}": source for name, source in our_sources(on_files, options.workers).items()}
        sources = our_sources(config, options.workers)
        base = f"folder_{next(iter(sources))}"
        loader = webdataset_loader(config, options.workers)
        measured: dict[str, Any] = {"feeding": measure_feeding(config, sources | files, loader, options.turns, base)}
        if options.memory_steps:
            measured |= memory_growth(config, options.memory_steps)
    print_feeding(config, options, measured, "shards", base, f"times {base}")
    return measured
