"""Every parameter of the views, drawn from Philox counters; what each slot of a stream means.

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

Each quantity has words of its own whether or not the configuration uses it, so turning one off, or changing its extent,
moves no other. The scalar functions are compiled for the CPU here, and for CUDA by the kernels that call them.

Legend: B batch, J AugMix views, N noise views, W chains (mixture_width), D operations of a chain.
"""

import numpy as np

from fastmagn_kernels.compiling import jit
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

# The operations' ids, whose table is fastmagn/augment/ops.py. An id is never reused: runs must replay.
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

ANGLE_UNITS_PER_DEGREE = 64
RANDOM_DEPTH = 3  # a depth that is drawn is uniform in 1..3

MAX_WIDTH = 8
MAX_DEPTH = 8
_SLOT_CHAIN = 1
_SLOT_OPERATION = 16
_LOWEST_LEVEL = 0.1


@jit
def draw_base(index, epoch, key_0, key_1, padding_px, horizontal_flip, color_jitter, max_angle):
    """The base transform of one sample.

    Args: `padding_px` int, `horizontal_flip` bool, `color_jitter` float in 0..1, `max_angle` int in 1/64 degree.

    Returns:
        crop x and y in 0..2 padding_px; flip; jitter order in 0..5; brightness, contrast and saturation, float32 in
        [1 - color_jitter, 1 + color_jitter]; angle in -max_angle..max_angle, 1/64 degree.
    """
    word = stream_view_word(STREAM_BASE, 0)
    w0, w1, w2, w3 = philox4x32(0, word, index, epoch, key_0, key_1)
    v0, v1, v2, v3 = philox4x32(1, word, index, epoch, key_0, key_1)
    low, extent = 1.0 - color_jitter, 2.0 * color_jitter
    return (
        below(w0, 2 * padding_px + 1),
        below(w1, 2 * padding_px + 1),
        horizontal_flip and below(w2, 2) == 1,
        below(w3, 6),
        np.float32(low + extent * uniform(v0)),
        np.float32(low + extent * uniform(v1)),
        np.float32(low + extent * uniform(v2)),
        below(v3, 2 * max_angle + 1) - max_angle,
    )


@jit
def draw_mix(view, index, epoch, key_0, key_1, aug_severity, random_aug_severity):
    """AugMix view `view` of one sample: the Beta(1, 1) mix weight, float32 in [0, 1], and the strength, 1..10."""
    w0, w1, _, _ = philox4x32(0, stream_view_word(STREAM_AUGMIX, view), index, epoch, key_0, key_1)
    strength = 1 + below(w1, aug_severity) if random_aug_severity else np.int64(aug_severity)
    return np.float32(uniform(w0)), strength


@jit
def draw_chain(view, chain, index, epoch, key_0, key_1, mixture_depth):
    """Chain `chain`: an exponential, float32 (normalised over the chains: Dirichlet(1)), and its depth."""
    slot = _SLOT_CHAIN + chain
    w0, w1, _, _ = philox4x32(slot, stream_view_word(STREAM_AUGMIX, view), index, epoch, key_0, key_1)
    depth = 1 + below(w1, RANDOM_DEPTH) if mixture_depth < 0 else np.int64(mixture_depth)
    return -log_uniform(w0), depth


@jit
def chain_share(exponential, total, num_chains):
    """A chain's weight, float32, of its exponential and the sum of all chains', added in their order."""
    # Every exponential is 0 once in 2^25 draws of a single chain: equal weights then, not 0 / 0.
    return exponential / total if total > 0 else np.float32(1.0 / num_chains)


@jit
def magnitude_of(op, level, negative, height, width):
    """The magnitude, float64, that AugMix gives an operation at `level` in [0, 10); signed operations by `negative`.

    Integers are truncated as AugMix's int_parameter does; the expressions keep its order of operations.
    """
    sign = -1 if negative else 1
    if op == POSTERIZE:
        return np.float64(4 - np.int64(level * 4 / 10))
    if op == ROTATE:
        return np.float64(sign * np.int64(level * 30 / 10))
    if op == SOLARIZE:
        return np.float64(256 - np.int64(level * 256 / 10))
    if op in (SHEAR_X, SHEAR_Y):
        return sign * (level * 0.3 / 10)
    if op == TRANSLATE_X:
        return np.float64(sign * np.int64(level * (width / 3) / 10))
    if op == TRANSLATE_Y:
        return np.float64(sign * np.int64(level * (height / 3) / 10))
    if op >= COLOR:
        return level * 1.8 / 10 + 0.1
    return 0.0


