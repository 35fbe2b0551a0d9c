"""Corrupts images with any of the corruptions, on all cores."""

from typing import Any

import numpy as np

from fastmagn.corruptions import CORRUPTIONS, MIN_SIDE_PX, SEVERITIES, size_class
from fastmagn.corruptions.digital import through_jpeg
from fastmagn.corruptions.frost_pictures import find_frost_pictures
from fastmagn.errors import InputError, as_array, as_integer, check, form
from fastmagn.registry import resolve
from fastmagn_kernels.threads import over_chunks

# The pixels of 128 images of 32 x 32 px: enough to hide the start of a chunk (about 50 us) behind 5 us per image, few
# enough to spread evenly over the threads.
_CHUNK_PIXELS = 128 * 32 * 32


def available_corruptions() -> tuple[str, ...]:
    """The corruptions that can be made here, in the registry's order: all, without frost if its pictures are absent."""
    missing = set() if find_frost_pictures() else {"frost"}
    return tuple(name for name in CORRUPTIONS if name not in missing)


def corrupt(
    images_u8: np.ndarray,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    indices: np.ndarray | None = None,
    jpeg: bool = False,
) -> np.ndarray:
    """Corrupt each image as a pure function of its pixels, name, severity, seed and sample index.

    So the pixels do not depend on the subset, the order, the split or the number of threads. The severities are those
    of the published set for images of this size: CIFAR-10-C below 64 px (the shorter side), Tiny-ImageNet-C below
    128 px, ImageNet-C from there on.

    Examples:
        >>> import numpy as np
        >>> from fastmagn import corrupt
        >>> images_u8 = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
        >>> foggy = corrupt(images_u8, "fog", severity=3)
        >>> foggy.shape, foggy.dtype
        ((4, 32, 32, 3), dtype('uint8'))
        >>> last = corrupt(images_u8[3:], "fog", severity=3, indices=np.array([3]))
        >>> np.array_equal(last, foggy[3:])
        True

    Args:
        images_u8: uint8 [N, H, W, 3], RGB, H and W at least 8 px.
        name: A key of CORRUPTIONS.
        severity: 1..5.
        seed: Key of the random stream, 0..2^64 - 1.
        indices: The sample index that keys each image's stream, int64 [N] in 0..2^32 - 1; by default 0..N - 1.
        jpeg: Whether corrupted images of 64 px and more then pass through JPEG of quality 85, as the published
            Tiny-ImageNet-C and ImageNet-C are stored, and as evaluations and made sets have them by default. Smaller
            ones never do.

    Returns:
        uint8 [N, H, W, 3], a new array.

    Raises:
        InputError: An argument has another type, shape or range, or frost's pictures are not installed.
    """
    function = resolve(CORRUPTIONS, name, "corruption")
    check_images(images_u8)
    severity = as_integer("severity", severity, SEVERITIES, "1, 2, 3, 4 or 5")
    seed, keys = check_keys(seed, indices, len(images_u8))
    if len(keys) == 0:
        return images_u8.copy()
    out = np.empty(images_u8.shape, np.uint8)
    quality = size_class(images_u8.shape).jpeg_quality if jpeg else None

    def corrupt_chunk(chunk: slice) -> None:
        corrupted = function(for_kernels(images_u8[chunk]), severity, seed, keys[chunk])
        out[chunk] = corrupted if quality is None else through_jpeg(corrupted, quality)

    height, width = images_u8.shape[1:3]
    over_chunks(corrupt_chunk, len(out), max(1, _CHUNK_PIXELS // (height * width)))
    return out


def for_kernels(images_u8: np.ndarray) -> np.ndarray:
    """The images as a plain, contiguous and writable array, a copy if need be: for another kind numba compiles anew."""
    return np.require(images_u8, requirements=("C_CONTIGUOUS", "WRITEABLE", "ENSUREARRAY"))


def check_keys(seed: int, indices: np.ndarray | None, num_images: int) -> tuple[int, np.ndarray]:
    """The seed, and the sample index of each image, int64 [N]; by default 0..N - 1.

    Raises:
        InputError: One of them has another type, shape or range.
    """
    seed = as_integer("seed", seed, range(2**64), "an integer in 0..2^64 - 1")
    keys = np.arange(num_images) if indices is None else one_integer_each("indices", indices, num_images)
    if len(keys):
        in_range = keys.min() >= 0 and keys.max() < 2**32
        check(in_range, "indices", f"{keys.min()}..{keys.max()}", "sample indices in 0..2^32 - 1")
    return seed, keys.astype(np.int64)


def check_images(images_u8: np.ndarray, field: str = "images_u8") -> None:
    """Raise InputError unless these are images that can be corrupted: an array uint8 [N, H, W, 3]."""
    wanted = f"a NumPy array uint8 [N, H, W, 3], H and W at least {MIN_SIDE_PX}"
    if not isinstance(images_u8, np.ndarray):
        kind = f"{type(images_u8).__module__.partition('.')[0]}.{type(images_u8).__name__}".removeprefix("builtins.")
        raise InputError(f"{field}: got a {kind}; expected {wanted}. np.asarray(images) makes one of many kinds.")
    shape = images_u8.shape
    hint = ""
    if images_u8.ndim == 3 and shape[2] == 3:
        hint = " For a single image, give images[None]."
    elif images_u8.ndim == 4 and shape[1] == 3 and shape[3] != 3:
        hint = " images.transpose(0, 2, 3, 1) puts the channels last."
    elif images_u8.ndim == 4 and shape[3] == 3 and images_u8.dtype.kind == "f":
        hint = " For floats in [0, 1], (255 * images).round().astype(np.uint8) makes them."
    is_images = images_u8.ndim == 4 and shape[3] == 3 and min(shape[1:3]) >= MIN_SIDE_PX
    if not is_images or images_u8.dtype != np.uint8:
        raise InputError(f"{field}: got {form(images_u8)}; expected {wanted}.{hint}")


def one_integer_each(field: str, values: Any, num_images: int) -> np.ndarray:
    """The values as an integer array [N], one for each image.

    Raises:
        InputError: They are something else.
    """
    array = as_array(field, values)
    if array.shape != (num_images,) or array.dtype.kind not in "iu":
        raise InputError(f"{field}: got {form(array)}; expected integers, one for each of {num_images} images.")
    return array
