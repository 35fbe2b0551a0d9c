"""Images of some of a model's classes from elsewhere, such as ImageNet-A and ImageNet-R: DIR/CLASS/IMAGE.

`own_classes` compares only the logits of the folder's own classes, 200 for these two sets. That is how they are
evaluated where they were published (D. Hendrycks et al., "Natural adversarial examples", CVPR 2021, and "The many faces
of robustness", ICCV 2021). `all_classes` compares the logits of all classes of the model, as a deployed network would.
Shape letters: M images, K classes of the model.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.data.files.listing import list_classes
from fastmagn.data.files.on_demand import LazyImages
from fastmagn.errors import InputError, counted, nearest, some
from fastmagn.evaluation.metrics.calibration import rms_calibration_error
from fastmagn.evaluation.metrics.classes import class_accuracy, count_classes
from fastmagn.evaluation.metrics.predictions import Predictions, measure_logits, not_finite
from fastmagn.machine.console import warn
from fastmagn.machine.torchrun import rank
from fastmagn.runs.paths import RESULTS

_NO_OBJECT = "it is not JSON with an object at the top"


class OtherImages(NamedTuple):
    """Images of a folder, not read yet, and their labels in the model's classes, int64 [M]."""

    images: LazyImages
    labels: np.ndarray


class MeasuredTwice(NamedTuple):
    """Predictions among all classes of the model, and among the folder's own classes."""

    all_classes: Predictions
    own_classes: Predictions


