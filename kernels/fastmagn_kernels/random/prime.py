"""The random parameters of PRIME's views: what each slot of their stream gives.

    STREAM_PRIME, view j
        slot 0                     words: mix weight, -, -, -
        slot 1 + w                 words: chain w's exponential, its depth, -, -
        slot 16 + 8 w + d          words: primitive d of chain w, -, -, -
        slot 128 + 24 w + 3 d + p  words: the scalars of that primitive, if it is p
            DISPLACEMENT  the bound of the cut, the cut, the temperature
            COLOR         the highest frequency, the variance
            FILTER        the standard deviation
    STREAM_PRIME, view 2^16 + 64 j + 8 w + d
        slot b                     the primitive's normals (`rng.standard_normal`)

The distributions are those of the published code (github.com/amodas/PRIME-augmentations), which draws scalars and
displacements once for a batch. Here they are drawn for each image, unless `official` asks for that form: then they are
those of the batch's first sample and of chain 0.

Shape letters: J PRIME views, B batch, W chains (mixture_width), D primitives of a chain, K frequencies, P and Q modes
down and along the rows.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random.draws import MAX_DEPTH, RANDOM_DEPTH, chain_share
from fastmagn_kernels.random.rng import (
    STREAM_PRIME,
    below,
    log_uniform,
    philox4x32,
    standard_normal,
    stream_view_word,
    uniform,
)

# An id is never reused: runs must replay.
DISPLACEMENT = 0
COLOR = 1
FILTER = 2
NUM_PRIMITIVES = 3
NO_PRIMITIVE = -1  # beyond a chain's drawn depth

NUM_TAPS = 9
LOWEST_CUT = 2

_SLOT_CHAIN = 1
_SLOT_PRIMITIVE = 16
_SLOT_SCALARS = 128
_FIRST_NORMALS = 1 << 16


class Settings(NamedTuple):
    """Everything that the draws of a batch depend on, except the sample indices.

    Args:
        epoch: 0..2^32 - 1.
        key_0: The low 32 bits of the seed.
        key_1: The high 32 bits of the seed.
        height: Height of the images, px.
        width: Width of the images, px.
        mixture_width: Number of chains (W), 1..8.
        mixture_depth: Primitives of a chain, 1..8; -1 draws them from 1, 2, 3.
        color_frequencies: The highest frequency of a colour curve that can be drawn (K).
        color_variance: The largest variance of a curve's coefficients.
        displacement_cut: The highest cut of a displacement that can be drawn.
        filter_std: The largest standard deviation of a filter's weights.
        official: Whether a batch shares its scalars and displacements, and a filter's delta is off-centre.
    """

    epoch: int
    key_0: np.uint32
    key_1: np.uint32
    height: int
    width: int
    mixture_width: int
    mixture_depth: int
    color_frequencies: int
    color_variance: float
    displacement_cut: int
    filter_std: float
    official: bool

    @property
    def max_depth(self) -> int:
        """Primitives of the longest chain (D)."""
        return RANDOM_DEPTH if self.mixture_depth < 0 else self.mixture_depth

    @property
    def num_modes(self) -> tuple[int, int]:
        """How many modes a displacement has down and along the rows (P, Q), 1 or more; see `mode_variances`."""
        return tuple(max(1, min(self.displacement_cut, size - 2)) for size in (self.height, self.width))


class Plan(NamedTuple):
    """Which primitives a batch's views mix, and how.

    Args:
        primitives: The primitives' ids, int8 [J, B, W, D]; NO_PRIMITIVE beyond a chain's drawn depth.
        chain_weights: Dirichlet(1), float32 [J, B, W].
        mix_weight: Beta(1, 1), the share of the chains, float32 [J, B].
    """

    primitives: np.ndarray
    chain_weights: np.ndarray
    mix_weight: np.ndarray


class Place(NamedTuple):
    """A primitive's place: view, chain, step, the sample's index, and that of the batch's first sample."""

    j: int
    chain: int
    step: int
    index: int
    first: int


@jit
def prime_words(slot, j, index, settings):
    """Return the four words, uint32, of a slot of PRIME view `j` of one sample."""
    word = stream_view_word(STREAM_PRIME, j)
    return philox4x32(slot, word, index, settings.epoch, settings.key_0, settings.key_1)


