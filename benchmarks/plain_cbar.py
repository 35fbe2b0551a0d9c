"""C-bar's corruptions in plain code, image by image, with NumPy, SciPy and scikit-image.

The kernels are tested and timed against this code, which is independent of them and has its own parameter tables. Each
function takes one image, uint8 [H, W, 3], a severity, 1..5, and a generator, and returns uint8 [H, W, 3]. It draws in
the order of the kernels' words, so that a generator of these words (tests/helpers/kernel_draws.py) gives their image.
"""

import itertools
from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.draw import line_aa

Rng = np.random.Generator

LEVELS = {  # CIFAR-10-C-bar's, then ImageNet-C-bar's
    "blue_noise_sample": ((0.7, 1.4, 2.1, 3.5, 4.2), (0.8, 1.6, 2.4, 4.0, 5.6)),
    "brownish_noise": ((2.5, 4.0, 5.5, 6.5, 7.0), (1.0, 2.0, 3.0, 4.0, 5.0)),
    "checkerboard_cutout": ((1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 3.0, 4.0, 5.0, 6.0)),
    "inverse_sparkles": ((1.0, 1.5, 2.5, 4.5, 5.0), (1.0, 2.0, 4.0, 9.0, 10.0)),
    "sparkles": ((0.7, 3.5, 5.6, 6.3, 7.0), (1.0, 2.0, 3.0, 5.0, 6.0)),
    "pinch_and_twirl": ((5.5, 6.0, 6.5, 8.5, 10.0),),
    "ripple": ((5.5, 6.0, 6.5, 7.5, 8.0),),
    "circular_motion_blur": ((2.8, 3.6, 4.4, 5.2, 6.0),),
    "lines": ((0.5, 1.0, 1.5, 2.0, 2.5),),
    "transverse_chromatic_abberation": ((1.0, 2.0, 5.0, 9.0, 10.0),),
    "caustic_refraction": ((2.35, 3.2, 4.9, 6.6, 9.15),),
    "cocentric_sine_waves": ((3.0, 5.0, 8.0, 9.0, 10.0),),
    "perlin_noise": ((4.6, 5.2, 5.8, 7.6, 8.8),),
    "plasma_noise": ((4.75, 7.0, 8.5, 9.25, 10.0),),
    "single_frequency_greyscale": ((1.0, 1.5, 2.0, 4.5, 5.0),),
}


def share(name: str, image: np.ndarray, severity: int) -> float:
    """The level of a corruption at a severity for an image of this size, as a share of 10."""
    tables = LEVELS[name]
    return tables[-1 if min(image.shape[:2]) >= 64 else 0][severity - 1] / 10


