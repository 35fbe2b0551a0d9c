"""Reads -C sets of .npy files in the published layout of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019).

A set that fastmagn.corrupt made also has a manifest.json, which says from which images and how it was made, and what
each file must hold.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.corruptions import SEVERITIES, corrupted_as
from fastmagn.data.arrays import open_array
from fastmagn.data.image_set import Images
from fastmagn.data.subset import BY_CLASS, even_subset
from fastmagn.errors import InputError

MANIFEST = "manifest.json"
MANIFEST_FORMAT_VERSION = 1

_NUM_SEVERITIES = len(SEVERITIES)
_MISSING = (
    "a -C set holds <corruption>.npy for each corruption, and labels.npy; one of image files,"
    " CORRUPTION/SEVERITY/CLASS/IMAGE."
)
_REMEDY = "Make or download it again."
_MANIFEST_FIELDS = {
    **{"format_version": int, "dataset": str, "num_images": int, "image_shape": list, "seed": int},
    **{"corruptions": list, "source": dict, "files": dict},
}
_READ_BYTES = 1 << 22
_ROWS_AT_A_TIME = 512  # images may have to be decoded first


def open_corrupted(folder: Path, name: str, test_labels: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """One corruption's images, mapped from `<name>.npy` (they are read when they are used); the labels are checked.

    The file holds uint8 [5*N, H, W, C]: rows (s-1)*N..s*N-1 are severity s, in the test set's order. `labels.npy`
    holds the N labels, or the same N labels five times, as the published sets do. N may be larger than M.

    Args:
        folder: The folder of the -C set.
        name: The corruption, such as fog.
        test_labels: int64 [M], the labels of the first M test images, which are to be measured.
        image_shape: (H, W, C) of the test images.

    Returns:
        uint8 [5, M, H, W, C], read-only; element s - 1 is severity s.

    Raises:
        InputError: A file is missing or truncated, or has another kind, shape or order; or the labels differ.
    """
    path = Path(folder) / f"{name}.npy"
    images_u8 = open_array(path, _MISSING, _REMEDY)
    if images_u8.dtype != np.uint8 or images_u8.shape[1:] != image_shape or not images_u8.flags.c_contiguous:
        wanted = ", ".join(str(side) for side in image_shape)
        raise InputError(
            f"{path}: got {images_u8.dtype} {list(images_u8.shape)}; expected uint8 [5*N, {wanted}] in C order, rows"
            " (s-1)*N..s*N-1 severity s."
        )
    num_images, left_over = divmod(len(images_u8), _NUM_SEVERITIES)
    if left_over or num_images < len(test_labels):
        raise InputError(
            f"{path}: holds {len(images_u8)} images; expected 5 severities of {len(test_labels)} or more. Measure a set"
            " made of fewer with --eval.num_images."
        )
    _check_labels(Path(folder) / "labels.npy", num_images, test_labels)
    return images_u8.reshape(_NUM_SEVERITIES, num_images, *image_shape)[:, : len(test_labels)]


def _check_labels(path: Path, num_images: int, test_labels: np.ndarray) -> None:
    labels = open_array(path, _MISSING, _REMEDY)
    if (
        labels.ndim != 1
        or labels.dtype.kind not in "iu"
        or len(labels) not in (num_images, _NUM_SEVERITIES * num_images)
    ):
        raise InputError(
            f"{path}: got {labels.dtype} {list(labels.shape)}; expected integers [{num_images}] or"
            f" [{_NUM_SEVERITIES * num_images}]."
        )
    wrong = np.flatnonzero(labels.reshape(-1, num_images)[:, : len(test_labels)] != test_labels)
    if len(wrong):
        raise InputError(
            f"{path}: {len(wrong)} labels differ from the test set's, so these are images of another set or in another"
            " order. Make this set again with python -m fastmagn.corrupt, or give the test set it was made of."
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a -C set that fastmagn.corrupt made; its structure is checked.

    Raises:
        InputError: The folder has no manifest (published sets have none), or the file is not one.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected a set that python -m fastmagn.corrupt made (published sets have none)."
        )
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}). Make the set again.") from error
    reason = _manifest_fault(manifest)
    if reason:
        raise InputError(f"{path}: {reason}. Make the set again.")
    return manifest


def _manifest_fault(manifest: Any) -> str | None:
    """What is wrong with a manifest's structure; None if nothing is."""
    if not isinstance(manifest, dict):
        return "does not hold an object"
    wrong = [name for name, kind in _MANIFEST_FIELDS.items() if type(manifest.get(name)) is not kind]
    if wrong:
        return f"{', '.join(wrong)} missing or of another type"
    if manifest["format_version"] != MANIFEST_FORMAT_VERSION:
        return f"format_version is {manifest['format_version']}; this program reads {MANIFEST_FORMAT_VERSION}"
    if [type(side) for side in manifest["image_shape"]] != [int, int, int]:
        return "image_shape is not [H, W, C]"
    if set(manifest["files"]) != {*(f"{name}.npy" for name in manifest["corruptions"]), "labels.npy"}:
        return "files are not those of its corruptions and labels.npy"
    for name, file in manifest["files"].items():
        if Path(name).name != name:
            return f"{name!r} is not a plain file name"
        if not isinstance(file, dict) or type(file.get("bytes")) is not int or type(file.get("sha256")) is not str:
            return f"{name!r} has no bytes and sha256"
    subset = manifest.get("subset", {})
    if not isinstance(subset, dict) or (subset.get("chosen") == BY_CLASS and not _is_seed(subset.get("seed"))):
        return "subset does not say how the images were chosen"
    made_as = manifest.get("corrupted_as", {"version": 1})
    if not isinstance(made_as, dict) or type(made_as.get("version")) is not int:
        return "corrupted_as does not say how the images were corrupted"
    if any(type(manifest["source"].get(name)) is not str for name in ("images_sha256", "labels_sha256")):
        return "source has no images_sha256 and labels_sha256"
    return None


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def source_digests(images_u8: Images, labels: np.ndarray) -> dict[str, str]:
    """The SHA-256 of the uncorrupted images, uint8 [N, H, W, 3], and of their labels as little-endian int64 [N]."""
    digest = hashlib.sha256()
    for first in range(0, len(images_u8), _ROWS_AT_A_TIME):
        digest.update(np.ascontiguousarray(images_u8[first : first + _ROWS_AT_A_TIME]))
    return {
        "images_sha256": digest.hexdigest(),
        "labels_sha256": hashlib.sha256(labels.astype("<i8")).hexdigest(),
    }


