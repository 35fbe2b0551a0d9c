"""The configuration with which a finished run is measured again: the run's own, but for what may differ then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmagn.config.command_line import as_file
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import InputError
from fastmagn.runs.changes import has_same_weights
from fastmagn.runs.reading import read_config

_OF_THE_TRAINING = ("data.num_validation_images", "data.min_crop_area")
_MEASURING = ("eval.", "data.")  # sections


def read_config_to_measure(run_dir: Path, overrides: Sequence[str]) -> tuple[Config, Config]:
    """The configuration of a run, and that with which it is measured again, here: `device` is auto unless it is given.

    Args:
        run_dir: The run folder.
        overrides: Command-line arguments, which take the place of the run's own fields.

    Raises:
        InputError: It is not a run folder, or its configuration cannot be read; or an argument would change what the
            run was trained with.
    """
    # First: it runs the code that --import names.
    config = read_config(run_dir, [*as_file({"device": "auto"}), *overrides])
    trained = read_config(run_dir)
    before = flatten(trained)
    for name, value in flatten(config).items():
        if value != before[name] and not _may_differ(name, before[name], value):
            raise InputError(
                f"{name}: got {value!r}; expected {before[name]!r}, with which {run_dir} was trained. Leave it out; to"
                " train otherwise, use fastmagn.train and another --run_dir."
            )
    return trained, config


def _may_differ(name: str, before: Any, value: Any) -> bool:
    """Whether the field says what is measured, or how this machine does it, and not how the weights were made."""
    is_of_machine = has_same_weights(name, before, value) or name == "train.amp"
    return is_of_machine or (name.startswith(_MEASURING) and name not in _OF_THE_TRAINING)
