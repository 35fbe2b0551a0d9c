"""The 19 corruptions in plain code, image by image, with NumPy, SciPy, scikit-image and Pillow.

The kernels are tested and timed against this code, which is independent of them and has its own parameter tables. Each
function takes one image, uint8 [H, W, 3], a severity, 1..5, and a generator, and returns uint8 [H, W, 3]. Of three
tables, the first is for images whose shorter side is below 64 px (CIFAR-10-C's parameters), the second for those below
128 px (Tiny-ImageNet-C's), the third for all others (ImageNet-C's).
"""

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from skimage.transform import AffineTransform, warp
from skimage.util import random_noise

from benchmarks.plain_spatter import water
from fastmagn.corruptions.frost_pictures import find_frost_pictures

Rng = np.random.Generator


def of_size(image: np.ndarray, small: Any, medium: Any, large: Any) -> Any:
    side = min(image.shape[:2])
    return small if side < 64 else medium if side < 128 else large


def truncated(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    medium = [0.04, 0.08, 0.12, 0.15, 0.18]
    stds = of_size(image, [0.04, 0.06, 0.08, 0.09, 0.1], medium, [0.08, 0.12, 0.18, 0.26, 0.38])
    return truncated(image / 255 + rng.normal(0, stds[severity - 1], image.shape))


def speckle_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    medium = [0.15, 0.2, 0.25, 0.3, 0.35]
    stds = of_size(image, [0.06, 0.1, 0.12, 0.16, 0.2], medium, [0.15, 0.2, 0.35, 0.45, 0.6])
    return truncated(image / 255 * (1 + rng.normal(0, stds[severity - 1], image.shape)))


def shot_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    photons = of_size(image, [500, 250, 100, 75, 50], [250, 100, 50, 30, 15], [60, 25, 12, 5, 3])[severity - 1]
    return truncated(rng.poisson(image / 255 * photons) / photons)


def impulse_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    medium = [0.01, 0.02, 0.05, 0.08, 0.14]
    amounts = of_size(image, [0.01, 0.02, 0.03, 0.05, 0.07], medium, [0.03, 0.06, 0.09, 0.17, 0.27])
    return truncated(random_noise(image / 255, mode="s&p", amount=amounts[severity - 1], rng=rng))


def gaussian_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    sigma = of_size(image, [0.4, 0.6, 0.7, 0.8, 1], [0.5, 0.75, 1, 1.25, 1.5], [1, 2, 3, 4, 6])[severity - 1]
    return truncated(gaussian(image / 255, sigma=sigma, channel_axis=-1))


def defocus_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    small = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)]
    medium = [(0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)]
    large = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)]
    radius, sigma = of_size(image, small, medium, large)[severity - 1]
    reach = 1 if radius <= 8 else 2
    grid = np.arange(-max(8, radius), max(8, radius) + 1)
    disk = np.float32(grid[:, None] ** 2 + grid**2 <= radius**2)
    tap = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    tap = np.float32(tap / tap.sum())
    disk = ndimage.correlate1d(disk / disk.sum(), tap, axis=1, mode="mirror")
    disk = ndimage.correlate1d(disk, tap, axis=0, mode="mirror")
    return truncated(np.stack([ndimage.correlate(image[..., c] / 255, disk, mode="mirror") for c in range(3)], -1))


def glass_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    small = [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)]
    large = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]
    medium = [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)]
    sigma, reach, passes = of_size(image, small, medium, large)[severity - 1]
    height, width, _ = image.shape
    origin = list(range(height * width))  # for each pixel, the pixel that its value comes from
    for _ in range(passes):
        offsets = rng.integers(-reach, reach, (height, width, 2)) @ [width, 1]
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                origin[y * width + x] = origin[y * width + x + offsets[y, x]]
    levels = truncated(gaussian(image / 255, sigma=sigma, channel_axis=-1))
    levels = levels.reshape(-1, 3)[origin].reshape(image.shape)
    return truncated(gaussian(levels / 255, sigma=sigma, channel_axis=-1))


