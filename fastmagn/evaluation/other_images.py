"""Images of some of a run's classes from elsewhere, such as ImageNet-A and ImageNet-R: DIR/CLASS/IMAGE.

The published evaluations of those two (D. Hendrycks et al., "Natural adversarial examples", CVPR 2021, and "The many
faces of robustness", ICCV 2021) look only at the logits of the set's own 200 classes: `own_classes` here. Among all
classes of the run, `all_classes`, is what a deployed network would answer.
"""

import csv
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastmagn.config.plain_yaml import load_plain_yaml
from fastmagn.config.schema import EvalConfig
from fastmagn.data.files.listing import class_folders, image_names
from fastmagn.data.files.on_demand import LazyImages
from fastmagn.errors import InputError
from fastmagn.evaluation.metrics.calibration import rms_calibration_error
from fastmagn.evaluation.metrics.predictions import Predictions, measure_logits
from fastmagn.machine.console import console

MAX_MAPPING_BYTES = 1 << 24
_SHOWN = 3


class OtherImages(NamedTuple):
    """Images of a folder, none read yet, and their labels in the run's classes, int64 [M]."""

    images: LazyImages
    labels: np.ndarray


class Measured(NamedTuple):
    """Predictions among all classes of the run, and among those that the folder has."""

    all_classes: Predictions
    own_classes: Predictions


def find_images(
    folder: Path, class_names: Sequence[str], mapping: Mapping[str, str], *, image_size: int, resize_px: int
) -> OtherImages:
    """The images of each class folder, by folder and file name.

    Args:
        folder: Holds CLASS/IMAGE.
        class_names: The run's; label k is class_names[k].
        mapping: Name of a folder -> name of the run's class; a folder without an entry is of the class of its name. Two
            folders may be of one class.
        image_size: Side of the square that the network sees, px.
        resize_px: The shorter side before the centre is cut out, px.

    Raises:
        InputError: No folder, no class folders, one that is of none of the run's classes or holds no image.
    """
    numbers = {name: label for label, name in enumerate(class_names)}
    names = class_folders(folder)
    unknown = [name for name in names if mapping.get(name, name) not in numbers]
    if unknown:
        nearest = difflib.get_close_matches(mapping.get(unknown[0], unknown[0]), class_names, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise InputError(
            f"{folder}: {len(unknown)} of {len(names)} class folders are none of the run's {len(class_names)} classes:"
            f" {_some(unknown)}; expected names such as {_some(class_names)}. Say which class a folder is of by"
            f" --classes FILE.{hint}"
        )
    files = {name: image_names(folder / name) for name in names}
    empty = [name for name in names if not files[name]]
    if empty:
        raise InputError(f"{folder}: {len(empty)} class folders hold no image: {_some(empty)}. Remove them.")
    labels = [numbers[mapping.get(name, name)] for name in names]
    paths = [folder / name / file for name in names for file in files[name]]
    counts = [len(files[name]) for name in names]
    return OtherImages(LazyImages(paths, image_size, resize_px), np.repeat(np.array(labels, np.int64), counts))


def read_mapping(path: Path) -> dict[str, str]:
    """Name of a folder -> name of a class, from a JSON object, a YAML mapping, or a CSV file of two columns.

    A CSV file may start with a line of headings, `folder,class`.

    Raises:
        InputError: The file is missing, too large, of another kind, damaged, or holds anything but names.
    """
    readers = {
        ".json": lambda file: json.loads(_text(file)),
        **dict.fromkeys((".yaml", ".yml"), lambda file: load_plain_yaml(file, MAX_MAPPING_BYTES)),
        ".csv": lambda file: _read_csv(_text(file)),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"classes: got {path}; expected a file named *{', *'.join(readers)}.")
    try:
        if path.stat().st_size > MAX_MAPPING_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes; expected at most {MAX_MAPPING_BYTES}.")
        mapping = readers[path.suffix.lower()](path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected names of folders and classes."
        ) from error
    except InputError:
        raise
    except (ValueError, csv.Error, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as {path.suffix[1:].upper()} ({reason}).") from error
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: holds a {type(mapping).__name__}; expected the name of a class for each folder's.")
    for folder, name in mapping.items():
        if not _is_name(folder) or not _is_name(name):
            raise InputError(f"{path}: got {folder!r}: {name!r}; expected the name of a folder: the name of a class.")
    return {str(folder): str(name) for folder, name in mapping.items()}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int  # YAML reads 7 as a number, and True is one too


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _read_csv(text: str) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), strict=True), start=1):
        cells = [cell.strip() for cell in row]
        if cells in ([], ["folder", "class"]):
            continue
        if len(cells) != 2:
            raise ValueError(f"line {number} has {len(cells)} columns, not 2")
        if cells[0] in mapping:
            raise ValueError(f"line {number} names folder {cells[0]!r} again")
        mapping[cells[0]] = cells[1]
    return mapping


def measure_images(logits: Tensor, labels: np.ndarray, own_labels: np.ndarray) -> Measured:
    """Each prediction, measured twice.

    Args:
        logits: float32 [M, K].
        labels: int64 [M].
        own_labels: The labels of the folder's classes, int64, sorted.
    """
    own = torch.from_numpy(own_labels).to(logits.device)
    among_own = torch.from_numpy(np.searchsorted(own_labels, labels)).to(logits.device)
    labels_here = torch.from_numpy(labels).to(logits.device)
    return Measured(measure_logits(logits, labels_here), measure_logits(logits[:, own], among_own))


def summarise_images(measured: Measured, num_classes: int, num_unreadable: int, config: EvalConfig) -> dict[str, Any]:
    """Accuracy and RMS calibration error among the folder's own classes and among all, as fractions in 0..1.

    Raises:
        InputError: No image is left.
    """
    if measured.own_classes.correct.size == 0:
        raise InputError(f"images: none of the {num_unreadable} files can be read; expected some that can.")
    bins = {"num_bins": config.num_bins, "binning": config.binning}
    return {
        "num_images": measured.own_classes.correct.size,
        "num_unreadable": num_unreadable,
        "num_classes": num_classes,
        **{
            name: {
                "accuracy": float(predictions.correct.mean()),
                "rms_calibration_error": rms_calibration_error(predictions.confidences, predictions.correct, **bins),
            }
            for name, predictions in measured._asdict().items()
        },
        **bins,
    }


def with_image_folders(results_file: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """What a results file holds, if it is there, with these entries added under `image_folders`."""
    try:
        results = json.loads(results_file.read_bytes())
    except (OSError, ValueError, RecursionError):
        results = {}
    results = results if isinstance(results, dict) else {}
    earlier = results.get("image_folders")
    return results | {"image_folders": (earlier if isinstance(earlier, dict) else {}) | entries}


def print_images(folder: str, entry: Mapping[str, Any], num_all_classes: int) -> None:
    """What `summarise_images` says of a folder, in per cent."""
    if entry["num_unreadable"]:
        console.print(f"warning: {entry['num_unreadable']} images left out: their files cannot be read.")
    console.print(f"{folder}: {entry['num_images']} images of {entry['num_classes']} classes", soft_wrap=True)
    for name, which in (
        ("own_classes", f"among these {entry['num_classes']} classes (as ImageNet-A and -R are published)"),
        ("all_classes", f"among all {num_all_classes} classes"),
    ):
        accuracy, rms = entry[name]["accuracy"], entry[name]["rms_calibration_error"]
        console.print(
            f"accuracy {which} {100 * accuracy:.2f} %, RMS calibration error {100 * rms:.2f} %", soft_wrap=True
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
