"""The random parameters of the views: what each slot of their streams gives.

    STREAM_BASE, view 0
        slot 0               words: crop x, crop y, flip, order of the colour jitter
        slot 1               words: brightness, contrast, saturation, angle
    STREAM_AUGMIX, view j
        slot 0               words: mix weight, strength (random_aug_severity), -, -
        slot 1 + w           words: chain w's exponential, its depth, -, -
        slot 16 + 8 w + d    words: operation d of chain w, its level, its sign, -
    STREAM_SIGMA, view n
        slot 0               words: sigma, -, -, -
    STREAM_NOISE, view n
        slot b               elements b, b + Q, b + 2Q, b + 3Q of the noise (`rng.standard_normal`)

Each quantity has its own words, whether or not the configuration uses it. So to turn one off, or to change its range,
changes no other. The scalar functions are compiled here for the CPU, and by the CUDA kernels that call them for CUDA.

Shape letters: B batch, J AugMix views, N noise views, W chains (mixture_width), D operations of a chain.
"""

from itertools import permutations
from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit, jit_uncounted
from fastmagn_kernels.random.rng import (
    STREAM_AUGMIX,
    STREAM_BASE,
    STREAM_SIGMA,
    below,
    log_uniform,
    philox4x32,
    stream_view_word,
    uniform,
)

# The operations' ids, whose table is fastmagn/augment/operations.py. An id is never reused: runs must replay.
AUTOCONTRAST = 0
EQUALIZE = 1
POSTERIZE = 2
ROTATE = 3
SOLARIZE = 4
SHEAR_X = 5
SHEAR_Y = 6
TRANSLATE_X = 7
TRANSLATE_Y = 8
COLOR = 9
CONTRAST = 10
BRIGHTNESS = 11
SHARPNESS = 12
NO_OPERATION = -1  # beyond a chain's drawn depth

# Raise it when an id, a magnitude rule or a slot changes, because old runs then no longer replay.
OPS_VERSION = 1

# jitter_order -> the order in which the colour jitter applies brightness, contrast and saturation (0, 1, 2).
JITTER_ORDERS = np.array(list(permutations(range(3))), np.int64)

ANGLE_UNITS_PER_DEGREE = 64
RANDOM_DEPTH = 3  # a depth that is drawn is uniform in 1..3

MAX_WIDTH = 8
MAX_DEPTH = 8
_SLOT_CHAIN = 1
_SLOT_OPERATION = 16
_LOWEST_LEVEL = 0.1


class Settings(NamedTuple):
    """Everything that the draws of a batch depend on, except the sample indices.

    Args:
        epoch: 0..2^32 - 1.
        key_0: The low 32 bits of the seed.
        key_1: The high 32 bits of the seed.
        height: Height of the images, px.
        width: Width of the images, px.
        num_augmix: Number of AugMix views (J).
        num_noise: Number of noise views (N).
        padding_px: How far a crop can move from the centre, px.
        horizontal_flip: Whether a fair coin flips the image.
        color_jitter: How far the jitter's factors can be from 1, in 0..1.
        max_angle: The largest base rotation, in 1/64 degree.
        aug_severity: AugMix's strength, 1..10.
        random_aug_severity: Whether the strength is drawn from 1..aug_severity instead, for each view.
        mixture_width: Number of chains (W), 1..MAX_WIDTH.
        mixture_depth: Operations of a chain, 1..MAX_DEPTH; -1 draws them from 1..RANDOM_DEPTH.
        max_depth: Operations of the longest chain (D).
        num_ops: The operations that can be drawn have the ids 0..num_ops - 1.
        sigma_max: The largest standard deviation of the noise, for pixels in [0, 1].
    """

    epoch: int
    key_0: np.uint32
    key_1: np.uint32
    height: int
    width: int
    num_augmix: int
    num_noise: int
    padding_px: int
    horizontal_flip: bool
    color_jitter: float
    max_angle: int
    aug_severity: int
    random_aug_severity: bool
    mixture_width: int
    mixture_depth: int
    max_depth: int
    num_ops: int
    sigma_max: float