def to_levels(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def grid(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Row and column of every pixel, and the image's side."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    return y, x, min(image.shape[:2])


def between(rng: Rng, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear samples of an image; what lies outside is black. `y` and `x` may have any shape."""
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = (y - top)[..., None], (x - left)[..., None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
        return np.where(inside[..., None], image[row % image.shape[0], column % image.shape[1]].astype(float), 0.0)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def spectral_noise(image: np.ndarray, rng: Rng, amplitude: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Noise of unit deviation: the real part of the inverse transform of random phases, mirrored about the middle."""
    height, width, _ = image.shape
    half = width // 2
    phase = rng.random((height, half))
    middle = []
    if width % 2:
        column = rng.random(height // 2)
        centre = [0.0] if height % 2 else []
        middle = [np.concatenate([column, centre, column[::-1]])[:, None]]
    phase = 2 * np.pi * np.concatenate([phase, *middle, phase[::-1, ::-1]], axis=1)
    y, x = np.mgrid[:height, :width]
    side = min(height, width)
    distance = np.hypot((y - height / 2) * side / height, (x - width / 2) * side / width)
    spectrum = np.roll(amplitude(distance) * np.exp(1j * phase), (height // 2, half), axis=(0, 1))
    noise = np.fft.ifft2(spectrum).real
    return noise / noise.std()


def blue_noise_sample(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    threshold = 3 * share("blue_noise_sample", image, severity) - 2.5
    return image * (spectral_noise(image, rng, lambda f: f) > threshold)[..., None]


def brownish_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    noise = [spectral_noise(image, rng, lambda f: 1 / (f**2 + 1)) for _ in range(3)]
    return to_levels(image + 64 * share("brownish_noise", image, severity) * np.stack(noise, axis=-1))


def checkerboard_cutout(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    y, x, side = grid(image)
    angle, field = between(rng, 0, 2 * np.pi), max(between(rng, 0.1, 0.25) * side, 1)
    count = int(4 * side // field)
    cut = rng.random((count, count)) < share("checkerboard_cutout", image, severity)
    row = (np.cos(angle) * y + np.sin(angle) * x) / field
    column = (-np.sin(angle) * y + np.cos(angle) * x) / field
    black = np.floor(row) % 2 == np.floor(column) % 2
    hidden = black & cut[np.trunc(row).astype(int) % count, np.trunc(column).astype(int) % count]
    return np.where(hidden[..., None], np.uint8(128), image)


def lines(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    height, width, _ = image.shape
    side = min(height, width)
    mean, variation = between(rng, 0, 2 * np.pi), between(rng, 0.1, 1)
    out = image.copy()
    for _ in range(int(share("lines", image, severity) * side)):
        row, column = height * rng.random(), width * rng.random()
        angle = mean + 2 * np.pi * variation * (rng.random() - 0.5)
        down, across = np.cos(angle) * side, np.sin(angle) * side
        ends = int(row - down), int(column - across), int(row + down), int(column + across)
        rows, columns, shares = line_aa(*ends)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        rows, columns, shares = rows[inside], columns[inside], shares[inside, None]
        out[rows, columns] = (1 - shares) * out[rows, columns] + shares * 128
    return out


def glow(image: np.ndarray, centre: tuple[float, float], rays: np.ndarray, exponent: float) -> np.ndarray:
    """How bright a sparkle with rays of these lengths is at each pixel, in 0..1: [H, W, 1]."""
    y, x, _ = grid(image)
    dy, dx = y - centre[0], x - centre[1]
    place = (np.arctan2(dx, dy) + np.pi) / (2 * np.pi) * len(rays)
    ray = np.floor(place).astype(int)
    f = place - ray
    length = rays[ray % len(rays)] * (1 - f) + rays[(ray + 1) % len(rays)] * f
    strength = (length**2 / (dy**2 + dx**2 + 1e-4)) ** exponent
    return np.clip((1 - (f - 0.5) ** 2) * strength, 0, 1)[..., None]


def sparkles(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    height, width, _ = image.shape
    radius = 0.1 * share("sparkles", image, severity) * min(height, width)
    centres = rng.random((5, 2)) * (height, width)
    counts = rng.integers(50, 200, 5)
    out = image.astype(float)
    for centre, count in zip(centres, counts, strict=True):
        rays = np.maximum(1, radius + 0.25 * radius * rng.standard_normal(count))
        out += glow(image, centre, rays, 1) * (255 - out)
    return to_levels(out)


def inverse_sparkles(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    height, width, _ = image.shape
    radius = 0.25 * min(height, width)
    centre = between(rng, 0.25, 0.75) * height, between(rng, 0.25, 0.75) * width
    rays = radius + 0.25 * radius * rng.standard_normal(rng.integers(50, 200))
    left = glow(image, centre, rays, 65 * share("inverse_sparkles", image, severity) / 50)
    return to_levels(255 + left * (image - 255.0))


def pinch_and_twirl(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    height, width, _ = image.shape
    side, level = min(height, width), share("pinch_and_twirl", image, severity)
    cells = 5 if side >= 64 else 3
    cell = side // cells
    radius = cell / 2
    out = image.copy()
    for j in range(cells * width // side):
        for i in range(cells * height // side):
            angle = (1, -1)[rng.integers(0, 2)] * level * np.pi / 2
            dy, dx = np.mgrid[:cell, :cell] - radius
            distance = np.hypot(dy, dx) / radius
            moved = (distance <= 1) & (distance > 0)
            d = np.where(moved, distance, 1)
            stretch, a = np.sin(np.pi / 2 * d) ** -(0.4 * level + 0.1), angle * (1 - d) ** 2
            y = i * cell + radius + stretch * (dy * np.cos(a) - dx * np.sin(a))
            x = j * cell + radius + stretch * (dy * np.sin(a) + dx * np.cos(a))
            part = np.s_[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell]
            out[part] = to_levels(bilinear(image, y, x).astype(np.float32))
    return out


def ripple(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    y, x, side = grid(image)
    height = 0.025 * share("ripple", image, severity) * side
    waves, phases = (0.1 + 0.2 * rng.random(2)) * side, 2 * np.pi * rng.random(2)
    y += height * np.sin(2 * np.pi * y / waves[0] + phases[0])
    x += height * np.sin(2 * np.pi * x / waves[1] + phases[1])
    return to_levels(bilinear(image, y, x))


def circular_motion_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    places = np.linspace(-1, 1, 21)
    angles, weights = 15 * share("circular_motion_blur", image, severity) * places, np.exp(-2 * places**2)
    turned = [ndimage.rotate(image.astype(float), angle, reshape=False) for angle in angles]
    return to_levels(np.average(turned, axis=0, weights=weights))


def transverse_chromatic_abberation(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    growth = 0.5 * share("transverse_chromatic_abberation", image, severity)
    scales = np.array([1, 1 + growth / 2, 1 + growth])[rng.permutation(3)]
    out = image.copy()
    for c in range(3):
        zoomed = ndimage.zoom(image[..., c], scales[c], prefilter=False)
        top, left = ((new - old) // 2 for new, old in zip(zoomed.shape, image.shape[:2], strict=True))
        out[..., c] = zoomed[top : top + image.shape[0], left : left + image.shape[1]]
    return out


def caustic_refraction(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    y, x, side = grid(image)
    level = share("caustic_refraction", image, severity)
    time, size = between(rng, 0.5, 2), between(rng, 0.75, 1.25) * side
    p, q = (line / size % 1 * 2 * np.pi - 250 for line in (y, x))
    a, b, light = p, q, np.ones_like(p)
    for n in range(1, 6):
        t = time * (1 - 3.5 / n)
        a, b = p + np.cos(t - a) + np.sin(t + b), q + np.sin(t - b) + np.cos(t + a)
        light += 1 / np.hypot(p * 0.005 / np.sin(a + t), q * 0.005 / np.cos(b + t))
    waves = np.pad(ndimage.gaussian_filter(np.minimum(np.abs(1.17 - (light / 5) ** 1.4) ** 8, 1), 1), 1)
    slope_y, slope_x = waves[2:, 1:-1] - waves[:-2, 1:-1], waves[1:-1, 2:] - waves[1:-1, :-2]
    cosine = 1 / np.sqrt(slope_y**2 + slope_x**2 + 1)
    bend = np.cos(np.arcsin(np.sqrt(1 - cosine**2) / 4)) - cosine / 4
    bend = np.where(cosine >= 0.999, 0, bend * cosine) * 0.5 * level * side
    seen = bilinear(image, y + np.round(slope_y * bend, 3), x + np.round(slope_x * bend, 3)) / 255
    return to_levels(255 * np.clip(seen + ((slope_y - slope_x) * 2 * level)[..., None], 0, 1))


def cocentric_sine_waves(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    y, x, side = grid(image)
    x, y = x - rng.random() * image.shape[1], y - rng.random() * image.shape[0]
    waves, height, width = 10 * rng.random(), side / 10 * rng.random(), side / 10 * rng.random()
    rings = (np.hypot(x, y) + np.sin(np.arctan2(x, y) * waves) * height) / width % 1 - 0.5
    return to_levels(image + 128 * share("cocentric_sine_waves", image, severity) * rings[..., None])


def perlin_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    y, x, side = grid(image)
    gradients = (rng.integers(0, 512, (256, 2)) - 256) / 256
    gradients /= np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-9)
    order = np.arange(256)
    for k in range(255, -1, -1):
        j = int(rng.integers(0, 256))
        order[[k, j]] = order[[j, k]]
    total = np.zeros_like(y)
    for frequency in (1, 2, 4, 8, 16):
        v, u = y * frequency * 7 / side, x * frequency * 7 / side
        top, left = np.floor(v).astype(int), np.floor(u).astype(int)
        v, u = v - top, u - left
        corner = {}
        for i, j in itertools.product((0, 1), (0, 1)):
            g = gradients[order[(order[(top + i) % 256] + (left + j) % 256) % 256]]
            corner[i, j] = (v - i) * g[..., 0] + (u - j) * g[..., 1]
        smooth_v, smooth_u = (t**2 * (3 - 2 * t) for t in (v, u))
        lines_ = [corner[0, j] + smooth_v * (corner[1, j] - corner[0, j]) for j in (0, 1)]
        total += np.abs(1.5 * (lines_[0] + smooth_u * (lines_[1] - lines_[0]))) / frequency
    cloud = np.clip(0.5 * total + 0.5, 0, 1)[..., None]
    alpha = 0.5 * share("perlin_noise", image, severity)
    return to_levels((1 - alpha) * image + 255 * alpha * cloud)


def plasma_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    y, x, side = grid(image)
    time, folds, sharpness = between(rng, 0, 6 * np.pi), rng.integers(4, 7), between(rng, 0.5, 1)
    scale = between(rng, 0.075, 0.2) * side
    v, u = y / scale, x / scale
    for k in range(folds):
        angle = time / 1.15**k
        r = np.cos(v * 1.93**k + angle) / (2.25 - sharpness) ** k
        s = np.sin(u * 1.93**k + angle) / (2.25 - sharpness) ** k
        u, v = u + r - 0.3 * s, v + s + 0.3 * r
    colours = np.stack([np.sin(u - time), np.sin((u + v + np.sin(time)) / 2), np.sin(v + time)], axis=-1)
    intensity = 64 * share("plasma_noise", image, severity)
    return to_levels((1 - intensity / 255) * image + intensity * colours)


def single_frequency_greyscale(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    y, x, _ = grid(image)
    first = between(rng, -np.pi, np.pi)
    second = between(rng, -abs(first), abs(first))
    along_x, along_y = np.array([first, second])[rng.permutation(2)]
    wave = np.sin(x * along_x + y * along_y + between(rng, 0, 2 * np.pi))
    return to_levels(image + 196 * share("single_frequency_greyscale", image, severity) * wave[..., None])


PLAIN_CBAR = {name: globals()[name] for name in LEVELS}
