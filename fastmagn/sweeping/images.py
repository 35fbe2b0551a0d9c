"""Whether a run folder is of the images of a configuration, where `data.dir` is the data set: one of the user's own.

Of a published set, `data.dir` is only the place. Paths differ also where a data set was moved, so the fingerprints of
the images decide.
"""

import functools
import os
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from fastmagn.config.schema import Config, DataConfig
from fastmagn.config.text import flatten
from fastmagn.data import DATASETS, OWN, load_data
from fastmagn.data.present import check_present
from fastmagn.errors import InputError
from fastmagn.registry import is_own
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import last_checkpoint


class Fingerprints(NamedTuple):
    """Of an image set. `train` has a second one if an earlier version knew the training images by another."""

    train: tuple[str, ...]
    test: str


def of_user(data: DataConfig) -> bool:
    """Whether the data set is one of the user's own: a layout, or a function."""
    return data.name in OWN or is_own(DATASETS, data.name)


def is_elsewhere(config: Config, recorded: dict[str, Any]) -> bool:
    """Whether `data.dir` of a data set of the user's own names another place than a recorded configuration."""
    return of_user(config.data) and os.path.realpath(_place(recorded)) != os.path.realpath(config.data.dir)


@functools.cache
def fingerprints(data: DataConfig) -> Fingerprints:
    """The fingerprints of an image set, which is read once.

    Raises:
        InputError: It cannot be.
    """
    check_present(data)
    image_set = load_data(data)
    train = (image_set.fingerprint, image_set.former_fingerprint)
    return Fingerprints(tuple(one for one in train if one is not None), image_set.test_fingerprint)


def has_results_of(config: Config, results: dict[str, Any]) -> bool:
    """Whether the results in a run folder are of the configuration's images, as far as the folder tells.

    Raises:
        InputError: The images cannot be read.
    """
    if not is_elsewhere(config, results["config"]):
        return True
    alike = (_same_training(config), _same_test(config, results))
    return True in alike and False not in alike


def check_images(config: Config, recorded: dict[str, Any], results: dict[str, Any] | None, option: str) -> None:
    """Check that a run folder, which is to be trained in, is not of other training images than the configuration's.

    Args:
        config: The run.
        recorded: The configuration, nested, that its folder holds.
        results: What its results.json holds; None without one.
        option: The option that names the folder of all runs, without its dashes.

    Raises:
        InputError: It is; or it has results, but no checkpoint, and nothing tells that they are of these images; or
            the images cannot be read.
    """
    if not is_elsewhere(config, recorded):
        return
    same = _same_training(config)
    if same or (same is None and (results is None or _same_test(config, results))):
        return
    what = "has a run of" if same is False else "has results, and no checkpoint, of what may be"
    raise InputError(
        f"{config.run_folder}: {what} other images: data.dir is {_place(recorded)} there and {config.data.dir} here."
        f" Give the --data.dir that has its images, or name another --{option}."
    )


def _same_training(config: Config) -> bool | None:
    """Whether the checkpoint in the run folder is of the configuration's images; None without one that can be read."""
    known = fingerprints(config.data).train
    path = last_checkpoint(config.run_folder)
    if path.exists():
        with suppress(InputError):  # the run itself goes back to the checkpoint before a damaged one
            return read_checkpoint(path, torch.device("cpu"))["data_fingerprint"] in known
    return None


def _same_test(config: Config, results: dict[str, Any]) -> bool | None:
    """Whether results are of the configuration's test images; None for older ones, which do not say."""
    before = results.get("test_fingerprint")
    return None if before is None else before == fingerprints(config.data).test


def _place(recorded: dict[str, Any]) -> str:
    return str((flatten(Config()) | flatten(recorded))["data.dir"])  # a hand-written one may lack it