@jit
def scalar_words(primitive, place, settings):
    """Return the four words, uint32, of a primitive's scalars."""
    chain, index = (0, place.first) if settings.official else (place.chain, place.index)
    slot = _SLOT_SCALARS + NUM_PRIMITIVES * (MAX_DEPTH * chain + place.step) + primitive
    return prime_words(slot, place.j, index, settings)


@jit
def fill_normals(out, place, shared, settings):
    """Fill `out`, float32 [N], with a primitive's normals; a shared one has those of the first sample's chain 0."""
    chain, index = (0, place.first) if shared else (place.chain, place.index)
    stream_view = _FIRST_NORMALS + MAX_DEPTH * (MAX_DEPTH * place.j + chain) + place.step
    standard_normal(out, STREAM_PRIME, stream_view, index, settings.epoch, settings.key_0, settings.key_1)


@jit
def draw_plan(j, index, settings, primitives, chain_weights):
    """Fill a view's `primitives`, int8 [W, D], and `chain_weights`, float32 [W]; return its mix weight, float32."""
    total = np.float32(0)
    for w in range(chain_weights.size):
        w0, w1, _, _ = prime_words(_SLOT_CHAIN + w, j, index, settings)
        chain_weights[w] = -log_uniform(w0)
        total += chain_weights[w]
        depth = settings.mixture_depth if settings.mixture_depth > 0 else 1 + below(w1, RANDOM_DEPTH)
        for d in range(primitives.shape[1]):
            word, _, _, _ = prime_words(_SLOT_PRIMITIVE + MAX_DEPTH * w + d, j, index, settings)
            primitives[w, d] = below(word, NUM_PRIMITIVES) if d < depth else NO_PRIMITIVE
    for w in range(chain_weights.size):
        chain_weights[w] = chain_share(chain_weights[w], total, chain_weights.size)
    word, _, _, _ = prime_words(0, j, index, settings)
    return np.float32(uniform(word))


