"""The random parameters of a policy, of erasing and of noise patches: what each slot of their streams gives.

    STREAM_OPERATIONS, view 0
        slot 0               words: sub-policy, -, -, -
        slot 1 + d           words: the row of step d, whether it is applied, -, -
    STREAM_ERASING, view 0
        slot 0               words: whether an area is erased, centre x and centre y of a square, -
        slot 1 + t, 0..9     words of try t at a rectangle: area, ratio, left, top
    STREAM_ERASING, view 1
        slot b               words: the bytes of elements 16 b .. 16 b + 15 of the image, where noise fills it
    STREAM_PATCH, view 0
        slot 0               words: whether there is a patch, its noise, its strength, the share left out
        slot 1               words: area, ratio, left, top
        slot 2               words: the exponential by which a point is inside its ball, -, -, -
    STREAM_PATCH, views 1, 2, 3
        slot b               words of elements b, b + Q, b + 2Q, b + 3Q, with Q as in `rng.standard_normal`:
                             view 1: their noise; for impulses, which elements are hit
                             view 2: whether they are left out; for impulses, their values
                             view 3: their second exponential, for l_0.5

A policy is a table of concrete operations, made on the host for one image size: matrices, shifts and factors are
computed there, so that drawing is a choice of rows and the kernels need no functions of libm. The scalar functions are
compiled here for the CPU, and by the CUDA kernels that call them for CUDA.

Shape letters: B batch, S sub-policies, D steps, R rows.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random.rng import (
    STREAM_ERASING,
    STREAM_OPERATIONS,
    STREAM_PATCH,
    below,
    philox4x32,
    stream_view_word,
    uniform,
)

# What a row of a table does, and its parameters. A kind is never reused: runs must replay.
COPY = 0
SHIFT = 1  # dx, dy in px: target(x, y) = source(x + dx, y + dy)
SHIFT_ROWS = 2  # as NEAREST, where each row moves by whole pixels
NEAREST = 3  # Pillow's affine matrix in 16.16 fixed point: a0, a1, a2, a3, a4, a5
SHEAR_X = 4  # an affine matrix; bilinear
SHEAR_Y = 5  # likewise
AFFINE = 6  # likewise
AUTOCONTRAST = 7
EQUALIZE = 8
INVERT = 9
POSTERIZE = 10  # bits
SOLARIZE = 11  # threshold
COLOR = 12  # factor
CONTRAST = 13  # factor
BRIGHTNESS = 14  # factor
SHARPNESS = 15  # factor

# Raise it when a kind, a slot or the rows of a named policy change, because old runs then no longer replay.
POLICY_VERSION = 1

NO_ROW = -1  # a step that is not applied

# The noises of a patch, in the order of `Patches.strengths`.
NOISES = ("linf", "l2", "l1", "l05", "impulse", "gaussian")
LINF, L2, L1, L05, IMPULSE, GAUSSIAN = range(len(NOISES))

# What an erased area is filled with.
ERASE_COLOUR, ERASE_NOISE = 0, 1

_TRIES = 10
_NUM_RATIOS = 1024
_MIN_RATIO, _MAX_RATIO = 0.3, 3.3
_ROUNDING = 1.5 * 2.0**52


class Table(NamedTuple):
    """A policy for images of one size.

    Args:
        kinds: What each row does, int8 [R].
        parameters: Its parameters, float64 [R, 6].
        thresholds: A row is applied if a word, 0..2^32 - 1, is below its threshold: uint64 [R].
        steps: The first row of each step and the number of its rows, of which one is drawn uniformly: int64 [S, D, 2].
        fill: The colour of what comes from outside the image, uint8 [3].
    """

    kinds: np.ndarray
    parameters: np.ndarray
    thresholds: np.ndarray
    steps: np.ndarray
    fill: np.ndarray


class Erasing(NamedTuple):
    """How an area of an image is erased.

    Args:
        threshold: It is erased if a word, 0..2^32 - 1, is below: int.
        min_area: Smallest share of the image's area, 0..1.
        max_area: Largest share.
        square_px: Side of a square around a drawn pixel, which the border cuts; 0 draws a rectangle instead.
        fill: ERASE_COLOUR or ERASE_NOISE.
        colour: uint8 [3].
    """

    threshold: int
    min_area: float
    max_area: float
    square_px: int
    fill: int
    colour: np.ndarray


class Patches(NamedTuple):
    """The noise patches.

    Args:
        threshold: There is a patch if a word, 0..2^32 - 1, is below: int.
        noises: The noises that can be drawn, each as likely as the others: int64 [N].
        strengths: The largest strength of each of NOISES, float64 [6].
        min_area: Smallest share of the image's area, 0..1.
        max_area: Largest share.
        max_left_out: Largest share of the patch's values that keep their value, 0..1.
        clipped: Whether the values are clipped to [0, 1].
    """

    threshold: int
    noises: np.ndarray
    strengths: np.ndarray
    min_area: float
    max_area: float
    max_left_out: float
    clipped: bool


class RecipeParams(NamedTuple):
    """What is drawn for the clean views of a batch beside `draws.BaseParams`.

    Args:
        rows: The row of each step in the policy's table, int32 [B, D]; NO_ROW if it is not applied.
        erased: Left, top, width and height of the erased area, int32 [B, 4]; of width 0 if there is none.
        patched: The patch's likewise.
        noise: The patch's noise, an index into NOISES, int8 [B].
        strength: Its strength, float32 [B].
        left_out: The share of its values that are left out, float32 [B].
    """

    rows: np.ndarray
    erased: np.ndarray
    patched: np.ndarray
    noise: np.ndarray
    strength: np.ndarray
    left_out: np.ndarray


class Recipe(NamedTuple):
    """Everything about the clean views of a batch that comes after `draws.BaseParams`.

    Args:
        table: The policy.
        erasing: The erased areas.
        patches: The noise patches.
        params: What is drawn.
        sqrt_ratios: `sqrt_ratios()`.
    """

    table: Table
    erasing: Erasing
    patches: Patches
    params: RecipeParams
    sqrt_ratios: np.ndarray


@functools.cache
def sqrt_ratios() -> np.ndarray:
    """Return the square roots of 1,024 ratios of a rectangle's height and width, log-uniform in [0.3, 3.3]: float64.

    Python computes them because the last bit of libm differs between the engines.
    """
    low, high = math.log(_MIN_RATIO), math.log(_MAX_RATIO)
    return np.array([math.exp((low + (high - low) * (k + 0.5) / _NUM_RATIOS) / 2) for k in range(_NUM_RATIOS)])


@jit
def draw_sub_policy(index, epoch, key_0, key_1, count):
    """Draw the sub-policy of one sample, uniform in 0..count - 1: int64."""
    word, _, _, _ = philox4x32(0, stream_view_word(STREAM_OPERATIONS, 0), index, epoch, key_0, key_1)
    return below(word, count)


@jit
def draw_row(step, index, epoch, key_0, key_1, first, count, thresholds):
    """Draw the row of step `step` of one sample among `count` rows from `first` on; NO_ROW if it is not applied."""
    if count == 0:
        return np.int64(NO_ROW)
    which, gate, _, _ = philox4x32(1 + step, stream_view_word(STREAM_OPERATIONS, 0), index, epoch, key_0, key_1)
    row = first + below(which, count)
    return row if np.uint64(gate) < thresholds[row] else np.int64(NO_ROW)


@jit
def rounded(value):
    """Return a float64 in 0..2^51, rounded to the nearest integer, ties to even: int64. numba's CUDA has no rint."""
    return np.int64((value + _ROUNDING) - _ROUNDING)


