"""C-bar's additive noise: blue noise as a mask, brownish noise, waves, plasma, Perlin noise. uint8 in, uint8 out.

A draw is a word of the image's stream, in the order in which the functions take them (word j is word j mod 4 of slot
j div 4). H x W are an image's sides, and `side` is the shorter one, to which the source's lengths are relative.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.smooth_math import cosine, level, sine
from fastmagn_kernels.corruptions.stream import fill_words
from fastmagn_kernels.random.rng import below, sin_cos_turn, uniform

_PERLIN_CELLS = 256
_PERLIN_OCTAVES = 5  # frequencies 1, 2, 4, 8, 16


@jit
def between(word, low, high):
    """Map a uint32 to a float64, uniform in [low, high)."""
    return low + (high - low) * uniform(word)


@jit
def fill_spectrum(out, words, sources, powers):
    """Fill `out`, complex128 [H, W // 2 + 1], with the half spectrum of a real image.

    Its inverse transform is the real part of that of P exp(i phi), where a word is a phase phi in turns. At each place
    k of `out`, `sources` [H, W // 2 + 1, 2] are the words of k and of -k, and `powers` half their P. The number of
    words stands for the phase 0.
    """
    sines, cosines = np.empty(words.size + 1), np.empty(words.size + 1)
    for j in range(words.size):
        s, c = sin_cos_turn(words[j])
        sines[j], cosines[j] = s, c
    sines[words.size], cosines[words.size] = 0.0, 1.0
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            i, j = sources[y, x, 0], sources[y, x, 1]
            p, q = powers[y, x, 0], powers[y, x, 1]
            out[y, x] = complex(p * cosines[i] + q * cosines[j], p * sines[i] - q * sines[j])


@jit(nogil=True)
def spectrum_batch(out, num_words, sources, powers, stream, indices):
    """Draw spectra: `out` is complex128 [N, C, H, W // 2 + 1], each of its C channels from `num_words` words."""
    for i in range(out.shape[0]):
        words = np.empty(out.shape[1] * num_words, np.uint32)
        fill_words(words, stream, indices[i])
        for c in range(out.shape[1]):
            fill_spectrum(out[i, c], words[c * num_words : (c + 1) * num_words], sources, powers)


@jit
def standard_deviation(values):
    """Return the standard deviation, float64, of float64 [H, W] about its mean. It sums columns, which vectorises."""
    height, width = values.shape
    sums, squares = np.zeros(width), np.zeros(width)
    for y in range(height):
        for x in range(width):
            sums[x] += values[y, x]
            squares[x] += values[y, x] * values[y, x]
    mean = sums.sum() / values.size
    return math.sqrt(squares.sum() / values.size - mean * mean)


@jit(nogil=True)
def mask_batch(out, images, noise, threshold):
    """Blacken the pixels of `images`, uint8 [N, H, W, 3], whose noise is not above `threshold` standard deviations.

    `noise` is float64 [N, 1, H, W]; `out` is like `images`.
    """
    for i in range(images.shape[0]):
        bound = threshold * standard_deviation(noise[i, 0])
        for y in range(images.shape[1]):
            for x in range(images.shape[2]):
                keep = np.uint8(1) if noise[i, 0, y, x] > bound else np.uint8(0)
                for c in range(3):
                    out[i, y, x, c] = images[i, y, x, c] * keep


@jit(nogil=True)
def add_noise_batch(out, images, noise, intensity):
    """Add noise, scaled to a standard deviation of `intensity` levels in each channel.

    `noise` is float64 [N, 3, H, W]; `images` and `out` are uint8 [N, H, W, 3].
    """
    for i in range(images.shape[0]):
        for c in range(3):
            scale = intensity / standard_deviation(noise[i, c])
            for y in range(images.shape[1]):
                for x in range(images.shape[2]):
                    out[i, y, x, c] = level(images[i, y, x, c] + scale * noise[i, c, y, x])


@jit(nogil=True)
def single_frequency_batch(out, images, intensity, stream, indices):
    """Add a plane wave of grey to `images`, uint8 [N, H, W, 3]; `out` is like `images`.

    Draws: one frequency in +-pi per pixel, the other within +-its magnitude, which of them belongs to x, and the phase.
    """
    _, height, width, _ = images.shape
    words = np.empty(4, np.uint32)
    wave = np.empty(width)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        along_x = between(words[0], -math.pi, math.pi)
        along_y = between(words[1], -abs(along_x), abs(along_x))
        if below(words[2], 2) == 1:
            along_x, along_y = along_y, along_x
        phase = between(words[3], 0.0, 2.0 * math.pi)
        for y in range(height):
            for x in range(width):
                wave[x] = intensity * sine(x * along_x + y * along_y + phase)
            for x in range(width):
                for c in range(3):
                    out[i, y, x, c] = level(images[i, y, x, c] + wave[x])


@jit(nogil=True)
def sine_rings_batch(out, images, intensity, stream, indices):
    """Add concentric rings with a sine along them to `images`, uint8 [N, H, W, 3]; `out` is like `images`.

    Draws: the centre's x and y, the waves of a turn (0..10), their height and the rings' width (0..side / 10 px).
    """
    _, height, width, _ = images.shape
    side = min(height, width)
    words = np.empty(5, np.uint32)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        centre_x, centre_y = width * uniform(words[0]), height * uniform(words[1])
        waves = 10.0 * uniform(words[2])
        wave_px, ring_px = side / 10 * uniform(words[3]), side / 10 * uniform(words[4])
        for y in range(height):
            dy = y - centre_y
            for x in range(width):
                dx = x - centre_x
                distance = math.sqrt(dx * dx + dy * dy) + math.sin(math.atan2(dx, dy) * waves) * wave_px
                shift = intensity * ((distance % ring_px) / ring_px - 0.5) if ring_px > 0.0 else 0.0
                for c in range(3):
                    out[i, y, x, c] = level(images[i, y, x, c] + shift)


@jit(nogil=True, error_model="numpy")  # checks for divisions by zero would keep LLVM from vectorising
def plasma_batch(out, images, intensity, stream, indices):
    """Mix `images`, uint8 [N, H, W, 3], with plasma of up to +-`intensity` levels; `out` is like `images`.

    Draws: the time in 0..6 pi, the folds (4 to 6), the sharpness in 1/2..1, and the scale in 0.075..0.2 sides.
    """
    _, height, width, _ = images.shape
    keep = 1.0 - intensity / 255.0
    words = np.empty(4, np.uint32)
    u, v = np.empty(width), np.empty(width)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        time, folds = between(words[0], 0.0, 6.0 * math.pi), 4 + below(words[1], 3)
        sharpness = between(words[2], 0.5, 1.0)
        scale = between(words[3], 0.075, 0.2) * min(height, width)
        pulse = math.sin(time)
        for y in range(height):
            for x in range(width):
                u[x], v[x] = x / scale, y / scale
            frequency, slowness, weakness = 1.0, 1.0, 1.0
            for _ in range(folds):
                for x in range(width):
                    r = cosine(v[x] * frequency + time / slowness) / weakness
                    s = sine(u[x] * frequency + time / slowness) / weakness
                    u[x] += r - 0.3 * s
                    v[x] += s + 0.3 * r
                frequency, slowness, weakness = frequency * 1.93, slowness * 1.15, weakness * (2.25 - sharpness)
            for x in range(width):
                red, blue = sine(u[x] - time), sine(v[x] + time)
                green = sine((u[x] + v[x] + pulse) * 0.5)
                out[i, y, x, 0] = level(keep * images[i, y, x, 0] + intensity * red)
                out[i, y, x, 1] = level(keep * images[i, y, x, 1] + intensity * green)
                out[i, y, x, 2] = level(keep * images[i, y, x, 2] + intensity * blue)


@jit
def fill_lattice(order, gradients, words):
    """Fill Perlin's lattice from 768 words: a permutation of 256 cells, int64, and unit vectors, float64 [256, 2].

    The first 512 words are the vectors' coordinates, each of 512 values in [-1, 1); the others shuffle the cells, from
    the last to the first. A vector drawn as (0, 0) stays so, where the source divides 0 by 0.
    """
    for k in range(_PERLIN_CELLS):
        a = (below(words[2 * k], 512) - 256.0) / 256.0
        b = (below(words[2 * k + 1], 512) - 256.0) / 256.0
        length = math.sqrt(a * a + b * b)
        length = length if length > 0.0 else 1.0
        gradients[k, 0], gradients[k, 1] = a / length, b / length
        order[k] = k
    for step in range(_PERLIN_CELLS):
        k = _PERLIN_CELLS - 1 - step
        j = below(words[2 * _PERLIN_CELLS + step], _PERLIN_CELLS)
        order[k], order[j] = order[j], order[k]


@jit
def lattice_noise(x, y, order, gradients):
    """Return Perlin's noise, float64, at (x, y), both at least 0."""
    mask = _PERLIN_CELLS - 1
    left, top = int(x), int(y)
    dx, dy = x - left, y - top
    i, j = order[left & mask], order[(left + 1) & mask]
    a, b = order[(i + top) & mask], order[(j + top) & mask]
    c, d = order[(i + ((top + 1) & mask)) & mask], order[(j + ((top + 1) & mask)) & mask]
    sx, sy = dx * dx * (3.0 - 2.0 * dx), dy * dy * (3.0 - 2.0 * dy)
    u = dx * gradients[a, 0] + dy * gradients[a, 1]
    v = (dx - 1.0) * gradients[b, 0] + dy * gradients[b, 1]
    upper = u + sx * (v - u)
    u = dx * gradients[c, 0] + (dy - 1.0) * gradients[c, 1]
    v = (dx - 1.0) * gradients[d, 0] + (dy - 1.0) * gradients[d, 1]
    return 1.5 * (upper + sy * (u + sx * (v - u) - upper))


@jit(nogil=True)
def perlin_batch(out, images, share, stream, indices):
    """Mix `images`, uint8 [N, H, W, 3], with a `share` of Perlin's turbulence, from grey to white.

    `out` is like `images`. The draws are those of `fill_lattice`. A side has seven cells of the lowest frequency.
    """
    _, height, width, _ = images.shape
    cell_px = 32.0 * min(height, width) / 224.0
    words = np.empty(3 * _PERLIN_CELLS, np.uint32)
    order, gradients = np.empty(_PERLIN_CELLS, np.int64), np.empty((_PERLIN_CELLS, 2))
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        fill_lattice(order, gradients, words)
        for y in range(height):
            for x in range(width):
                turbulence, frequency = 0.0, 1.0
                for _ in range(_PERLIN_OCTAVES):
                    noise = lattice_noise(frequency * (y / cell_px), frequency * (x / cell_px), order, gradients)
                    turbulence += abs(noise) / frequency
                    frequency *= 2.0
                white = 255.0 * share * min(0.5 * turbulence + 0.5, 1.0)
                for c in range(3):
                    out[i, y, x, c] = level((1.0 - share) * images[i, y, x, c] + white)