@jit
def draw_operation(view, chain, step, index, epoch, key_0, key_1, num_ops, strength, height, width):
    """Operation `step` of a chain: its id, uniform in 0..num_ops - 1, and its magnitude (level uniform)."""
    slot = _SLOT_OPERATION + MAX_DEPTH * chain + step
    w0, w1, w2, _ = philox4x32(slot, stream_view_word(STREAM_AUGMIX, view), index, epoch, key_0, key_1)
    op = below(w0, num_ops)
    level = _LOWEST_LEVEL + (strength - _LOWEST_LEVEL) * uniform(w1)
    return op, magnitude_of(op, level, below(w2, 2) == 1, height, width)


@jit
def draw_sigma(view, index, epoch, key_0, key_1, sigma_max):
    """Noise view `view` of one sample: its standard deviation, float32 in [0, sigma_max]."""
    w0, _, _, _ = philox4x32(0, stream_view_word(STREAM_SIGMA, view), index, epoch, key_0, key_1)
    return np.float32(sigma_max * uniform(w0))


@jit
def fill_base(
    indices, epoch, key_0, key_1, padding_px, horizontal_flip, color_jitter, max_angle,
    crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast, saturation, angle,
):  # fmt: skip
    """`draw_base` for int64 [B] samples into arrays [B]."""
    for i in range(indices.size):
        (
            crop_x_px[i],
            crop_y_px[i],
            flip[i],
            jitter_order[i],
            brightness[i],
            contrast[i],
            saturation[i],
            angle[i],
        ) = draw_base(
            indices[i], epoch, key_0, key_1, padding_px, horizontal_flip, color_jitter, max_angle
        )  # fmt: skip


@jit
def draw_augmix(
    i, indices, epoch, key_0, key_1, aug_severity, random_aug_severity, mixture_depth, num_ops, height, width,
    ops, magnitudes, chain_weights, mix_weight,
):  # fmt: skip
    """AugMix's draws for sample `indices[i]`, all its views; arguments as in `fill_augmix`."""
    num_views, _, num_chains, max_depth = ops.shape
    index = indices[i]
    for j in range(num_views):
        mix_weight[j, i], strength = draw_mix(j, index, epoch, key_0, key_1, aug_severity, random_aug_severity)
        total = np.float32(0)
        for w in range(num_chains):
            exponential, depth = draw_chain(j, w, index, epoch, key_0, key_1, mixture_depth)
            chain_weights[j, i, w] = exponential
            total += exponential
            for d in range(max_depth):
                ops[j, i, w, d] = NO_OPERATION
                magnitudes[j, i, w, d] = 0.0
                if d < depth:
                    ops[j, i, w, d], magnitudes[j, i, w, d] = draw_operation(
                        j, w, d, index, epoch, key_0, key_1, num_ops, strength, height, width
                    )
        for w in range(num_chains):
            chain_weights[j, i, w] = chain_share(chain_weights[j, i, w], total, num_chains)


@jit
def fill_augmix(
    indices, epoch, key_0, key_1, aug_severity, random_aug_severity, mixture_depth, num_ops, height, width,
    ops, magnitudes, chain_weights, mix_weight,
):  # fmt: skip
    """AugMix's draws for int64 [B] samples into ops int8 and magnitudes float64 [J, B, W, D], chain_weights float32
    [J, B, W] and mix_weight float32 [J, B]; ops beyond a chain's depth are NO_OPERATION."""
    for i in range(indices.size):
        draw_augmix(
            i, indices, epoch, key_0, key_1, aug_severity, random_aug_severity, mixture_depth, num_ops, height, width,
            ops, magnitudes, chain_weights, mix_weight,
        )  # fmt: skip


@jit
def fill_sigma(indices, epoch, key_0, key_1, sigma_max, sigma):
    """`draw_sigma` for int64 [B] samples into sigma float32 [N, B]."""
    for n in range(sigma.shape[0]):
        for i in range(indices.size):
            sigma[n, i] = draw_sigma(n, indices[i], epoch, key_0, key_1, sigma_max)