def blown(image: np.ndarray, radius: float, sigma: float, angle_deg: float) -> np.ndarray:
    """Apply ImageMagick's motion blur to [H, W, C]: a weighted sum of shifted images; float64."""
    height, width, _ = image.shape
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)  # the last bits matter in flat areas
    weights /= weights.sum()
    dx = np.ceil(steps * np.cos(np.deg2rad(angle_deg)) - 0.5).astype(int) + len(steps)
    dy = np.ceil(steps * np.sin(np.deg2rad(angle_deg)) - 0.5).astype(int) + len(steps)
    border = np.pad(image, ((len(steps),) * 2,) * 2 + ((0, 0),), mode="edge")
    return sum(w * border[y : y + height, x : x + width] for w, y, x in zip(weights, dy, dx, strict=True))


def motion_blurred(image: np.ndarray, severity: int, angle_deg: float) -> np.ndarray:
    small = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]
    medium = [(10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)]
    radius, sigma = of_size(image, small, medium, [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)])[severity - 1]
    return np.rint(blown(image, radius, sigma, angle_deg)).astype(np.uint8)


def motion_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    return motion_blurred(image, severity, rng.uniform(-45, 45))


def zoomed_centre(image: np.ndarray, factor: float) -> np.ndarray:
    """Magnify the centre of [H, W, C] to the image's size or slightly more."""
    height, width = (int(np.ceil(side / factor)) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return ndimage.zoom(image[top : top + height, left : left + width], (factor, factor, 1), order=1)


def zoom_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    height, width, _ = image.shape
    slow, fast = [1.06, 1.11, 1.16, 1.21, 1.26], [1.11, 1.16, 1.21, 1.26, 1.31]
    steps = of_size(image, [0.01] * 5, [0.01] * 5, [0.01, 0.01, 0.02, 0.02, 0.03])
    factors = np.arange(1, of_size(image, slow, slow, fast)[severity - 1], steps[severity - 1])
    unit = (image / 255).astype(np.float32)
    total = sum(zoomed_centre(unit, factor)[:height, :width] for factor in factors)
    return truncated((unit + total) / (len(factors) + 1))


SMALL_SNOW = [
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
]
MEDIUM_SNOW = [(*row[:-1], keep) for row, keep in zip(SMALL_SNOW, [0.8, 0.8, 0.7, 0.65, 0.6], strict=True)]
LARGE_SNOW = [
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
]


def snow(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    table = of_size(image, SMALL_SNOW, MEDIUM_SNOW, LARGE_SNOW)
    mean, std, zoom, threshold, radius, sigma, keep = table[severity - 1]
    height, width, _ = image.shape
    layer = zoomed_centre(rng.normal(mean, std, (height, width, 1)), zoom)
    top, left = (layer.shape[0] - height) // 2, (layer.shape[1] - width) // 2
    layer = layer[top : top + height, left : left + width]
    layer = truncated(np.where(layer < threshold, 0, layer))
    layer = np.rint(blown(layer, radius, sigma, rng.uniform(-135, -45))) / 255
    unit = image / 255
    grey = (unit @ [0.299, 0.587, 0.114])[..., None]
    unit = keep * unit + (1 - keep) * np.maximum(unit, grey * 1.5 + 0.5)
    return truncated(unit + layer + layer[::-1, ::-1])


@cache
def read_frost_pictures() -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in find_frost_pictures()]


def cubic_matrix(side: int, new_side: int) -> np.ndarray:
    """Return the matrix of cubic interpolation (a = -0.75) with repeated edges: float64 [new_side, side]."""
    centres = (np.arange(new_side) + 0.5) * side / new_side - 0.5
    t = abs(centres[:, None] - np.arange(-3, side + 3))
    near, far = 1 - 2.25 * t**2 + 1.25 * t**3, 3 - 6 * t + 3.75 * t**2 - 0.75 * t**3
    weights = np.where(t <= 1, near, np.where(t < 2, far, 0))
    weights[:, 3] += weights[:, :3].sum(1)
    weights[:, -4] += weights[:, -3:].sum(1)
    return weights[:, 3:-3]


def linear_matrix(side: int, scale: float) -> np.ndarray:
    """Return the matrix of linear interpolation with repeated edges: float64 [round(scale * side), side]."""
    centres = np.clip((np.arange(round(side * scale)) + 0.5) / scale - 0.5, 0, side - 1)
    return np.maximum(0, 1 - abs(centres[:, None] - np.arange(side)))


@cache
def scaled_frost_picture(index: int, height: int, width: int) -> np.ndarray:
    """Return a picture as images of this size get it, in float64 but for the last rounding."""
    picture = read_frost_pictures()[index].astype(float)
    scale = of_size(np.empty((height, width)), 0.2, 0.3, 1.0)
    if all(round(side * scale) > least for side, least in zip(picture.shape, (height, width), strict=False)):
        rows, columns = (linear_matrix(side, scale) for side in picture.shape[:2])
    else:
        scale = 1.1 * max(height / picture.shape[0], width / picture.shape[1])
        rows, columns = (cubic_matrix(side, int(np.ceil(side * scale))) for side in picture.shape[:2])
    return np.clip(np.rint(np.einsum("yi,ijc,xj->yxc", rows, picture, columns, optimize=True)), 0, 255)


def frost(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    small = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]
    medium = [(1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)]
    large = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)]
    share, frost_share = of_size(image, small, medium, large)[severity - 1]
    height, width, _ = image.shape
    picture = scaled_frost_picture(rng.integers(5), height, width)
    top, left = rng.integers(0, picture.shape[0] - height), rng.integers(0, picture.shape[1] - width)
    crop = picture[top : top + height, left : left + width]
    return np.clip(share * image + frost_share * crop, 0, 255).astype(np.uint8)


