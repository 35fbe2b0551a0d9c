"""Measures the robustness of any classifier, with the measures of a run's results.json.

Shape letters: B batch, N images, H W image, K classes.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fastmagn.config.corruption_sets import set_parts
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.corrupting import check_images, one_integer_each
from fastmagn.data.array_images import ArrayImages
from fastmagn.data.files.on_demand import FolderImages, chunks
from fastmagn.data.image_set import ImageRows, Images, rows_within
from fastmagn.errors import InputError, as_array, check, counted, is_integer, some
from fastmagn.evaluation.anyones_model import LogitsOf, place, probe, probe_others
from fastmagn.evaluation.class_names import check_classes_of_dataset
from fastmagn.evaluation.datasets import image_pixels, is_dataset, read_dataset, tensor_values
from fastmagn.evaluation.forward import Forward
from fastmagn.evaluation.held_out import HeldOut, fit_on
from fastmagn.evaluation.measure import MeasuredCell, evaluate
from fastmagn.evaluation.ood import measure_other_sets
from fastmagn.evaluation.subset import Subset
from fastmagn.machine.processes import World


def evaluate_robustness(
    model: Callable[[Any], Any],
    images_u8: np.ndarray | Tensor | Sequence[np.ndarray] | Dataset | Iterable,
    labels: np.ndarray | Tensor | Sequence[int] | None = None,
    *,
    corruption_set: str = "c15",
    severities: Sequence[int] = SEVERITIES,
    corrupted_dir: str | Path | None = None,
    corruption_jpeg: bool = True,
    num_images: int = 0,
    subset: Literal["by class", "first"] = "by class",
    num_bins: int = 15,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    preprocess: Callable[[Tensor], Any] | None = None,
    progress: bool = True,
    callback: Callable[[MeasuredCell], Any] | None = None,
    ood: Mapping[str, np.ndarray | Tensor | Sequence[np.ndarray] | Dataset | Iterable] | None = None,
    held_out: tuple[Any, Any] | Dataset | Iterable | None = None,
) -> dict[str, Any]:
    """Accuracy of a PyTorch classifier on clean and corrupted images, mCA, and calibration.

    The model is measured in evaluation mode and left in the mode it was in; what `torch.export` or `torch.jit.freeze`
    made keeps the mode that it was made in. The images are corrupted on the fly, the
    same way each time, unless a made or published -C set is given. Two images of each argument are tried first, so that
    a model, labels or images that cannot be measured are refused at once.

    Examples:
        >>> import torch
        >>> from fastmagn import evaluate_robustness
        >>> images_u8, labels = torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8).numpy(), [0, 1, 2, 1]
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))
        >>> results = evaluate_robustness(model, images_u8, labels, preprocess=lambda images: (images - 0.5) / 0.25)
        >>> results["num_images"], sorted(results["mca"]), len(results["corruption_accuracy"]["fog"])
        (4, ['c15', 'c18', 'c19'], 5)

    Args:
        model: A module, or any function (put a module that it calls in evaluation mode first). It takes images
            [B, 3, H, W] in [0, 1], or what `preprocess` makes of them, in the dtype of its parameters (float32 if it
            has none); they are contiguous, or channels last if a weight of the model is. It returns logits [B, K] or
            [B, K, 1, 1], K at least 2; or a dictionary or an object (dataclass, ModelOutput) with `logits`; or a tuple
            or list, whose first tensor of two or more dimensions counts. Logits are measured in float32.
        images_u8: Test images, uint8 [N, H, W, 3], RGB, H and W at least 8 px: an array, a tensor, or a list of images,
            Pillow's too.
            Or a dataset of (image, label), or of dictionaries with `image` (img, pixel_values, jpg, png, webp) and
            `label` (labels, cls): a `torch.utils.data.Dataset`, one of Hugging Face `datasets`, or any iterable, such
            as WebDataset's. Its images have one size, each a Pillow image, a uint8 array [H, W, 3], a uint8 tensor
            [3, H, W], or floats in [0, 1] of these shapes, or grey. Without normalisation and random transforms: it
            must give the same image each time. Up to 1 GiB of its images stay in memory; more of them are read anew for
            each corruption and severity, a few at a time, which takes a length and items dataset[i].
        labels: N integers in 0..K-1: an array, a tensor or a list. None takes those of a dataset. Classes that it names
            (`classes`, or Hugging Face `features`) must then be those of the model, if that is `fastmagn.load`'s.
        corruption_set: c15 (the usual benchmark's), c18 (without gaussian_noise), c19 (all of CIFAR-10-C or
            ImageNet-C), cbar (C-bar's ten: CIFAR-10-C-bar's for images below 64 px, else ImageNet-C-bar's); a single
            one, such as fog; or several of these joined by +, such as c15+cbar. Of a -C set, those that it holds; and,
            unless only single ones are named, those that are in none of these sets, or all that it holds if it holds
            none of them.
        severities: Severities to measure, rising, such as (1, 3, 5). Fewer than all five give no mCA of a set.
        corrupted_dir: Folder of a -C set of these images: <corruption>.npy and labels.npy.
        corruption_jpeg: Whether corrupted images of 64 px and more pass through JPEG of quality 85, as the published
            Tiny-ImageNet-C and ImageNet-C are stored.
        num_images: Number of test images to measure on; 0 means all.
        subset: Which ones, if not all. `by class` draws them evenly over the classes (the same ones each time), since
            images are often sorted by class; `first` takes the first ones.
        num_bins: Bins of the calibration errors, 1 or more.
        batch_size: Images per forward pass, 1 or more.
        device: Where to run; a module is moved there. By default it stays where its parameters are; a function gets
            images on the CPU.
        preprocess: What the model needs before its forward pass, such as normalisation or another size; takes float32
            images.
        progress: Show a progress bar; none is shown without a terminal, as in a pipe.
        callback: Called after each cell (clean, then each corruption at its severities) with its name, severity (0
            for clean), accuracy, and how many of how many cells are measured: a NamedTuple of these five.
        ood: Images of other classes, by a name for each set, that the model should tell from the test images; uint8
            [n, H, W, 3] or as `images_u8`. All of them count.
        held_out: Images and labels, as `images_u8` and `labels`, or a dataset of both, that the model was not trained
            on and that are not among the test images. Temperature scaling is fitted on them.

    Returns:
        The measured part of results.json, fractions in 0..1: `num_images`, `clean_accuracy`, `mca` {c15, c18, c19: None
        for a set that was not measured completely; cbar: if it was; measured: over all, if complete sets do not cover
        it}, `mean_corruption_error` {1 - mCA}, `corruption_accuracy` {name: [5, by severity]} (`severities` names those
        of corruptions that have fewer), `rms_calibration_error`, `calibration`, `reliability`, `selective_prediction`,
        `class_accuracy` {num_images, clean, corrupt: [K], None for a class without images; balanced_accuracy: {clean,
        corrupt}; corruption_set}, `subset` {chosen: all, first or by class; of: N; seed of by class}, and
        `corrupted_as` {published: the sets whose script is followed; version; jpeg_quality}, None for a published -C
        set. With `ood` also `ood` {name: AUROC, AUPR and FPR at 95 % TPR of three scores}. With `held_out` also
        `temperature_scaling` {temperature, and the calibration with it}. Where logits are NaN or infinite (-inf may
        rule a class out), the cell's accuracy and every mean that needs it are None; a warning names the corruption,
        the severity and the number of images. Other cells keep their results. The dictionary is strict JSON.

    Raises:
        InputError: An argument or the model's output is not as described here, or the -C set does not fit the images.
            Of a dataset the message names the item.
    """
    images, class_labels = _as_pair(images_u8, labels, model)
    sizes = {"num_images": num_images, "num_bins": num_bins, "batch_size": batch_size}
    which = {"corruption_set": corruption_set, "severities": _severities(severities)}
    config = _settings(which, corrupted_dir, corruption_jpeg, sizes, total=len(images))
    check(subset in ("by class", "first"), "subset", subset, "'by class' or 'first'")
    check(ood is None or isinstance(ood, Mapping), "ood", f"a {type(ood).__name__}", "{name: images}, or None")
    for field, function in (("preprocess", preprocess), ("callback", callback)):
        check(function is None or callable(function), field, function, "a function, or None")
    here, dtype = place(model, device)
    measured = LogitsOf(model, preprocess, dtype)
    probe(measured, images, class_labels, here)
    forward = Forward(here, "float32", config.batch_size, World())
    rows = Subset(subset).rows(class_labels, config.num_images)
    others = {name: _as_images(other, f"ood {name}")[0] for name, other in (ood or {}).items()}
    for name, other in others.items():
        probe_others(measured, other, images, here, f"ood {name}")
    fitted = None
    if held_out is not None:
        apart = _as_held_out(held_out, images[rows], model)
        probe_others(measured, apart.images_u8, images, here, "held_out")
        fitted = fit_on(measured, apart, forward, "held_out")
    with _fields_named_as_arguments():
        results = evaluate(
            measured,
            images,
            class_labels,
            config,
            device=here,
            subset=Subset(subset),
            progress=progress,
            callback=callback,
            temperature=fitted.temperature if fitted else None,
        )
    if held_out is not None:
        results["temperature_scaling"] = fitted and fitted.record | results["temperature_scaling"]
    if others:
        results["ood"] = measure_other_sets(measured, images[rows], others, forward, "ood")
    return results


def _as_held_out(held_out: Any, measured_u8: Images, model: Any) -> HeldOut:
    """Images and labels to fit on, none of which is measured, [M, H, W, 3]."""
    is_pair = isinstance(held_out, tuple | list) and len(held_out) == 2
    is_pair = is_pair and (not is_dataset(held_out) or _are_labels(held_out[1]))
    is_known = is_pair or is_dataset(held_out)
    check(is_known, "held_out", f"a {type(held_out).__name__}", "(images, labels), a Dataset of both, or None")
    given, given_labels = held_out if is_pair else (held_out, None)
    images_u8, labels = _as_pair(given, given_labels, model, "held_out images", "held_out labels")
    measured = set(_digests(measured_u8))
    num_shared = sum(digest in measured for digest in _digests(images_u8))
    got = f"{counted(len(images_u8), 'image')}, {num_shared} of which are measured"
    check(num_shared == 0, "held_out", got, "other images than the measured ones")
    return HeldOut(images_u8, labels, "held_out")


def _are_labels(values: Any) -> bool:
    return isinstance(values, np.ndarray | Tensor) or (
        isinstance(values, tuple | list) and all(map(is_integer, values))
    )


def _digests(images_u8: Images) -> Iterator[bytes]:
    """The SHA-256 of each image's pixels."""
    for chunk in chunks(images_u8, rows_within(images_u8)):
        yield from (hashlib.sha256(np.ascontiguousarray(image)).digest() for image in chunk)


def _severities(severities: Sequence[int]) -> str:
    """The severities as the eval section of a configuration has them."""
    listed = list(severities) if isinstance(severities, Iterable) and not isinstance(severities, str) else []
    are_known = len(listed) > 0 and all(is_integer(severity) and severity in SEVERITIES for severity in listed)
    rising = are_known and listed == sorted(set(listed))
    check(rising, "severities", severities, "some of 1, 2, 3, 4, 5, rising, such as (1, 3, 5)")
    return ",".join(str(int(severity)) for severity in listed)


@contextmanager
def _fields_named_as_arguments() -> Iterator[None]:
    """Of an error of a field of the configuration's section eval, leave out the section."""
    try:
        yield
    except InputError as error:
        text = str(error)
        if not text.startswith("eval."):
            raise
        raise InputError(text.removeprefix("eval.")) from error


def _settings(
    which: dict[str, Any],
    corrupted_dir: str | Path | None,
    corruption_jpeg: bool,
    sizes: dict[str, int],
    *,
    total: int,
) -> EvalConfig:
    """The arguments as the eval section of a configuration, checked; `total` is the number of images."""
    set_parts("corruption_set", which["corruption_set"])
    is_path = corrupted_dir is None or isinstance(corrupted_dir, str | os.PathLike)
    check(is_path, "corrupted_dir", corrupted_dir, "a path, or None")
    for field, value in sizes.items():
        check(is_integer(value), field, value, "an integer")
    check(0 <= sizes["num_images"] <= total, "num_images", sizes["num_images"], f"0..{total}, the images there are")
    check(isinstance(corruption_jpeg, bool), "corruption_jpeg", corruption_jpeg, "True or False")
    numbers: dict[str, Any] = {field: int(value) for field, value in sizes.items()}
    return EvalConfig(
        **which,
        corrupted_dir=None if corrupted_dir is None else Path(corrupted_dir),
        corruption_jpeg=corruption_jpeg,
        **numbers,
    )


def _as_pair(
    images_u8: Any, labels: Any, model: Any, field: str = "images_u8", labels_field: str = "labels"
) -> tuple[Images, np.ndarray]:
    """Images, uint8 [N, H, W, 3], N at least 1, and their labels, int64 [N], which mean the model's classes."""
    if labels is None:
        check_classes_of_dataset(images_u8, model, field, labels_field)
    images_u8, own_labels = _as_images(images_u8, field, labels_field if labels is None else None)
    labels = own_labels if labels is None else labels
    check(labels is not None, labels_field, None, "integers, one for each image; a Dataset of (image, label) has them")
    return images_u8, _as_labels(labels, len(images_u8), labels_field)


def _as_images(images_u8: Any, field: str, labels_field: str | None = None) -> tuple[Images, list[int] | None]:
    """Images, uint8 [N, H, W, 3], N at least 1, and the labels that come with them, if any do.

    `labels_field` is as in `read_dataset`.
    """
    if is_dataset(images_u8):
        images_u8, labels = read_dataset(images_u8, field, labels_field)
        check_images(np.asarray(images_u8[:1]), field)
        return images_u8, labels
    if isinstance(images_u8, FolderImages | ArrayImages | ImageRows) and len(images_u8):  # read when they are used
        check_images(np.asarray(images_u8[:1]), field)
        return images_u8, None
    return _as_array(images_u8, field), None


def _as_array(images_u8: Any, field: str) -> np.ndarray:
    """The images as one array, uint8 [N, H, W, 3], N at least 1."""
    if isinstance(images_u8, Tensor):
        shape = images_u8.shape
        if images_u8.ndim == 4 and shape[1] == 3 and shape[3] != 3:
            got = f"a {str(images_u8.dtype).removeprefix('torch.')} tensor {list(shape)}"
            raise InputError(
                f"{field}: got {got}; expected uint8 [N, H, W, 3]. images.permute(0, 2, 3, 1) puts the channels last."
            )
        images_u8 = tensor_values(images_u8, field, "uint8 [N, H, W, 3]")
    elif isinstance(images_u8, list | tuple):
        arrays = [_one_image(image, f"{field}[{row}]") for row, image in enumerate(images_u8)]
        counts = Counter(" x ".join(map(str, array.shape)) for array in arrays)
        if len(counts) > 1:
            sizes = some(f"{size} ({count})" for size, count in counts.most_common())
            raise InputError(f"{field}: got images of several sizes, {sizes}; expected one. Resize them first.")
        images_u8 = np.array(arrays)
    elif hasattr(images_u8, "__array__"):  # such as images in files
        images_u8 = np.asarray(images_u8)
    check_images(images_u8, field)
    check(len(images_u8) > 0, field, "no images", "at least one")
    return images_u8


def _one_image(image: Any, where: str) -> np.ndarray:
    if isinstance(image, Image.Image):
        return image_pixels(image, where)
    return (
        tensor_values(image, where, "an image, uint8 [H, W, 3]")
        if isinstance(image, Tensor)
        else as_array(where, image)
    )


def _as_labels(labels: np.ndarray | Tensor | Sequence[int], num_images: int, field: str = "labels") -> np.ndarray:
    """The labels as int64 [N], 0 or more."""
    labels = one_integer_each(field, labels.cpu() if isinstance(labels, Tensor) else labels, num_images)
    check(labels.min() >= 0, field, int(labels.min()), "classes, 0..K-1")
    return labels.astype(np.int64)
