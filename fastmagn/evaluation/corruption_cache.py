"""The -C sets that `eval.cache_dir` keeps, so that later evaluations of the same images read them."""

import dataclasses
import glob
import hashlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastmagn import __version__
from fastmagn.config import own_code
from fastmagn.config.corruption_sets import ALL_SEVERITIES, set_parts
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig
from fastmagn.corruptions import CORRUPTIONS, available_corruptions, corrupted_as
from fastmagn.corruptions.sets import set_members
from fastmagn.data import ENCODED
from fastmagn.data.corrupted.npy import MANIFEST, read_manifest
from fastmagn.data.files.decoding import resize_px
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import NotStored, SourceImages, choose_images, make_corrupted_set
from fastmagn.evaluation.subset import subset_of
from fastmagn.machine.console import console, warn
from fastmagn.machine.processes import World
from fastmagn.machine.waiting_lock import waiting_lock
from fastmagn.registry import is_own


def use_cache(config: Config, world: World, image_set: ImageSet, make: bool = True) -> EvalConfig:
    """The eval section of `config`, with `corrupted_dir` set to the -C set in `cache_dir`.

    The set's name has a digest of the test images, so that other images of the same number and size get a set of their
    own. Where it is missing, a set of the same images that holds all of its corruptions takes its place. If there is
    none, rank 0 makes the set, and the other processes wait for it. So do other runs: the first one makes the set.
    Without a `cache_dir`, or with a `corrupted_dir` already given, the section is returned unchanged. So it is, with a
    warning, where a corruption of a missing set cannot be made: it is left out of the measurement, not of the set. And
    so it is where the disk has no room for a missing set, or this user may not read it or make it: a training must not
    have been in vain. And so it is for a missing set if `severities` are not all five, as the set's would be.

    Args:
        config: The configuration of the evaluation.
        world: torchrun's processes.
        image_set: The images that will be measured.
        make: Whether a missing set is made, and a warning says so if there is none to use.
    """
    section, data = config.eval, config.data
    if section.cache_dir is None or section.corrupted_dir is not None:
        return section
    size = f"{data.image_size}" if data.name in ENCODED else ""
    images = f"n{section.num_images}" if section.num_images else "all"
    settings = f"-{images}-seed{section.corruption_seed}"
    settings += _content(image_set.test_images_u8.shape, section.corruption_jpeg)
    if any(is_own(CORRUPTIONS, name) for name in set_parts("eval.corruption_set", section.corruption_set)):
        settings += f"-code{own_code.digest()}"
    digest = world.gather(world.together(lambda: _digest(config, image_set) if world.rank == 0 else ""))[0]
    name = _SetName(f"{data.name.replace(':', '-')}{size}-{digest}-", f"{settings}-fastmagn{__version__}")
    found = world.together(lambda: _find_or_make(name, config, image_set, make) if world.rank == 0 else None)
    folder, reason = world.gather(found)[0]
    if folder is None:
        if make:
            warn(f"eval.cache_dir: not used, as {reason}")
        return section
    return dataclasses.replace(section, corrupted_dir=folder)


class _SetName(NamedTuple):
    """The name of a set without its corruptions, which stand between the parts."""

    head: str
    tail: str


def _find_or_make(name: _SetName, config: Config, image_set: ImageSet, make: bool) -> tuple[Path | None, str]:
    """The set to use, which is made, if wanted, where no set is there; None, and why, if there is none to use."""
    section = config.eval
    cache_dir = section.cache_dir or Path()
    folder = cache_dir / f"{name.head}{section.corruption_set}{name.tail}"
    members = set_members(section.corruption_set, *image_set.test_images_u8.shape[1:3])
    try:
        if _is_there(folder):
            return folder, ""
        whole = _larger_set(cache_dir, name, members)
        if whole is not None:
            return whole, ""
        if not make:
            return None, "no set is there."
        if section.severities != ALL_SEVERITIES:
            return None, f"{cache_dir} holds no such set, and none is made for some severities only."
        unavailable = sorted(set(members) - set(available_corruptions()))
        if unavailable:
            return None, f"{', '.join(unavailable)} cannot be made here, and no set is there."
        _make_once(*_wanted(folder, config, image_set))
    except NotStored as error:
        return None, f"{error.reason}. Make it usable, or name another folder, for later evaluations."
    return folder, ""


def _larger_set(cache_dir: Path, name: _SetName, members: Collection[str]) -> Path | None:
    """A set of the same images that holds these corruptions and more; None if there is none that can be read."""
    for folder in sorted(cache_dir.glob(f"{glob.escape(name.head)}*{glob.escape(name.tail)}")):
        with suppress(InputError, OSError):
            if set(members) <= set(read_manifest(folder)["corruptions"]):
                return folder
    return None


def _wanted(folder: Path, config: Config, image_set: ImageSet) -> tuple[CorruptConfig, SourceImages]:
    """What the set `folder` is made of, and how."""
    section, data = config.eval, config.data
    is_encoded = data.name in ENCODED
    source = choose_images(
        *(image_set.test_images_u8, image_set.test_labels, image_set.class_names),
        subset_of(data.name, section.corruption_seed),
        section.num_images,
    )
    wanted = CorruptConfig(
        out=folder,
        dataset=data.name,
        data_dir=data.dir,
        num_images=section.num_images,
        seed=section.corruption_seed,
        jpeg=section.corruption_jpeg,
        corruption_set=section.corruption_set,
        image_size=data.image_size if is_encoded else None,
        resize_px=data.eval_resize_px if is_encoded else 0,
    )
    return wanted, source


def _make_once(wanted: CorruptConfig, source: SourceImages) -> None:
    """Make the set, unless another run does; then wait for it."""
    folder = wanted.out

    def tell() -> None:
        console.print(f"waiting for another run that is making {folder}", soft_wrap=True)

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotStored(f"{folder.parent} cannot be made ({error.strerror})", "; name another --out.") from error
    with waiting_lock(folder.with_name(f".{folder.name}.cache-lock"), tell):
        if _is_there(folder):
            return
        try:
            make_corrupted_set(wanted, console.print, source)
        except InputError:
            if not _is_there(folder):  # where files cannot be locked, another run may have been faster
                raise


def _is_there(folder: Path) -> bool:
    """Whether the set is there.

    Raises:
        NotStored: Something is, and cannot be read, such as the set of another user.
    """
    try:
        (folder / MANIFEST).open("rb").close()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise NotStored(f"{folder} cannot be read ({error.strerror})", "; name another --out.") from error
    return True


def _content(shape: tuple[int, ...], jpeg: bool) -> str:
    """The part of a set's name that says how its images were corrupted; empty for version 1, whose sets have none."""
    made = corrupted_as(shape, jpeg)
    if made["version"] == 1:
        return ""
    return f"-version{made['version']}" + (f"-jpeg{made['jpeg_quality']}" if made["jpeg_quality"] else "")


def _digest(config: Config, image_set: ImageSet) -> str:
    """16 hex digits that tell the test images, their labels and how they are cut out from others."""
    images_u8: Any = image_set.test_images_u8
    data = config.data if config.data.name in ENCODED else DataConfig()  # others are not cut out
    digest = hashlib.sha256(repr((images_u8.shape, image_set.class_names)).encode())
    if isinstance(images_u8, np.ndarray):
        digest.update(images_u8)
    else:
        digest.update(f"{images_u8.fingerprint} {data.image_size} {resize_px(data)}".encode())
    digest.update(image_set.test_labels)
    return digest.hexdigest()[:16]
