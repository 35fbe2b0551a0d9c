"""Fields of a run that differ from their defaults and change nothing in it."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from fastmagn.augment.policies.recipe import patch_strengths, policy_file
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.methods.method import AUGMIX_FIELDS
from fastmagn.methods.table import METHODS, base_name, get_method
from fastmagn.registry import is_own

_SECTIONS = ("mixing.", "prime.", "spectra.", "afa.", "noisymix.", "attack.", "loss.")
_BESIDE_SECTIONS = AUGMIX_FIELDS | {
    "augment.num_noise_samples",
    "augment.sigma_max",
    "augment.rse_sigma",
    "eval.rse_draws",
}
_READ_BY_METHODS = ("augment.", *_SECTIONS)
_SHARDED = ("webdataset", "hf")
_OF_FILES = frozenset(f"data.{name}" for name in ("image_size", "eval_resize_px", "min_crop_area", "source"))


class _Need(NamedTuple):
    """Fields that have an effect only where `is_met`; `text` says when that is."""

    fields: tuple[str, ...]
    text: str
    is_met: Callable[[Config], bool]


_NEEDS = (
    _Need(
        ("data.train_shards", "data.test_shards", "data.label_column"),
        "data.name webdataset or hf",
        lambda c: c.data.name in _SHARDED,
    ),
    _Need(
        ("data.dir",),
        "a data.name with files, such as folder, or eval.ood",
        lambda c: c.data.name != "digits" or c.eval.ood is not None,
    ),
    _Need(("data.image_column",), "data.name hf", lambda c: c.data.name == "hf"),
    _Need(("train.compile_mode",), "train.compile", lambda c: c.train.compile is not False),
    _Need(("optim.step_at", "optim.step_factor"), "optim.schedule step", lambda c: c.optim.schedule == "step"),
    _Need(
        ("optim.step_epochs",),
        "optim.schedule step, and no optim.step_at",
        lambda c: c.optim.schedule == "step" and c.optim.step_at is None,
    ),
    _Need(
        ("optim.restart_epochs", "optim.restart_factor"),
        "optim.schedule cosine_restarts",
        lambda c: c.optim.schedule == "cosine_restarts",
    ),
    _Need(("optim.swa_lr_ratio",), "train.swa_fraction", lambda c: c.train.swa_fraction > 0),
    _Need(("optim.filter_lr_ratio",), "optim.name muon", lambda c: c.optim.name == "muon"),
    _Need(("optim.momentum",), "optim.name sgd or muon", lambda c: c.optim.name != "adamw"),
    _Need(("optim.beta1", "optim.beta2"), "optim.name adamw", lambda c: c.optim.name == "adamw"),
    _Need(
        ("augment.policy_interpolation",),
        "a policy by name in augment.policy",
        lambda c: c.augment.policy != "none" and policy_file(c.augment) is None,
    ),
    _Need(
        ("augment.randaugment_num_ops", "augment.randaugment_magnitude"),
        "augment.policy randaugment",
        lambda c: c.augment.policy == "randaugment",
    ),
    _Need(
        ("augment.erase_fill", "augment.erase_square_px"),
        "augment.erase_probability",
        lambda c: c.augment.erase_probability > 0,
    ),
    _Need(
        ("augment.erase_min_area", "augment.erase_max_area"),
        "augment.erase_probability, and no augment.erase_square_px",
        lambda c: c.augment.erase_probability > 0 and c.augment.erase_square_px == 0,
    ),
    _Need(
        tuple(f"augment.patch_{name}" for name in ("min_area", "max_area", "max_left_out", "clip")),
        "the strength of a noise, such as augment.patch_gaussian, and augment.patch_probability",
        lambda c: bool(patch_strengths(c.augment)),
    ),
    _Need(("spectra.pair_probability",), "spectra.variant p or ps", lambda c: "p" in c.spectra.variant),
    _Need(("spectra.single_probability",), "spectra.variant s or ps", lambda c: "s" in c.spectra.variant),
    _Need(("eval.cache_dir",), "no eval.corrupted_dir", lambda c: c.eval.corrupted_dir is None),
    _Need(("eval.fourier_images", "eval.fourier_norm"), "eval.fourier", lambda c: c.eval.fourier),
)


def without_effect(config: Config, *, decodes_files: bool) -> list[str]:
    """What differs from its default and does nothing without another field, in words: one text for each such field.

    A method of the user's own may read every field of the views and of methods, so that none of them counts.

    Args:
        config: The run's, as the user gave it: `auto` is not settled.
        decodes_files: Whether its training images are decoded from files.
    """
    method, changed = get_method(config.method), _changed(config)
    changed = {field: value for field, value in changed.items() if field in method.fields_read() or not _of_some(field)}
    reasons = {} if decodes_files else {"image files": [field for field in changed if field in _OF_FILES]}
    reasons |= _unmet(config, changed)
    return [f"{_listed(fields, changed)} (needs {what})" for what, fields in reasons.items() if fields]


def in_effect(config: Config) -> dict[str, Any]:
    """The fields that differ from their defaults and have an effect in a run. Runs that are alike in them are equal.

    Whether the images are decoded from files is not asked: fields of files count.
    """
    method = get_method(config.method)
    changed = _changed(dataclasses.replace(config, augment=method.settled(config.augment)))
    idle = {field for fields in _unmet(config, changed).values() for field in fields}
    if not is_own(METHODS, base_name(config.method)):
        idle |= {field for field in changed if _of_some(field) and field not in method.fields_read()}
    return {field: value for field, value in changed.items() if field not in idle}


def _unmet(config: Config, changed: Collection[str]) -> dict[str, list[str]]:
    """What is not there -> the changed fields that need it."""
    is_of_user = is_own(METHODS, base_name(config.method))
    counted = [field for field in changed if not (is_of_user and field.startswith(_READ_BY_METHODS))]
    settled = dataclasses.replace(config, augment=get_method(config.method).settled(config.augment))
    return {need.text: [f for f in need.fields if f in counted] for need in _NEEDS if not need.is_met(settled)}


def unread(config: Config, given: Collection[str]) -> str:
    """The fields among `given` that differ from their defaults and that only other methods read, with their values.

    Files give one recipe to several methods: `given` are the fields that the command line names.
    """
    if is_own(METHODS, base_name(config.method)):
        return ""
    changed, read = _changed(config), get_method(config.method).fields_read()
    return _listed([field for field in changed if field in given and _of_some(field) and field not in read], changed)


def _of_some(field: str) -> bool:
    """Whether only some methods read the field."""
    return field != "loss.label_smoothing" and (field.startswith(_SECTIONS) or field in _BESIDE_SECTIONS)


def _changed(config: Config) -> dict[str, Any]:
    defaults = flatten(Config())
    return {field: value for field, value in flatten(config).items() if value != defaults[field]}


def _listed(fields: list[str], values: dict[str, Any]) -> str:
    return ", ".join(f"{field} {values[field]}" for field in fields)
