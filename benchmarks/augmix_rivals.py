"""The strongest per-image AugMix that an engineer would write, for `benchmarks.augment`: OpenCV, and a tuned Pillow.

They are written from the paper: chains of its nine operations at the same magnitudes, mixed with Dirichlet and Beta
weights. All numbers of a batch are drawn at once. OpenCV does not round as Pillow does: its pixels are not equal. The
`normalised loop` has the shape of the published training loops: each chain's end is normalised in floats, then mixed.

Shape letters: N images, H W image.
"""

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastmagn.augment.operations import NUM_AUGMIX_OPERATIONS, OPERATIONS
from fastmagn.config.schema import AugmentConfig

OPENCV = "OpenCV (not Pillow's pixels)"
TUNED_PILLOW = "Pillow, tuned"
NORMALISED = "Pillow, normalised loop"
BATCH = 64
_VIEWS = 2
_AFFINE, _BILINEAR = Image.Transform.AFFINE, Image.Resampling.BILINEAR
_POSTERIZE, _SOLARIZE = 2, 4  # ids of OPERATIONS that are tables of values

Matrix = tuple[float, float, float, float, float, float]  # target to source, of pixels' centres, row by row


class Mixture(NamedTuple):
    """What is drawn for a view: the chains' operations, by id, with their magnitudes; their weights; the mix weight."""

    chains: list[list[tuple[int, float]]]
    weights: list[float]
    mix_weight: float


class Rival(NamedTuple):
    """An implementation for images of one size.

    Args:
        load: uint8 [H, W, 3] -> an image.
        apply: (image, operation, magnitude) -> another image.
        mix: (image, the chains' ends, their weights, mix weight, out) -> None; fills `out`, float32 [H, W, 3].
    """

    load: Callable[[np.ndarray], Any]
    apply: Callable[[Any, int, float], Any]
    mix: Callable[[Any, list[Any], list[float], float, np.ndarray], None]


def draw_mixtures(rng: np.random.Generator, count: int, augment: AugmentConfig, size: tuple[int, int]) -> list[Mixture]:
    """Draw `count` views of images of one size, (H, W)."""
    depth = augment.mixture_depth
    shape = (count, augment.mixture_width)
    steps = (*shape, 3 if depth == -1 else depth)
    depths = (rng.integers(1, 4, shape) if depth == -1 else np.full(shape, depth)).tolist()
    ops = rng.integers(NUM_AUGMIX_OPERATIONS, size=steps).tolist()
    levels = rng.uniform(0.1, augment.aug_severity, steps).tolist()
    signs = rng.choice([-1, 1], steps).tolist()
    weights = rng.dirichlet(np.ones(augment.mixture_width), count).tolist()
    mix_weights = rng.beta(1, 1, count).tolist()

    def chain(i: int, w: int) -> list[tuple[int, float]]:
        drawn = zip(ops[i][w], levels[i][w], signs[i][w], strict=True)
        return [
            (op, OPERATIONS[op].magnitude(level, *size) * (sign if OPERATIONS[op].signed else 1))
            for (op, level, sign), _ in zip(drawn, range(depths[i][w]), strict=False)
        ]

    chains = [[chain(i, w) for w in range(augment.mixture_width)] for i in range(count)]
    return [Mixture(*drawn) for drawn in zip(chains, weights, mix_weights, strict=True)]


def fill_view(rival: Rival, image: Any, mixture: Mixture, out: np.ndarray) -> None:
    """Fill `out`, float32 [H, W, 3], with one view of an image that `rival.load` returned."""
    ends = []
    for chain in mixture.chains:
        end = image
        for op, magnitude in chain:
            end = rival.apply(end, op, magnitude)
        ends.append(end)
    rival.mix(image, ends, mixture.weights, mixture.mix_weight, out)


def matrix_of(op: int, magnitude: float, height: int, width: int) -> Matrix:
    """Return the matrix of a rotation, shear or translation, from the target's pixels to the source's."""
    name = OPERATIONS[op].name
    if name == "rotate":
        cos, sin = math.cos(math.radians(magnitude)), math.sin(math.radians(magnitude))
        x, y = (width - 1) / 2, (height - 1) / 2
        return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y
    if name == "shear_x":
        return 1.0, magnitude, magnitude / 2, 0.0, 1.0, 0.0
    if name == "shear_y":
        return 1.0, 0.0, 0.0, magnitude, 1.0, magnitude / 2
    moves_x = name == "translate_x"
    return 1.0, 0.0, magnitude if moves_x else 0.0, 0.0, 1.0, 0.0 if moves_x else magnitude


@functools.cache
def table_of(op: int, magnitude: int) -> np.ndarray:
    """Return what posterize or solarize makes of each value, uint8 [256]."""
    values = np.arange(256)
    made = (
        values & (0xFF << (8 - magnitude)) if op == _POSTERIZE else np.where(values < magnitude, values, 255 - values)
    )
    return made.astype(np.uint8)