@jit
def draw_filter(out, place, settings):
    """Fill `out`, float64 [9], with a filter's weights, row by row: a normal times sigma each, plus a delta.

    sigma is uniform in [0, filter_std). The delta is at the centre; in the official form it is at the last weight,
    which moves the image by a pixel.
    """
    w0, _, _, _ = scalar_words(FILTER, place, settings)
    sigma = settings.filter_std * uniform(w0)
    normals = np.empty(NUM_TAPS, np.float32)
    fill_normals(normals, place, False, settings)
    for tap in range(NUM_TAPS):
        out[tap] = sigma * np.float64(normals[tap])
    out[NUM_TAPS - 1 if settings.official else NUM_TAPS // 2] += 1.0


@jit
def draw_color(out, place, settings):
    """Fill `out`, float64 [3, N], with a curve's coefficients for each channel; return how many there are (K).

    Coefficient k - 1 belongs to sin(k pi c): a normal times sqrt(T), T uniform in [0, color_variance). K is uniform in
    1..color_frequencies; beyond it, `out` is 0.
    """
    w0, w1, _, _ = scalar_words(COLOR, place, settings)
    count = 1 + below(w0, settings.color_frequencies)
    scale = math.sqrt(settings.color_variance * uniform(w1))
    normals = np.empty(3 * count, np.float32)
    fill_normals(normals, place, False, settings)
    for channel in range(3):
        for k in range(out.shape[1]):
            out[channel, k] = scale * np.float64(normals[channel * count + k]) if k < count else 0.0
    return count


@jit
def arcsine(word):
    """Map a uint32 to a float64 in [0, 1] of the distribution Beta(1/2, 1/2)."""
    sine = math.sin(0.5 * math.pi * uniform(word))
    return sine * sine


@jit
def draw_cut(place, settings):
    """Draw a displacement's cut and its temperature T, float64.

    The cut is 2 plus Beta(1/2, 1/2) of the way to a bound that is uniform in 3..displacement_cut. T is Beta(1/2, 1/2)
    of the way from a typical displacement of half a pixel to the largest one without folds (the paper's formula).
    """
    w0, w1, w2, _ = scalar_words(DISPLACEMENT, place, settings)
    bound = LOWEST_CUT + 1 + below(w0, settings.displacement_cut - LOWEST_CUT)
    cut = min(bound, LOWEST_CUT + np.int64((bound + 1 - LOWEST_CUT) * arcsine(w1)))
    c = cut + 1e-6  # as the published code has it
    low = 1.0 / (math.pi * settings.width**2 * math.log(c))
    high = max(low, 4.0 / (math.pi**3 * c**2 * math.log(c)))
    return cut, low + (high - low) * arcsine(w2)


@jit
def alias(k, size):
    """Return the mode in 1..size - 2 that sin(k pi x) equals up to its sign at `size` equidistant x in [0, 1]; else 0.

    The x include both ends, so a period has 2 (size - 1) of them.
    """
    k = k % (2 * (size - 1)) if size > 1 else 0
    k = 2 * (size - 1) - k if k > size - 1 else k
    return 0 if k == size - 1 else k


@jit
def mode_variances(out, cut, height, width):
    """Fill `out`, float64 [P, Q], with the variances of a displacement's modes sin(p pi y) sin(q pi x).

    The field is the sum of all modes i, j >= 1 along x and y with r^2 = i^2 + j^2 < (cut + 1/2)^2, each with a normal
    coefficient of variance 1 / r^2. What is above the highest frequency of the pixels is, at the pixels, a lower mode:
    its variance is added there. The sum of independent normals is normal, so the field's distribution stays the same,
    of at most (H - 2) (W - 2) draws.
    """
    out[:] = 0.0
    along = np.empty(cut + 1, np.int64)
    for i in range(1, cut + 1):
        along[i] = alias(i, width)
    for j in range(1, cut + 1):
        p = alias(j, height)
        for i in range(1, cut + 1 if p > 0 else 0):
            r2 = i * i + j * j
            if r2 >= (cut + 0.5) * (cut + 0.5):
                break
            if along[i] > 0:
                out[p - 1, along[i] - 1] += 1.0 / r2


@functools.lru_cache(maxsize=16)
def mode_sines(num_modes: int, size: int) -> np.ndarray:
    """Return sin(k pi x), float64 [num_modes, size]: k from 1, x equidistant in [0, 1] with both ends."""
    return np.sin(np.pi * np.arange(1, num_modes + 1)[:, None] * np.linspace(0, 1, size))


@jit
def draw_displacement(out, place, settings):
    """Fill `out`, float64 [2, P, Q], with the coefficients of the displacements along x and y, in px.

    Returns:
        How many modes down and along the rows can differ from 0; beyond them, `out` is 0.
    """
    cut, temperature = draw_cut(place, settings)
    rows, columns = min(cut, max(1, settings.height - 2)), min(cut, max(1, settings.width - 2))
    variances = np.empty((rows, columns), np.float64)
    mode_variances(variances, cut, settings.height, settings.width)
    normals = np.empty(2 * rows * columns, np.float32)
    fill_normals(normals, place, settings.official, settings)
    out[:] = 0.0
    for field in range(2):
        scale = math.sqrt(temperature) * (settings.width if field == 0 else settings.height)
        for p in range(rows):
            for q in range(columns):
                normal = np.float64(normals[(field * rows + p) * columns + q])
                out[field, p, q] = scale * math.sqrt(variances[p, q]) * normal
    return rows, columns


@jit(nogil=True)
def fill_plan(plan, indices, settings):
    """Fill a `Plan` for the samples `indices`, int64 [B]."""
    primitives, chain_weights, mix_weight = plan
    for j in range(primitives.shape[0]):
        for i in range(indices.size):
            mix_weight[j, i] = draw_plan(j, indices[i], settings, primitives[j, i], chain_weights[j, i])


@jit
def place_of(row, indices, first):
    """Return the `Place` of a row, int64 [4]: view, position in the batch, chain, step."""
    return Place(row[0], row[2], row[3], indices[row[1]], first)


@jit(nogil=True)
def fill_filters(out, rows, indices, first, settings):
    """Fill `out`, float64 [N, 9], with the filters of `rows`, int64 [N, 4]."""
    for n in range(len(rows)):
        draw_filter(out[n], place_of(rows[n], indices, first), settings)


@jit(nogil=True)
def fill_colors(out, rows, indices, first, settings):
    """Fill `out`, float64 [N, 3, color_frequencies], with the colour curves of `rows`, int64 [N, 4]."""
    for n in range(len(rows)):
        draw_color(out[n], place_of(rows[n], indices, first), settings)


@jit(nogil=True)
def fill_displacements(out, rows, indices, first, settings):
    """Fill `out`, float64 [N, 2, P, Q], with the displacements of `rows`, int64 [N, 4]."""
    for n in range(len(rows)):
        draw_displacement(out[n], place_of(rows[n], indices, first), settings)