def rows_of(manifest: dict[str, Any], labels: np.ndarray) -> slice | np.ndarray:
    """The rows of the test images that a set was made of, ascending: the first ones, or int64 [N] drawn by class.

    Args:
        manifest: From `read_manifest`.
        labels: int64 [M], of all test images.
    """
    subset = manifest.get("subset", {})  # sets of earlier versions have none, and are of the first images
    is_drawn = subset.get("chosen") == BY_CLASS
    return even_subset(labels, manifest["num_images"], subset["seed"]) if is_drawn else slice(0, manifest["num_images"])


def recorded_as(folder: Path, shape: tuple[int, ...]) -> dict[str, Any] | None:
    """How the images of a set, [N, H, W, 3], were corrupted, see `corrupted_as`; None for a set without a manifest.

    Manifests of version 1 do not say it.
    """
    if not (Path(folder) / MANIFEST).exists():
        return None
    manifest, now = read_manifest(folder), corrupted_as(shape, jpeg=False)
    first = now if now["version"] == 1 else {"published": None, "version": 1, "jpeg_quality": None}
    return manifest.get("corrupted_as", first)


def check_source(folder: Path, images_u8: Images, labels: np.ndarray) -> slice | np.ndarray | None:
    """Check that a set was made from these test images; a published set, which has no manifest, passes.

    Labels alone do not distinguish two image sets whose classes have the same sizes.

    Args:
        folder: The folder of the -C set.
        images_u8: All test images, uint8 [M, H, W, 3]; a set made from some of them is accepted too.
        labels: int64 [M].

    Returns:
        The rows of the test images that the set was made of, ascending: the first ones as a slice, or int64 [N] if its
        manifest says that they were drawn by class. None for a published set.

    Raises:
        InputError: The manifest is broken, or the set was made from other images.
    """
    if not (Path(folder) / MANIFEST).exists():
        return None
    manifest = read_manifest(folder)
    num_images = manifest["num_images"]
    made_of = f"{folder}: made of {num_images} images of {manifest['dataset']}"
    if num_images > len(labels):
        raise InputError(f"{made_of}; the test set given has {len(labels)}. Give the test set that it was made of.")
    rows = rows_of(manifest, labels)
    if source_digests(images_u8[rows], labels[rows]) != manifest["source"]:
        raise InputError(
            f"{made_of}, which differ from the test set's by their SHA-256. Give the test set that it was made of, or"
            " make this set again with python -m fastmagn.corrupt."
        )
    return rows


def check_files(folder: Path, advance: Callable[[int], None] = lambda num_bytes: None) -> list[str]:
    """Compare each file of a set with its manifest (size, SHA-256, array shape), and look for unknown .npy files.

    Args:
        folder: The folder of the -C set.
        advance: Called with the number of bytes whenever some have been read.

    Returns:
        A line for each faulty file; empty for an intact set.

    Raises:
        InputError: The manifest is missing or damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    faults = [_file_fault(folder / name, file, manifest, advance) for name, file in manifest["files"].items()]
    foreign = sorted(path for path in folder.glob("*.npy") if path.name not in manifest["files"])
    return [fault for fault in faults if fault] + [f"{path}: not in the manifest; remove it." for path in foreign]


def _file_fault(path: Path, file: dict[str, Any], manifest: dict[str, Any], advance: Callable[[int], None]) -> str:
    if not path.is_file():
        return f"{path}: missing."
    size = path.stat().st_size
    if size != file["bytes"]:
        return f"{path}: got {size} bytes; expected {file['bytes']}."
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(_READ_BYTES):
            digest.update(block)
            advance(len(block))
    if digest.hexdigest() != file["sha256"]:
        return f"{path}: its SHA-256 is {digest.hexdigest()}; expected {file['sha256']}: its content has changed."
    try:
        array = open_array(path, _MISSING, _REMEDY)
    except InputError as error:
        return str(error)
    shape = [_NUM_SEVERITIES * manifest["num_images"], *(() if path.name == "labels.npy" else manifest["image_shape"])]
    if list(array.shape) != shape:
        return f"{path}: got an array {list(array.shape)}; expected {shape}, as the manifest says."
    return ""
