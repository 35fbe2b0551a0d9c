"""The 19 common corruptions and C-bar's 15, at five severities as in the published sets, seeded and in any order.

Source of the 19: D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. For small images the severities' parameters are those of the script that made CIFAR-10-C; for
large images (`is_large`) they are ImageNet-C's, as in the PyPI package imagecorruptions-imaug 1.1.5. They stand at the
top of each module.

Source of C-bar's: E. Mintun, A. Kirillov and S. Xie, "On Interaction Between Augmentations and Corruptions in Natural
Corruption Robustness", NeurIPS 2021. The parameters are those of the files cifar10_c_bar.csv and imagenet_c_bar.csv
that the authors published with their code; the names are spelt as there, since stored sets have folders of these names.
"""

from typing import Any, NamedTuple

import numpy as np

from fastmagn.registry import lazy_attributes

# A corruption's position is its number in the random stream: append only, never reorder, or sets cannot be made again.
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

# The published sets that are the same at every size; sets.py has C-bar. A corruption that is appended belongs to none
# of them, or their numbers would change meaning.
CORRUPTION_SETS: dict[str, tuple[str, ...]] = {
    "c15": tuple(CORRUPTIONS)[:15],
    "c18": tuple(CORRUPTIONS)[1:19],
    "c19": tuple(CORRUPTIONS)[:19],
}

SEVERITIES = (1, 2, 3, 4, 5)

MIN_SIDE_PX = 8
LARGE_SIDE_PX = 64


class BySize(NamedTuple):
    """A corruption's parameters at severities 1 to 5, for each of the two kinds of image."""

    small: tuple[Any, ...]  # as in the 32x32 sets (CIFAR-10-C, CIFAR-10-C-bar)
    large: tuple[Any, ...]  # as in ImageNet-C and ImageNet-C-bar


def is_large(images_u8: np.ndarray) -> bool:
    """Whether images, [N, H, W, 3], are corrupted as in ImageNet-C: if the shorter side has 64 px or more.

    Smaller images are corrupted as in CIFAR-10-C: ImageNet-C's parameters would leave little to recognise.
    """
    return min(images_u8.shape[1:3]) >= LARGE_SIDE_PX


def parameters(table: BySize, images_u8: np.ndarray, severity: int) -> Any:
    """The entry of a corruption's table for images of this size, [N, H, W, 3], at a severity, 1..5."""
    return (table.large if is_large(images_u8) else table.small)[severity - 1]


def random_view(name: str, severity: int) -> int:
    """The view of rng.STREAM_CORRUPTION that this corruption draws from at this severity."""
    return 8 * tuple(CORRUPTIONS).index(name) + severity


# Imported when used: the tables above must not need numba.
_PUBLIC = {
    "available_corruptions": "fastmagn.corruptions.corrupting:available_corruptions",
    "corrupt": "fastmagn.corruptions.corrupting:corrupt",
}
__getattr__ = lazy_attributes(__name__, _PUBLIC)
