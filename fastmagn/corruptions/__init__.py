"""The 19 common corruptions and C-bar's 15, at five severities as in the published sets, seeded and in any order.

Source of the 19: D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. `SIZE_CLASSES` says which images are corrupted as in which published set. The severities'
parameters are those of the scripts that made these sets; they stand at the top of each module.

Source of C-bar's: E. Mintun, A. Kirillov and S. Xie, "On Interaction Between Augmentations and Corruptions in Natural
Corruption Robustness", NeurIPS 2021. The parameters are those of the files cifar10_c_bar.csv and imagenet_c_bar.csv
that the authors published with their code; the names are spelt as there, since stored sets have folders of these names.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from fastmagn.registry import lazy_attributes

# A corruption's position is its number in the random stream: append only, never reorder, or sets cannot be made again.
CORRUPTIONS: dict[str, Any] = {
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
    "blue_noise_sample": "fastmagn.corruptions.cbar_noise:blue_noise_sample",
    "brownish_noise": "fastmagn.corruptions.cbar_noise:brownish_noise",
    "checkerboard_cutout": "fastmagn.corruptions.cbar_cover:checkerboard_cutout",
    "inverse_sparkles": "fastmagn.corruptions.cbar_cover:inverse_sparkles",
    "sparkles": "fastmagn.corruptions.cbar_cover:sparkles",
    "pinch_and_twirl": "fastmagn.corruptions.cbar_warp:pinch_and_twirl",
    "ripple": "fastmagn.corruptions.cbar_warp:ripple",
    "circular_motion_blur": "fastmagn.corruptions.cbar_warp:circular_motion_blur",
    "lines": "fastmagn.corruptions.cbar_cover:lines",
    "transverse_chromatic_abberation": "fastmagn.corruptions.cbar_warp:transverse_chromatic_abberation",
    "caustic_refraction": "fastmagn.corruptions.cbar_warp:caustic_refraction",
    "cocentric_sine_waves": "fastmagn.corruptions.cbar_noise:cocentric_sine_waves",
    "perlin_noise": "fastmagn.corruptions.cbar_noise:perlin_noise",
    "plasma_noise": "fastmagn.corruptions.cbar_noise:plasma_noise",
    "single_frequency_greyscale": "fastmagn.corruptions.cbar_noise:single_frequency_greyscale",
}

# name -> "module:function"; CIFAR-10-P's ten sequences. A place is a number in the random stream.
PERTURBATIONS = {
    name: f"fastmagn.corruptions.sequences:{name}"
    for name in (
        *("gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "spatter"),
        *("brightness", "translate", "rotate", "tilt", "scale"),
    )
}

# The published sets that are the same at every size; sets.py has C-bar. A corruption that is appended belongs to none
# of them, or their numbers would change meaning.
CORRUPTION_SETS: dict[str, tuple[str, ...]] = {
    "c15": tuple(CORRUPTIONS)[:15],
    "c18": tuple(CORRUPTIONS)[1:19],
    "c19": tuple(CORRUPTIONS)[:19],
}

_CBAR = frozenset(tuple(CORRUPTIONS)[19:])

SEVERITIES = (1, 2, 3, 4, 5)

MIN_SIDE_PX = 8


class SizeClass(NamedTuple):
    """Images whose shorter side is in one range, and the published set that they are corrupted as.

    Args:
        name: The field of `BySize` that holds the parameters.
        min_side_px: The shorter side from which on images are of this class.
        published: The sets whose script is followed for the 19.
        published_cbar: The set whose levels are followed for C-bar's.
        script: Its name in the repository of the sets' authors, hendrycks/robustness, folder ImageNet-C/create_c.
        script_side_px: The side of the images that it was written for.
        frost_scale: The scale of the pictures of frost.
        jpeg_quality: The quality of the JPEG files that the published set consists of; None for arrays.
        version: Grows whenever pixels change; results, manifests and the names of cached sets say which.
    """

    name: str
    min_side_px: int
    published: str
    published_cbar: str
    script: str
    script_side_px: int
    frost_scale: float
    jpeg_quality: int | None
    version: int


# Up to version 1, images of 64 px and more were corrupted as in the package imagecorruptions-imaug 1.1.5.
SIZE_CLASSES = (
    SizeClass("small", MIN_SIDE_PX, "CIFAR-10-C, CIFAR-100-C", "CIFAR-10-C-bar", "make_cifar_c.py", 32, 0.2, None, 1),
    SizeClass(
        "medium", 64, "Tiny-ImageNet-C, ImageNet-64-C", "ImageNet-C-bar", "make_tinyimagenet_c.py", 64, 0.3, 85, 2
    ),
    SizeClass("large", 128, "ImageNet-C", "ImageNet-C-bar", "make_imagenet_c.py", 224, 1.0, 85, 2),
)


class BySize(NamedTuple):
    """A corruption's parameters at severities 1 to 5, for each of SIZE_CLASSES."""

    small: tuple[Any, ...]
    medium: tuple[Any, ...]
    large: tuple[Any, ...]


def size_class(shape: tuple[int, ...]) -> SizeClass:
    """The class of images of a shape, [N, H, W, 3]."""
    side_px = min(shape[1:3])
    return next(size for size in reversed(SIZE_CLASSES) if side_px >= size.min_side_px or size.name == "small")


def parameters(table: BySize, images_u8: np.ndarray, severity: int) -> Any:
    """The entry of a corruption's table for images of this size, [N, H, W, 3], at a severity, 1..5."""
    return getattr(table, size_class(images_u8.shape).name)[severity - 1]


def corrupted_as(shape: tuple[int, ...], jpeg: bool, names: Iterable[str] = ()) -> dict[str, Any]:
    """What results and manifests record of how images of a shape, [N, H, W, 3], are corrupted.

    Args:
        shape: The images' shape.
        jpeg: Whether they then pass through the published set's JPEG.
        names: The corruptions; none means the 19.

    Returns:
        `published`, the sets that are followed, None if all are the user's own; and `version` and `jpeg_quality` of
        their `SizeClass`; the latter is None if there is no JPEG.
    """
    size, names = size_class(shape), set(names)
    has_cbar = bool(names & _CBAR)
    has_c = not names or bool(names & {*CORRUPTION_SETS["c19"]})
    followed = [size.published] * has_c + [size.published_cbar] * has_cbar
    return {
        "published": ", ".join(followed) or None,
        "version": size.version,
        "jpeg_quality": size.jpeg_quality if jpeg else None,
    }


def random_view(name: str, severity: int) -> int:
    """The view of rng.STREAM_CORRUPTION that this corruption draws from at this severity."""
    return 8 * tuple(CORRUPTIONS).index(name) + severity


# Imported when used: the tables above must not need numba.
_PUBLIC = {
    "available_corruptions": "fastmagn.corruptions.corrupting:available_corruptions",
    "corrupt": "fastmagn.corruptions.corrupting:corrupt",
}
__getattr__ = lazy_attributes(__name__, _PUBLIC)