@jit
def rectangle_sides(area_word, ratio_word, height, width, min_area, max_area, ratios):
    """Return the height and width, int64, px, of a rectangle of drawn area and ratio; they can exceed the image's."""
    area = height * width * (min_area + (max_area - min_area) * uniform(area_word))
    ratio = ratios[below(ratio_word, ratios.size)]
    side = math.sqrt(area)
    return rounded(side * ratio), rounded(side / ratio)


@jit
def draw_erased(index, epoch, key_0, key_1, height, width, erasing, ratios):
    """Draw the erased area of one sample: left, top, width, height, int64, px; 0, 0, 0, 0 if there is none.

    A rectangle is torchvision's RandomErasing's: the first of ten that is smaller than the image in both directions.
    """
    word = stream_view_word(STREAM_ERASING, 0)
    gate, centre_x, centre_y, _ = philox4x32(0, word, index, epoch, key_0, key_1)
    nothing = np.int64(0)
    if np.uint64(gate) >= np.uint64(erasing.threshold):
        return nothing, nothing, nothing, nothing
    if erasing.square_px > 0:
        half = erasing.square_px // 2
        x, y = below(centre_x, width), below(centre_y, height)
        left, top = max(x - half, nothing), max(y - half, nothing)
        return (
            left,
            top,
            min(x - half + erasing.square_px, width) - left,
            min(y - half + erasing.square_px, height) - top,
        )
    for attempt in range(_TRIES):
        w0, w1, w2, w3 = philox4x32(1 + attempt, word, index, epoch, key_0, key_1)
        box_height, box_width = rectangle_sides(w0, w1, height, width, erasing.min_area, erasing.max_area, ratios)
        if 0 < box_height < height and 0 < box_width < width:
            left, top = below(w2, width - box_width + 1), below(w3, height - box_height + 1)
            return left, top, box_width, box_height
    return nothing, nothing, nothing, nothing