def opencv(height: int, width: int) -> Rival:
    """Return AugMix by OpenCV's functions on uint8; the mixture is float32."""
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (width, height)

    def stretched(plane: np.ndarray) -> np.ndarray:
        low, high, _, _ = cv2.minMaxLoc(plane)
        scale = 255 / (high - low) if high > low else 1.0
        return cv2.convertScaleAbs(plane, alpha=scale, beta=-low * scale) if high > low else plane

    def apply(image: np.ndarray, op: int, magnitude: float) -> np.ndarray:
        name = OPERATIONS[op].name
        if name == "autocontrast":
            return cv2.merge([stretched(plane) for plane in cv2.split(image)])
        if name == "equalize":
            return cv2.merge([cv2.equalizeHist(plane) for plane in cv2.split(image)])
        if op in (_POSTERIZE, _SOLARIZE):
            return cv2.LUT(image, table_of(op, int(magnitude)))
        matrix = np.array(matrix_of(op, magnitude, height, width)).reshape(2, 3)
        return cv2.warpAffine(image, matrix, size, flags=flags)

    def mix(image: np.ndarray, ends: list, weights: list[float], mix_weight: float, out: np.ndarray) -> None:
        share = mix_weight / 255
        cv2.addWeighted(image, (1 - mix_weight) / 255, ends[0], share * weights[0], 0, dst=out, dtype=cv2.CV_32F)
        for k in range(1, len(ends) - 1, 2):
            pair = cv2.addWeighted(
                ends[k], share * weights[k], ends[k + 1], share * weights[k + 1], 0, dtype=cv2.CV_32F
            )
            cv2.add(out, pair, dst=out)
        if len(ends) % 2 == 0:
            cv2.scaleAdd(ends[-1].astype(np.float32), share * weights[-1], out, dst=out)

    return Rival(lambda pixels: pixels, apply, mix)


def _apply_pillow(image: Image.Image, op: int, magnitude: float) -> Image.Image:
    name = OPERATIONS[op].name
    if name in ("autocontrast", "equalize"):
        return getattr(ImageOps, name)(image)
    if op in (_POSTERIZE, _SOLARIZE):
        return image.point(_three_tables(op, int(magnitude)))
    a, b, c, d, e, f = matrix_of(op, magnitude, image.height, image.width)
    # Pillow's matrices take corners of pixels to corners.
    corners = (a, b, c + (1 - a - b) / 2, d, e, f + (1 - d - e) / 2)
    return image.transform(image.size, _AFFINE, corners, _BILINEAR)


@functools.cache
def _three_tables(op: int, magnitude: int) -> list[int]:
    return 3 * table_of(op, magnitude).tolist()


def tuned_pillow(height: int, width: int) -> Rival:
    """Return AugMix by Pillow with kept tables, and a mixture that goes from uint8 to float32 in kept memory."""
    product = np.empty((height, width, 3), np.float32)

    def mix(image: Image.Image, ends: list, weights: list[float], mix_weight: float, out: np.ndarray) -> None:
        np.multiply(np.asarray(image), np.float32((1 - mix_weight) / 255), out=out)
        for end, weight in zip(ends, weights, strict=True):
            np.multiply(np.asarray(end), np.float32(mix_weight * weight / 255), out=product)
            np.add(out, product, out=out)

    return Rival(Image.fromarray, _apply_pillow, mix)


def normalised_loop(height: int, width: int) -> Rival:
    """Return AugMix as published loops have it: the image and each chain's end are normalised floats, then mixed."""
    mean, deviation = np.float32(0.5), np.float32(0.5)

    def normalised(image: Image.Image) -> np.ndarray:
        return (np.asarray(image, np.float32) / np.float32(255) - mean) / deviation

    def mix(image: Image.Image, ends: list, weights: list[float], mix_weight: float, out: np.ndarray) -> None:
        mixture = np.zeros((height, width, 3), np.float32)
        for end, weight in zip(ends, weights, strict=True):
            mixture += np.float32(weight) * normalised(end)
        out[:] = np.float32(1 - mix_weight) * normalised(image) + np.float32(mix_weight) * mixture

    return Rival(Image.fromarray, _apply_pillow, mix)


RIVALS: dict[str, Callable[[int, int], Rival]] = {
    OPENCV: opencv,
    TUNED_PILLOW: tuned_pillow,
    NORMALISED: normalised_loop,
}


def available_rivals() -> Iterator[str]:
    """Yield the names in RIVALS whose packages are installed."""
    return (name for name in RIVALS if name != OPENCV or find_spec("cv2") is not None)


class RivalBatches(Dataset):
    """Batch b's two views of each image, float32 [N, 2, H, W, 3]. The worker builds what cannot be pickled."""

    def __init__(self, name: str, images: np.ndarray, augment: AugmentConfig, batch_size: int) -> None:
        self.name, self.images, self.augment, self.batch_size = name, images, augment, batch_size
        self.rng = np.random.default_rng(0)
        self.rival: Rival | None = None

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index: int) -> Tensor:
        images = self.images[index * self.batch_size : (index + 1) * self.batch_size]
        size = images.shape[1:3]
        self.rival = self.rival or RIVALS[self.name](*size)
        out = torch.empty(len(images), _VIEWS, *images.shape[1:])
        mixtures = iter(draw_mixtures(self.rng, _VIEWS * len(images), self.augment, size))
        for pixels, views in zip(images, out.numpy(), strict=True):
            image = self.rival.load(pixels)
            for view in views:
                fill_view(self.rival, image, next(mixtures), view)
        return out


def rival_by_workers(
    name: str, images: np.ndarray, augment: AugmentConfig, workers: int, device: torch.device
) -> Callable[[], int]:
    """Return a function that makes two views of each image in `workers` processes and counts the views that arrive."""
    batch_size = min(BATCH, max(1, len(images) // (2 * workers)))  # every worker gets batches
    loader = DataLoader(
        RivalBatches(name, images, augment, batch_size),
        batch_size=None,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",
        pin_memory=device.type == "cuda",
    )
    return lambda: sum(views.to(device, non_blocking=True).shape[:2].numel() for views in loader)