def find_images(
    folder: Path,
    class_names: Sequence[str],
    mapping: Mapping[str, str],
    *,
    image_size: int,
    resize_px: int,
    padded_from: tuple[int, int] | None,
) -> OtherImages:
    """The images of each class folder, sorted by folder and file name.

    Args:
        folder: Holds CLASS/IMAGE.
        class_names: The K classes of the model; label k is class_names[k].
        mapping: Folder name -> class name. A folder without an entry is named like its class. Two folders may belong to
            one class.
        image_size: Side of the square that the network sees, px.
        resize_px: The shorter side before the centre is cut out, px.
        padded_from: (H, W) of the images of the model's set, px, if those are padded to that square.

    Raises:
        InputError: There is no folder, it has no class folders, or one of them holds no image or belongs to none of
            the model's classes.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    files = list_classes(folder)
    unknown = [name for name in files if mapping.get(name, name) not in label_of]
    if unknown:
        hint = nearest(mapping.get(unknown[0], unknown[0]), class_names)
        raise InputError(
            f"{folder}: {len(unknown)} of {len(files)} class folders do not match any of the model's {len(class_names)}"
            f" classes: {some(unknown)}; expected names such as {some(class_names)}. Name the class of each folder in a"
            f" file, and give it by --classes FILE.{hint}"
        )
    paths = [folder / image for images in files.values() for image in images]
    labels = [label_of[mapping.get(name, name)] for name in files]
    counts = [len(images) for images in files.values()]
    images_u8 = LazyImages(paths, image_size, resize_px, padded_from)
    return OtherImages(images_u8, np.repeat(np.array(labels, np.int64), counts))


def measure_images(logits: Tensor, labels: np.ndarray, own_labels: np.ndarray) -> MeasuredTwice:
    """Measure each prediction twice, see `MeasuredTwice`.

    Args:
        logits: float32 [M, K].
        labels: int64 [M].
        own_labels: The labels of the folder's classes, int64, sorted.
    """
    own = torch.from_numpy(own_labels).to(logits.device)
    among_own = torch.from_numpy(np.searchsorted(own_labels, labels)).to(logits.device)
    among_all = torch.from_numpy(labels).to(logits.device)
    return MeasuredTwice(measure_logits(logits, among_all), measure_logits(logits[:, own], among_own))


def summarise_images(
    measured: MeasuredTwice, labels: np.ndarray, own_names: Sequence[str], num_unreadable: int, config: EvalConfig
) -> dict[str, Any]:
    """A folder's entry of `image_folders`: accuracies, also of each class, and RMS calibration errors.

    They are fractions in 0..1. `class_accuracy` has the folder's own classes only, see `classes.class_accuracy`.

    They are None where logits are NaN or infinite; a warning counts these images.

    Args:
        measured: The predictions for all images that can be read.
        labels: The places of their classes in `own_names`, int64 [M].
        own_names: The names of the folder's own classes.
        num_unreadable: Files that cannot be read.
        config: `num_bins` and `binning`.

    Raises:
        InputError: No file can be read.
    """
    num_images = measured.own_classes.correct.size
    if num_images == 0:
        raise InputError(f"images: none of {counted(num_unreadable, 'file')} can be read; expected some that can.")
    num_faulty = int(np.count_nonzero(np.logical_or(*map(not_finite, measured))))
    if num_faulty:
        warn(f"logits are not finite for {counted(num_faulty, 'image')}. The measures that need them are null.")
    bins: dict[str, Any] = {"num_bins": config.num_bins, "binning": config.binning}
    counts = {name: [count_classes(one, labels, len(own_names))] for name, one in measured._asdict().items()}
    return {
        "num_images": num_images,
        "num_unreadable": num_unreadable,
        "num_classes": len(own_names),
        **{name: _measures(predictions, bins) for name, predictions in measured._asdict().items()},
        **bins,
        "class_accuracy": {"class_names": list(own_names), **class_accuracy(counts)},
    }


def _measures(predictions: Predictions, bins: dict[str, Any]) -> dict[str, float | None]:
    if not_finite(predictions).any():
        return {"accuracy": None, "rms_calibration_error": None}
    return {
        "accuracy": float(predictions.correct.mean()),
        "rms_calibration_error": rms_calibration_error(predictions.confidences, predictions.correct, **bins),
    }


def check_earlier_results(results_file: Path, is_kept: bool) -> None:
    """Check a results file that will be written, if it is there: before the measurement, not after it.

    Args:
        results_file: The file.
        is_kept: Whether its results stay, with entries added. If not, a damaged file is a warning of torchrun's first
            process: it is replaced.

    Raises:
        InputError: It cannot be read, so that what it holds would be lost; or it is damaged and is kept.
    """
    if is_kept:
        _kept_results(results_file)
    elif _results_in(results_file) is None and rank() == 0:
        warn(f"{results_file}: is damaged ({_NO_OBJECT}). It will be replaced.")


_TELLING = {"steps", "weights_sha256"}


def measured_weights(results: Mapping[str, Any]) -> tuple[str, Any]:
    """What tells the weights that results measure from others: the steps of a run, the digest of a file."""
    name = "weights_sha256" if "weights_sha256" in results else "steps"
    return name, results[name]


def with_image_folders(results_file: Path, entries: dict[str, Any], weights: tuple[str, Any]) -> dict[str, Any]:
    """The results in a file, if it holds any, with these entries added under `image_folders`.

    Args:
        results_file: The file. Its results are left out, with a warning, if they measure other weights; results.json,
            which the training writes, stays whole.
        entries: The entries of these weights.
        weights: What `measured_weights` says of them.

    Raises:
        InputError: The file cannot be read, or is damaged.
    """
    earlier = _kept_results(results_file)
    folders = image_folders_of(results_file, weights).get("image_folders", {}) | entries
    if results_file.name != RESULTS and _of_others(earlier, weights):
        name, value = weights
        is_run = name == "steps" and name in earlier
        others = f"step {earlier[name]}, not {value}" if is_run else "other weights"
        warn(f"{results_file}: its other results are of {others}. They are left out.")
        earlier = {}
    return earlier | {"image_folders": folders}


def image_folders_of(results_file: Path, weights: tuple[str, Any]) -> dict[str, Any]:
    """`image_folders` of the results in a file, with this name; an empty dictionary if it holds none or is damaged.

    Entries of other weights are left out, with a warning.

    Raises:
        InputError: The file cannot be read.
    """
    earlier = (_results_in(results_file) or {}).get("image_folders")
    if not isinstance(earlier, dict):
        return {}
    others = [name for name, entry in earlier.items() if _of_others(entry, weights)]
    if others:
        name, value = weights
        what = f"other steps than {value}" if name == "steps" else "other weights"
        warn(f"{results_file}: image_folders has numbers of {what}: {some(others)}. They are left out.")
    kept = {name: entry for name, entry in earlier.items() if name not in others}
    return {"image_folders": kept} if kept or not earlier else {}


def _of_others(results: Any, weights: tuple[str, Any]) -> bool:
    """Whether they say that they measure other weights; older results do not say it."""
    name, value = weights
    if not isinstance(results, dict):
        return False
    if name not in results:
        return not _TELLING.isdisjoint(results)
    return bool(results[name] != value)


def _kept_results(results_file: Path) -> dict[str, Any]:
    results = _results_in(results_file)
    if results is None:
        raise InputError(f"out: {results_file} is damaged ({_NO_OBJECT}); remove it, or name another --out.")
    return results


def _results_in(results_file: Path) -> dict[str, Any] | None:
    """What the file holds: nothing if it is not there, None if it is damaged.

    Raises:
        InputError: It cannot be read.
    """
    try:
        results = json.loads(results_file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(
            f"out: {results_file} cannot be read ({error.strerror or error}), and its results would be lost; name"
            " another --out."
        ) from error
    except (ValueError, RecursionError):
        return None
    return results if isinstance(results, dict) else None
