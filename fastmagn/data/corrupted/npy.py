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
from fastmagn.corruptions.sets import in_order
from fastmagn.data.arrays import open_array
from fastmagn.data.files.on_demand import chunks
from fastmagn.data.image_set import Images, rows_within
from fastmagn.data.subset import BY_CLASS, even_subset
from fastmagn.errors import InputError, counted

MANIFEST = "manifest.json"
MANIFEST_FORMAT_VERSION = 1

_NUM_SEVERITIES = len(SEVERITIES)
LAYOUTS = (
    "a -C set holds <corruption>.npy for each corruption, and labels.npy; one of image files,"
    " CORRUPTION/SEVERITY/CLASS/IMAGE, severities 1 to 5 or some of them"
)
_MISSING = f"{LAYOUTS}."
_LABELS = "labels.npy"
_REMEDY = "Make or download it again."
_MANIFEST_FIELDS = {
    **{"format_version": int, "dataset": str, "num_images": int, "image_shape": list, "seed": int},
    **{"corruptions": list, "source": dict, "files": dict},
}
_READ_BYTES = 1 << 22


def stored_files(folder: Path) -> list[str]:
    """The corruptions that a set of .npy files holds, known or not, and those that its manifest says it should hold.

    Raises:
        InputError: The folder cannot be read, or its manifest is broken.
    """
    try:
        names = {path.stem for path in Path(folder).iterdir() if path.suffix == ".npy" and path.name != _LABELS}
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); {LAYOUTS}.") from error
    if (Path(folder) / MANIFEST).exists():
        names |= set(read_manifest(folder)["corruptions"])
    return in_order(names)