@jit
def draw_patch(index, epoch, key_0, key_1, height, width, patches, ratios):
    """Draw the noise patch of one sample.

    Returns:
        Left, top, width, height, int64, px, of which the last two are 0 if there is none; an index into NOISES, int64;
        the strength, float32, uniform in (0, 1] of the largest; the share of values left out, float32.
    """
    word = stream_view_word(STREAM_PATCH, 0)
    gate, which, strength, share = philox4x32(0, word, index, epoch, key_0, key_1)
    w0, w1, w2, w3 = philox4x32(1, word, index, epoch, key_0, key_1)
    noise = patches.noises[below(which, patches.noises.size)]
    strength = np.float32(patches.strengths[noise] * (1.0 - uniform(strength)))
    left_out = np.float32(patches.max_left_out * uniform(share))
    nothing = np.int64(0)
    if np.uint64(gate) >= np.uint64(patches.threshold):
        return nothing, nothing, nothing, nothing, noise, strength, left_out
    box_height, box_width = rectangle_sides(w0, w1, height, width, patches.min_area, patches.max_area, ratios)
    # What is too long in one direction is cut there, and keeps its share of the area in the other.
    area = patches.min_area + (patches.max_area - patches.min_area) * uniform(w0)
    whole = np.int64(area >= 1.0)  # then also a side that is as long as the image's: the other may be a pixel short
    if box_height > height - whole:
        box_height, box_width = np.int64(height), rounded(width * area)
    elif box_width > width - whole:
        box_height, box_width = rounded(height * area), np.int64(width)
    left, top = below(w2, width - box_width + 1), below(w3, height - box_height + 1)
    return left, top, box_width, box_height, noise, strength, left_out


@jit
def draw_recipe(i, indices, epoch, key_0, key_1, height, width, recipe):
    """Fill `recipe.params` with the draws of sample `indices[i]`."""
    table, params, index = recipe.table, recipe.params, indices[i]
    sub_policy = draw_sub_policy(index, epoch, key_0, key_1, table.steps.shape[0])
    for step in range(table.steps.shape[1]):
        first, count = table.steps[sub_policy, step, 0], table.steps[sub_policy, step, 1]
        params.rows[i, step] = draw_row(step, index, epoch, key_0, key_1, first, count, table.thresholds)
    ratios = recipe.sqrt_ratios
    erased, patched = params.erased, params.patched
    if recipe.erasing.threshold > 0:
        left, top, box_width, box_height = draw_erased(
            index, epoch, key_0, key_1, height, width, recipe.erasing, ratios
        )
        erased[i, 0], erased[i, 1], erased[i, 2], erased[i, 3] = left, top, box_width, box_height
    if recipe.patches.threshold > 0:
        left, top, box_width, box_height, noise, strength, left_out = draw_patch(
            index, epoch, key_0, key_1, height, width, recipe.patches, ratios
        )
        patched[i, 0], patched[i, 1], patched[i, 2], patched[i, 3] = left, top, box_width, box_height
        params.noise[i], params.strength[i], params.left_out[i] = noise, strength, left_out


@jit
def fill_recipe(indices, epoch, key_0, key_1, height, width, recipe):
    """Fill `recipe.params` with the draws of the samples `indices`, int64 [B]."""
    for i in range(indices.size):
        draw_recipe(i, indices, epoch, key_0, key_1, height, width, recipe)