class BaseParams(NamedTuple):
    """The parameters of the base transforms, which make the clean views.

    Args:
        crop_x_px: Left edge of the crop in the padded image, int64 [B], 0..2 padding_px.
        crop_y_px: Top edge of the crop, int64 [B], 0..2 padding_px.
        flip: Whether left and right are exchanged, bool [B].
        jitter_order: The order of the jitter's parts, int64 [B], 0..5.
        brightness: Factor, float32 [B].
        contrast: Factor, float32 [B].
        saturation: Factor, float32 [B].
        angle: Counter-clockwise rotation in 1/64 degree, int64 [B].
    """

    crop_x_px: np.ndarray
    crop_y_px: np.ndarray
    flip: np.ndarray
    jitter_order: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    angle: np.ndarray


class AugMixParams(NamedTuple):
    """The parameters of the AugMix views.

    Args:
        ops: The operations' ids, int8 [J, B, W, D]; NO_OPERATION beyond a chain's drawn depth.
        magnitudes: Their signed magnitudes in the operation's unit, float64 [J, B, W, D].
        chain_weights: Dirichlet(1), float32 [J, B, W].
        mix_weight: Beta(1, 1), the share of the chains, float32 [J, B].
    """

    ops: np.ndarray
    magnitudes: np.ndarray
    chain_weights: np.ndarray
    mix_weight: np.ndarray


@jit
def draw_base(index, settings):
    """Draw the base transform of one sample.

    Returns:
        Crop x and y in 0..2 padding_px; flip; jitter order in 0..5; brightness, contrast and saturation, float32 in
        [1 - color_jitter, 1 + color_jitter]; angle in -max_angle..max_angle, 1/64 degree.
    """
    epoch, key_0, key_1 = settings.epoch, settings.key_0, settings.key_1
    word = stream_view_word(STREAM_BASE, 0)
    w0, w1, w2, w3 = philox4x32(0, word, index, epoch, key_0, key_1)
    v0, v1, v2, v3 = philox4x32(1, word, index, epoch, key_0, key_1)
    low, extent = 1.0 - settings.color_jitter, 2.0 * settings.color_jitter
    return (
        below(w0, 2 * settings.padding_px + 1),
        below(w1, 2 * settings.padding_px + 1),
        settings.horizontal_flip and below(w2, 2) == 1,
        below(w3, 6),
        np.float32(low + extent * uniform(v0)),
        np.float32(low + extent * uniform(v1)),
        np.float32(low + extent * uniform(v2)),
        below(v3, 2 * settings.max_angle + 1) - settings.max_angle,
    )


@jit
def augmix_words(slot, view, index, settings):
    """Return the four words, uint32, of a slot of AugMix view `view` of one sample."""
    word = stream_view_word(STREAM_AUGMIX, view)
    return philox4x32(slot, word, index, settings.epoch, settings.key_0, settings.key_1)


@jit
def draw_mix(view, index, settings):
    """Draw the mix weight, Beta(1, 1), float32 in [0, 1], and the strength, 1..10, of AugMix view `view`."""
    w0, w1, _, _ = augmix_words(0, view, index, settings)
    strength = settings.aug_severity
    if settings.random_aug_severity:
        strength = 1 + below(w1, settings.aug_severity)
    return np.float32(uniform(w0)), strength


@jit
def draw_chain(view, chain, index, settings):
    """Draw an exponential, float32, and the depth of chain `chain`. Normalised exponentials are Dirichlet(1)."""
    w0, w1, _, _ = augmix_words(_SLOT_CHAIN + chain, view, index, settings)
    depth = settings.mixture_depth
    if depth < 0:
        depth = 1 + below(w1, RANDOM_DEPTH)
    return -log_uniform(w0), depth


@jit
def chain_share(exponential, total, num_chains):
    """Return a chain's weight, float32, from its exponential and the sum of all chains', added in their order."""
    # Once in 2^25 draws of a single chain every exponential is 0: the weights are then equal, not 0 / 0.
    share, whole = (exponential, total) if total > 0 else (np.float32(1), np.float32(num_chains))
    return np.float32(share) / np.float32(whole)