def open_corrupted(
    folder: Path,
    name: str,
    test_labels: np.ndarray,
    image_shape: tuple[int, int, int],
    num_test_images: int | None = None,
) -> np.ndarray:
    """One corruption's images, mapped from `<name>.npy` (they are read when they are used); the labels are checked.

    The file holds uint8 [S*N, H, W, C]: rows (s-1)*N..s*N-1 are severity s, in the test set's order. `labels.npy`
    holds the N labels, or the same N labels five or S times, as the published sets do. N may be larger than M. S is 5,
    as in the published sets, unless the numbers of labels and of test images say that it is less.

    Args:
        folder: The folder of the -C set.
        name: The corruption, such as fog.
        test_labels: int64 [M], the labels of the first M test images, which are to be measured.
        image_shape: (H, W, C) of the test images.
        num_test_images: How many test images there are, of which the set may hold all.

    Returns:
        uint8 [S, M, H, W, C], read-only; element s - 1 is severity s.

    Raises:
        InputError: A file is missing or truncated, or has another kind, shape or order; or the labels differ.
    """
    path = Path(folder) / f"{name}.npy"
    images_u8 = open_array(path, _MISSING, _REMEDY)
    if images_u8.dtype != np.uint8 or images_u8.shape[1:] != image_shape or not images_u8.flags.c_contiguous:
        wanted = ", ".join(str(side) for side in image_shape)
        raise InputError(
            f"{path}: got {images_u8.dtype} {list(images_u8.shape)}; expected uint8 [5*N, {wanted}] in C order, rows"
            " (s-1)*N..s*N-1 severity s; or fewer severities."
        )
    num_severities = _num_severities(path, len(images_u8), test_labels, num_test_images)
    by_severity = images_u8.reshape(num_severities, len(images_u8) // num_severities, *image_shape)
    return by_severity[:, : len(test_labels)]


def _num_severities(path: Path, num_rows: int, test_labels: np.ndarray, num_test_images: int | None) -> int:
    """How many severities a file of so many images has; the labels beside it are checked."""
    possible = [s for s in reversed(SEVERITIES) if num_rows % s == 0 and num_rows // s >= max(1, len(test_labels))]
    labels_path = path.with_name(_LABELS)
    labels = _open_labels(labels_path) if possible else np.empty(0, np.int64)
    fitting = [s for s in possible if len(labels) in _label_counts(s, num_rows // s)]
    if not fitting and _NUM_SEVERITIES in possible:
        raise InputError(
            f"{labels_path}: got {labels.dtype} {list(labels.shape)}; expected integers [{num_rows // _NUM_SEVERITIES}]"
            f" or [{num_rows}]."
        )
    if not fitting:
        raise InputError(
            f"{path}: holds {counted(num_rows, 'image')}; expected 5 severities of {len(test_labels)} or more, or"
            " fewer severities of as many as labels.npy has labels. Measure a set made of fewer with --eval.num_images."
        )
    likely = _likely(fitting, num_rows, len(labels), num_test_images)
    num_wrong = [_count_wrong(labels, num_rows // s, test_labels) for s in likely]
    if 0 not in num_wrong:
        labels_differ = f"{counted(num_wrong[0], 'label')} {'differs' if num_wrong[0] == 1 else 'differ'}"
        raise InputError(
            f"{labels_path}: {labels_differ} from the test set's, so these are images of another set or in another"
            " order. Make this set again with python -m fastmagn.corrupt, or give the test set it was made of."
        )
    return likely[num_wrong.index(0)]


def _label_counts(num_severities: int, num_images: int) -> tuple[int, ...]:
    """How many labels a set of so many images at so many severities may have."""
    return num_images, num_severities * num_images, _NUM_SEVERITIES * num_images


def _likely(fitting: list[int], num_rows: int, num_labels: int, num_test_images: int | None) -> list[int]:
    """The numbers of severities to try, of those that fit the labels' number: the most likely first.

    All test images at each severity; then five severities; if neither is possible, the largest number.
    """
    of_all = [s for s in fitting if num_test_images is not None and s * num_test_images == num_rows]
    of_labels = [s for s in fitting if s > 1 and s * num_labels == num_rows]
    five = [s for s in fitting if s == _NUM_SEVERITIES]
    return list(dict.fromkeys([*of_all, *five, *of_labels])) or fitting[:1]


def _open_labels(path: Path) -> np.ndarray:
    labels = open_array(path, _MISSING, _REMEDY)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: got {labels.dtype} {list(labels.shape)}; expected integers [N] or [5*N].")
    return labels


def _count_wrong(labels: np.ndarray, num_images: int, test_labels: np.ndarray) -> int:
    return int(np.count_nonzero(labels.reshape(-1, num_images)[:, : len(test_labels)] != test_labels))


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
    if any(type(name) is not str for name in manifest["corruptions"]):
        return "corruptions are not names"
    if [type(side) for side in manifest["image_shape"]] != [int, int, int]:
        return "image_shape is not [H, W, C]"
    if not _is_length(manifest.get("resize_px"), manifest["image_shape"][0]):
        return "resize_px is not a length in px"
    if set(manifest["files"]) != {*(f"{name}.npy" for name in manifest["corruptions"]), _LABELS}:
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


def _is_length(value: Any, at_least: int) -> bool:
    """Whether it is None, as in manifests of arrays and of earlier versions, or a length in px."""
    return value is None or (type(value) is int and value >= at_least)


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def source_digests(images_u8: Images, labels: np.ndarray) -> dict[str, str]:
    """The SHA-256 of the uncorrupted images, uint8 [N, H, W, 3], and of their labels as little-endian int64 [N]."""
    digest = hashlib.sha256()
    for chunk in chunks(images_u8, rows_within(images_u8)):
        digest.update(np.ascontiguousarray(chunk))
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
    made_of = f"{folder}: made of {counted(num_images, 'image')} of {manifest['dataset']}"
    if num_images > len(labels):
        raise InputError(f"{made_of}; the test set given has {len(labels)}. Give the test set that it was made of.")
    rows = rows_of(manifest, labels)
    if source_digests(images_u8[rows], labels[rows]) != manifest["source"]:
        raise InputError(
            f"{made_of}, which differ from the test set's by their SHA-256. {_remedy_of_others(manifest, images_u8)}"
        )
    return rows


def _remedy_of_others(manifest: dict[str, Any], images_u8: Images) -> str:
    """What to do about a set of other images; those of files may differ only in how they were resized."""
    side, made_px = manifest["image_shape"][0], manifest.get("resize_px")
    given_side, given_px = images_u8.shape[1], getattr(images_u8, "resize_px", None)
    again = "make this set again with python -m fastmagn.corrupt"
    if given_px is not None and made_px is None:
        return (
            f"Its manifest does not say its resize_px; the images given were resized to {given_px} px. Give --resize_px"
            f" (for --verify) or --data.eval_resize_px as the set had it ({side} if it had none), or {again}."
        )
    if given_px is not None and (side, made_px) != (given_side, given_px):
        return (
            f"They are {side} px cut out of {made_px}, those given are {given_side} px cut out of {given_px}. Measure"
            f" with --data.image_size {side} --data.eval_resize_px {made_px}, or {again} --image_size {given_side}"
            f" --resize_px {given_px}."
        )
    return f"Give the test set that it was made of, or {again}."


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
    shape = [_NUM_SEVERITIES * manifest["num_images"], *(() if path.name == _LABELS else manifest["image_shape"])]
    if list(array.shape) != shape:
        return f"{path}: got an array {list(array.shape)}; expected {shape}, as the manifest says."
    return ""
