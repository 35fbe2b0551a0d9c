"""The 19 common corruptions at five severities, as in the published sets, seeded and in any order.

Source: D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. The severities' parameters are those of the script that made CIFAR-10-C for small images, and
ImageNet-C's, as the PyPI package imagecorruptions-imaug 1.1.5 has them, for large ones (`is_large`); they stand at the
head of each module.
"""

import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba import config

from fastmagn.corruptions.frost_pictures import find_frost_pictures
from fastmagn.errors import InputError, check
from fastmagn.registry import resolve

# A corruption's place is its number in the random stream: never reorder, only append, or stored sets cannot be remade.
CORRUPTIONS: dict[str, str] = {
    "gaussian_noise": "fastmagn.corruptions.noise:gaussian_noise",
    "shot_noise": "fastmagn.corruptions.noise:shot_noise",
    "impulse_noise": "fastmagn.corruptions.noise:impulse_noise",
    "defocus_blur": "fastmagn.corruptions.blur:defocus_blur",
    "glass_blur": "fastmagn.corruptions.blur:glass_blur",
    "motion_blur": "fastmagn.corruptions.blur:motion_blur",
    "zoom_blur": "fastmagn.corruptions.blur:zoom_blur",
    "snow": "fastmagn.corruptions.weather:snow",
    "frost": "fastmagn.corruptions.weather:frost",
    "fog": "fastmagn.corruptions.weather:fog",
    "brightness": "fastmagn.corruptions.digital:brightness",
    "contrast": "fastmagn.corruptions.digital:contrast",
    "elastic_transform": "fastmagn.corruptions.digital:elastic_transform",
    "pixelate": "fastmagn.corruptions.digital:pixelate",
    "jpeg_compression": "fastmagn.corruptions.digital:jpeg_compression",
    "speckle_noise": "fastmagn.corruptions.noise:speckle_noise",
    "gaussian_blur": "fastmagn.corruptions.blur:gaussian_blur",
    "spatter": "fastmagn.corruptions.weather:spatter",
    "saturate": "fastmagn.corruptions.digital:saturate",
}

CORRUPTION_SETS: dict[str, tuple[str, ...]] = {
    "c15": tuple(CORRUPTIONS)[:15],
    "c18": tuple(CORRUPTIONS)[1:],
    "c19": tuple(CORRUPTIONS),
}

SEVERITIES = (1, 2, 3, 4, 5)

MIN_SIDE_PX = 8
LARGE_SIDE_PX = 64


class BySize(NamedTuple):
    """A corruption's parameters, a tuple of five for each of the two kinds of image: severities 1 to 5."""

    small: tuple[Any, ...]  # the 32x32 sets' (CIFAR-10-C)
    large: tuple[Any, ...]  # ImageNet-C's


def is_large(images_u8: np.ndarray) -> bool:
    """Whether images, [N, H, W, 3], are corrupted as ImageNet-C's are: where the shorter side has 64 px or more.

    Below that they are corrupted as CIFAR-10-C's are: ImageNet-C's parameters would leave little to recognise.
    """
    return min(images_u8.shape[1:3]) >= LARGE_SIDE_PX


def parameters(table: BySize, images_u8: np.ndarray, severity: int) -> Any:
    """The entry of a corruption's table for images of this size, [N, H, W, 3], at a severity, 1..5."""
    return (table.large if is_large(images_u8) else table.small)[severity - 1]


def available_corruptions() -> tuple[str, ...]:
    """The corruptions that can be made here, in the registry's order: all but frost where its pictures are absent."""
    missing = set() if find_frost_pictures() else {"frost"}
    return tuple(name for name in CORRUPTIONS if name not in missing)


def corrupt(
    images_u8: np.ndarray, name: str, severity: int, *, seed: int = 0, indices: np.ndarray | None = None
) -> np.ndarray:
    """Corrupt each image as a pure function of its pixels, name, severity, seed and sample index.

    Any subset, order, split or number of threads therefore gives the same pixels.

    Args:
        images_u8: uint8 [N, H, W, 3], RGB, H and W at least 8 px.
        name: A key of CORRUPTIONS.
        severity: 1..5.
        seed: Key of the random stream, 0..2^64 - 1.
        indices: int64 [N], the sample index that keys each image's stream, 0..2^32 - 1; by default 0..N - 1.

    Returns:
        uint8 [N, H, W, 3], a new array.

    Raises:
        InputError: An argument is not of this kind, or frost's pictures are not installed.
    """
    function = resolve(CORRUPTIONS, name, "corruption")
    shape = getattr(images_u8, "shape", None)
    is_images = isinstance(images_u8, np.ndarray) and images_u8.ndim == 4 and shape[3] == 3
    check(is_images and min(shape[1:3]) >= MIN_SIDE_PX, "images_u8.shape", shape, "[N, H, W, 3], H and W at least 8")
    check(images_u8.dtype == np.uint8, "images_u8.dtype", str(images_u8.dtype), "uint8 (levels 0..255)")
    check(_is_integer(severity) and severity in SEVERITIES, "severity", severity, "1, 2, 3, 4 or 5")
    check(_is_integer(seed) and 0 <= seed < 2**64, "seed", seed, "an integer in 0..2^64 - 1")
    keys = np.arange(len(images_u8)) if indices is None else np.asarray(indices)
    if keys.shape != (len(images_u8),) or keys.dtype.kind not in "iu":
        raise InputError(
            f"indices: got {keys.dtype} {list(keys.shape)}; expected integers, one for each of {len(images_u8)} images."
        )
    if len(keys) == 0:
        return images_u8.copy()
    in_range = keys.min() >= 0 and keys.max() < 2**32
    check(in_range, "indices", f"{keys.min()}..{keys.max()}", "sample indices in 0..2^32 - 1")
    keys = keys.astype(np.int64)
    out = np.empty(images_u8.shape, np.uint8)

    def corrupt_chunk(chunk: slice) -> None:
        out[chunk] = function(np.ascontiguousarray(images_u8[chunk]), int(severity), int(seed), keys[chunk])

    over_chunks(corrupt_chunk, len(out), pixels_per_image=shape[1] * shape[2])
    return out


def random_view(name: str, severity: int) -> int:
    """The view of rng.STREAM_CORRUPTION from which this corruption draws at this severity."""
    return 8 * tuple(CORRUPTIONS).index(name) + severity


def _is_integer(value: object) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


# As many pixels as 128 images of 32 x 32 have: enough that a chunk's start (some 50 us) does not show beside 5 us for
# each of them, few enough to share out evenly.
_CHUNK_PIXELS = 128 * 32 * 32


def over_chunks(work: Callable[[slice], None], num_images: int, pixels_per_image: int) -> None:
    """Call `work` on slices that cover 0..num_images - 1, on NUMBA_NUM_THREADS threads (by default, all cores).

    Gains only while `work` has Python's lock released, as kernels compiled with `nogil` have.
    """
    step = max(1, _CHUNK_PIXELS // pixels_per_image)
    chunks = [slice(first, min(first + step, num_images)) for first in range(0, num_images, step)]
    if len(chunks) == 1 or config.NUMBA_NUM_THREADS == 1:
        for chunk in chunks:
            work(chunk)
        return
    with ThreadPoolExecutor(config.NUMBA_NUM_THREADS) as pool:
        list(pool.map(work, chunks))
