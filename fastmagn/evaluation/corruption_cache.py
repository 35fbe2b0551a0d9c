"""The -C sets that `eval.cache_dir` keeps, so that later evaluations of the same images read them."""

import dataclasses

from fastmagn import __version__
from fastmagn.config.schema import Config, EvalConfig
from fastmagn.data.files.decoding import resize_px
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import make_corrupted_set
from fastmagn.machine.console import console
from fastmagn.machine.processes import World


def use_cache(config: Config, world: World) -> EvalConfig:
    """The eval section of `config`, with `corrupted_dir` set to the -C set in `cache_dir`.

    Rank 0 makes a set that is absent, and the other processes wait for it. Without a `cache_dir`, or with a
    `corrupted_dir` already given, the section is returned unchanged.
    """
    section, data = config.eval, config.data
    if section.cache_dir is None or section.corrupted_dir is not None:
        return section
    is_folder = data.name == "folder"
    size = f"{data.image_size}" if is_folder else ""
    images = f"n{section.num_images}" if section.num_images else "all"
    name = f"{data.name}{size}-{section.corruption_set}-{images}-seed{section.corruption_seed}-fastmagn{__version__}"
    folder = section.cache_dir / name
    if world.rank == 0 and not folder.exists():
        wanted = CorruptConfig(
            out=folder,
            dataset=data.name,
            data_dir=data.dir,
            download=data.download,
            num_images=section.num_images,
            seed=section.corruption_seed,
            corruption_set=section.corruption_set,
            image_size=data.image_size if is_folder else None,
            resize_px=resize_px(data) if is_folder else 0,
        )
        make_corrupted_set(wanted, announce=console.print)
    world.gather(None)
    return dataclasses.replace(section, corrupted_dir=folder)