def plasma(map_side: int, decay: float, rng: Rng) -> np.ndarray:
    """Return diamond-square heights on a torus, in [0, 1], computed level by level."""
    heights = np.zeros((1, 1))
    reach = 100.0
    while len(heights) < map_side:
        side = len(heights)
        fine = np.zeros((2 * side, 2 * side))
        draw = [reach * rng.uniform(-reach, reach, (side, side)) for _ in range(3)]
        centres = sum(np.roll(heights, (-dy, -dx), (0, 1)) for dy in (0, 1) for dx in (0, 1)) / 4 + draw[0]
        beside = (heights + np.roll(heights, -1, 1) + centres + np.roll(centres, 1, 0)) / 4 + draw[1]
        under = (heights + np.roll(heights, -1, 0) + centres + np.roll(centres, 1, 1)) / 4 + draw[2]
        fine[::2, ::2], fine[1::2, 1::2], fine[::2, 1::2], fine[1::2, ::2] = heights, centres, beside, under
        heights, reach = fine, reach / decay
    return (heights - heights.min()) / (heights.max() - heights.min())


def fog(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    small = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]
    medium = [(0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)]
    amount, decay = of_size(image, small, medium, [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)])[severity - 1]
    height, width, _ = image.shape
    mist = plasma(int(2 ** np.ceil(np.log2(max(height, width)))), decay, rng)[:height, :width, None]
    brightest = image.max() / 255
    return truncated((image / 255 + amount * mist) * brightest / (brightest + amount))


def brightness(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    hsv = rgb2hsv(image / 255)
    strong = [0.1, 0.2, 0.3, 0.4, 0.5]
    hsv[..., 2] = np.clip(hsv[..., 2] + of_size(image, [0.05, 0.1, 0.15, 0.2, 0.3], strong, strong)[severity - 1], 0, 1)
    return truncated(hsv2rgb(hsv))


def saturate(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    small = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)]
    medium = [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)]
    factor, shift = of_size(image, small, medium, [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)])[severity - 1]
    hsv = rgb2hsv(image / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + shift, 0, 1)
    return truncated(hsv2rgb(hsv))


