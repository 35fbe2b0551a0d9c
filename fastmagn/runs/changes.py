"""Which fields of its configuration a run that began may change, and what then has to be trained or measured again."""

import math
from typing import Any

from fastmagn.augment.engines import EXACT_BACKENDS
from fastmagn.config.augment_schema import POLICY_NAMES
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten

# These fields say where a run is trained and lies. They do not change its results.
PLACE_FIELDS = frozenset({"run_dir", "resume", "device", "data.dir", "data.download", "eval.cache_dir"})
# These say what a run keeps and sends. They change neither its results nor the speed of its steps.
KEPT_FIELDS = frozenset({"imports", "train.checkpoint_every_steps", "train.keep_checkpoints", "train.wandb_project"})
# These say how the steps are computed.
_WAYS_TO_TRAIN = frozenset(
    {"data.source", "data.num_workers", "train.profile"}
    | {"train.compile", "train.compile_mode", "train.deterministic"}
)
# None of them decides the weights; nor does `augment.backend` among exact engines, see `views_of`.
NO_WEIGHTS = PLACE_FIELDS | KEPT_FIELDS | _WAYS_TO_TRAIN
# These say which model is measured on the held-out images after each epoch.
VALIDATION_FIELDS = ("eval.weights", "eval.test_time_flip", "eval.rse_draws")


def views_of(backend: Any) -> Any:
    """What stands for an engine's views: `auto` for all exact engines, which make the same ones; else its name."""
    return "auto" if backend in EXACT_BACKENDS else backend


def has_same_weights(name: str, before: Any, value: Any) -> bool:
    """Whether a run has the same weights with another value of this field."""
    return name in NO_WEIGHTS or (name == "augment.backend" and views_of(before) == views_of(value))


def may_change(name: str, before: Any, value: Any) -> bool:
    """Whether a resumed run may change this field: it has no influence on the weights, or is checked otherwise."""
    if name == "augment.policy":  # of files the content counts, see `runs.checkpoint.check_same_recipe`
        return before not in POLICY_NAMES and value not in POLICY_NAMES
    if name == "augment.backend":  # see `runs.checkpoint.check_engine`
        return True
    return name.startswith("eval.") or name in {"data.test_shards", "train.max_steps"} | NO_WEIGHTS


def other_fields(config: Config, recorded: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields that make a run's recorded configuration, nested or flat, another one: both their values."""
    measured = flatten(Config()) | flatten(recorded)  # a field may be newer than the record
    return {
        name: (measured[name], value)
        for name, value in flatten(config).items()
        # A run replaces auto by what it means there, but for the engine.
        if name not in PLACE_FIELDS
        and (value not in (measured[name], "auto") or not _has_same_engine(name, measured[name], value))
    }


def _has_same_engine(name: str, before: Any, value: Any) -> bool:
    return name != "augment.backend" or views_of(before) == views_of(value)


def recipe_fields(config: Config, recorded: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Those of `other_fields` with which the recorded run has other weights."""
    return {
        name: (there, here)
        for name, (there, here) in other_fields(config, recorded).items()
        if not _has_same_engine(name, there, here) or (there != "auto" and not may_change(name, there, here))
    }


def result_fields(config: Config, recorded: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Those of `other_fields` for which the recorded results do not hold: the run has more to train or to measure."""
    return {
        name: (there, here)
        for name, (there, here) in other_fields(config, recorded).items()
        if not (keeps_results(name, flatten(config)) or has_same_weights(name, there, here))
    }


def keeps_results(name: str, fields: dict[str, Any]) -> bool:
    """Whether another value of this field leaves the results and the speed of training of a flat config as they are.

    The size of a test batch does so, unless the network adapts to each batch.
    """
    is_harmless = name == "eval.batch_size" and fields["eval.batch_norm"] != "adapt"
    return is_harmless or name in PLACE_FIELDS | KEPT_FIELDS


def may_change_in_sweep(name: str, before: Any, value: Any) -> bool:
    """Whether all trials of a sweep that began may change this field: those that are finished can follow."""
    if name == "train.max_steps":  # trained steps cannot be taken back; 0 means no limit
        return isinstance(before, int) and (value or math.inf) >= (before or math.inf)
    return may_change(name, before, value) and _has_same_engine(name, before, value)