@jit
def magnitude_of(op, level, negative, height, width):
    """Return the magnitude, float64, that AugMix gives an operation at `level` in [0, 10).

    `negative` changes the sign of the signed operations. Integers are truncated as AugMix's int_parameter does, and
    the expressions keep its order of operations.
    """
    sign = -1 if negative else 1
    if op < POSTERIZE:
        return 0.0
    # All divide by 10 as the last step, so that a GPU's threads do it together, whatever their operations.
    largest = 4.0 if op == POSTERIZE else (30.0 if op == ROTATE else (256.0 if op == SOLARIZE else 1.8))
    if op in (TRANSLATE_X, TRANSLATE_Y):
        largest = (width if op == TRANSLATE_X else height) / 3
    largest = 0.3 if op in (SHEAR_X, SHEAR_Y) else largest
    amount = level * largest / 10
    if op >= COLOR:
        return amount + 0.1
    if op in (SHEAR_X, SHEAR_Y):
        return sign * amount
    whole = np.int64(amount)
    if op == POSTERIZE:
        return np.float64(4 - whole)
    return np.float64(256 - whole if op == SOLARIZE else sign * whole)


@jit
def draw_operation(view, chain, step, index, strength, settings):
    """Draw operation `step` of a chain: its id, uniform in 0..num_ops - 1, and its magnitude at a uniform level."""
    w0, w1, w2, _ = augmix_words(_SLOT_OPERATION + MAX_DEPTH * chain + step, view, index, settings)
    op = below(w0, settings.num_ops)
    level = _LOWEST_LEVEL + (strength - _LOWEST_LEVEL) * uniform(w1)
    return op, magnitude_of(op, level, below(w2, 2) == 1, settings.height, settings.width)


@jit
def draw_sigma(view, index, epoch, key_0, key_1, sigma_max):
    """Draw the standard deviation, float32 in [0, sigma_max], of noise view `view` of one sample."""
    w0, _, _, _ = philox4x32(0, stream_view_word(STREAM_SIGMA, view), index, epoch, key_0, key_1)
    return np.float32(sigma_max * uniform(w0))


@jit
def fill_base(indices, settings, base):
    """Fill `base`, BaseParams, with the draws of `draw_base` for the samples `indices`, int64 [B]."""
    x, y, flip, order, brightness, contrast, saturation, angle = base
    for i in range(indices.size):
        x[i], y[i], flip[i], order[i], brightness[i], contrast[i], saturation[i], angle[i] = draw_base(
            indices[i], settings
        )


@jit_uncounted
def draw_augmix(i, indices, settings, augmix):
    """Fill `augmix`, AugMixParams, with the draws of all views of sample `indices[i]`."""
    ops, magnitudes, chain_weights, mix_weight = augmix
    num_views, _, num_chains, max_depth = ops.shape
    index = indices[i]
    for j in range(num_views):
        mix_weight[j, i], strength = draw_mix(j, index, settings)
        total = np.float32(0)
        for w in range(num_chains):
            exponential, depth = draw_chain(j, w, index, settings)
            chain_weights[j, i, w] = exponential
            total += exponential
            for d in range(max_depth):
                ops[j, i, w, d] = NO_OPERATION
                magnitudes[j, i, w, d] = 0.0
                if d < depth:
                    ops[j, i, w, d], magnitudes[j, i, w, d] = draw_operation(j, w, d, index, strength, settings)
        for w in range(num_chains):
            chain_weights[j, i, w] = chain_share(chain_weights[j, i, w], total, num_chains)


@jit
def fill_augmix(indices, settings, augmix):
    """Fill `augmix`, AugMixParams, with the draws of all views of the samples `indices`, int64 [B]."""
    for i in range(indices.size):
        draw_augmix(i, indices, settings, augmix)


@jit
def fill_sigma(indices, epoch, key_0, key_1, sigma_max, sigma):
    """Fill `sigma`, float32 [N, B], with the draws of `draw_sigma` for the samples `indices`, int64 [B]."""
    for n in range(sigma.shape[0]):
        for i in range(indices.size):
            sigma[n, i] = draw_sigma(n, indices[i], epoch, key_0, key_1, sigma_max)