def contrast(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    unit = image / 255
    mean = unit.mean((0, 1))
    strong = [0.4, 0.3, 0.2, 0.1, 0.05]
    return truncated((unit - mean) * of_size(image, [0.75, 0.5, 0.4, 0.3, 0.15], strong, strong)[severity - 1] + mean)


def jpeg_compression(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    stream = BytesIO()
    qualities = of_size(image, [80, 65, 58, 50, 40], [65, 58, 50, 40, 25], [25, 18, 15, 10, 7])
    Image.fromarray(image).save(stream, "JPEG", quality=qualities[severity - 1])
    return np.asarray(Image.open(stream))


def pixelate(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    height, width, _ = image.shape
    medium = [0.9, 0.8, 0.7, 0.6, 0.5]
    share = of_size(image, [0.95, 0.9, 0.85, 0.75, 0.65], medium, [0.6, 0.5, 0.4, 0.3, 0.25])[severity - 1]
    coarse = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BOX))


def warped(image: np.ndarray, jitter_px: float, rng: Rng) -> np.ndarray:
    """Warp [H, W, 3] in [0, 1] by a random affine map: three corners of a central square move by up to `jitter_px`."""
    centre, third = np.array(image.shape[1::-1]) // 2, min(image.shape[:2]) // 3
    corners = centre + third * np.array([(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)])
    moved = corners + rng.uniform(-jitter_px, jitter_px, (3, 2))
    backward = AffineTransform(np.vstack([np.linalg.solve(np.c_[moved, np.ones(3)], corners).T, [0, 0, 1]]))
    return warp(image, backward, order=1, mode="reflect")  # scikit-image's "reflect" is SciPy's mirror


def elastic_transform(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    small = [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)]
    medium = [(0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)]
    # The script's numbers are px at a side of 224.
    large_px = [(488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)]
    shares = of_size(image, small, medium, np.array(large_px) / 224)[severity - 1]
    height, width, _ = image.shape
    amount, sigma, jitter = min(height, width) * np.array(shares)
    unit = warped(image / 255, jitter, rng)
    dx, dy = (
        gaussian(rng.uniform(-amount, amount, (height, width)), sigma=sigma, mode="reflect", truncate=3)
        for _ in range(2)
    )
    y, x = np.mgrid[:height, :width]
    shifted = [ndimage.map_coordinates(unit[..., c], [y + dy, x + dx], order=1, mode="reflect") for c in range(3)]
    return truncated(np.stack(shifted, -1))


SMALL_SPATTER = [
    (0.62, 0.1, 0.7, 0.7, 0.5),
    (0.65, 0.1, 0.8, 0.7, 0.5),
    (0.65, 0.3, 1, 0.69, 0.5),
    (0.65, 0.1, 0.7, 0.69, 0.6),
    (0.65, 0.1, 0.5, 0.68, 0.6),
]
MEDIUM_SPATTER = [
    (0.62, 0.1, 0.7, 0.7, 0.6),
    (0.65, 0.1, 0.8, 0.7, 0.6),
    (0.65, 0.3, 1, 0.69, 0.6),
    (0.65, 0.1, 0.7, 0.68, 0.6),
    (0.65, 0.1, 0.5, 0.67, 0.6),
]
LARGE_SPATTER = [
    (0.65, 0.3, 4, 0.69, 0.6),
    (0.65, 0.3, 3, 0.68, 0.6),
    (0.65, 0.3, 2, 0.68, 0.5),
    (0.65, 0.3, 1, 0.65, 1.5),
    (0.67, 0.4, 1, 0.65, 1.5),
]


def spatter(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    table = of_size(image, SMALL_SPATTER, MEDIUM_SPATTER, LARGE_SPATTER)
    mean, std, sigma, threshold, last = table[severity - 1]
    layer = gaussian(rng.normal(mean, std, image.shape[:2]), sigma=sigma)
    layer = np.where(layer < threshold, 0, layer)
    if severity <= 3:
        return truncated(image / 255 + last * water(layer)[..., None] * np.array([175, 238, 238]) / 255)
    share = gaussian((layer > threshold).astype(float), sigma=last)[..., None]
    share[share < 0.8] = 0
    return truncated(image / 255 * (1 - share) + share * np.array([63, 42, 20]) / 255)


RANDOM = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur"),
    *("snow", "frost", "fog", "elastic_transform", "spatter"),
)
DETERMINISTIC = (
    *("gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast", "saturate"),
    *("jpeg_compression", "pixelate"),
)
PLAIN = {name: globals()[name] for name in (*RANDOM, *DETERMINISTIC)}
