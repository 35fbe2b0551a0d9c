"""The rows of a policy's table on one image, exact against Pillow (see `pixel`).

An image is planar, a flat uint8 row [3 H W], as in `augmix_cpu.geometry`. An operation reads `source` and writes
`target`, two different rows.
"""

import numpy as np

from fastmagn_kernels.augmix_cpu.bilinear import transform_bilinear
from fastmagn_kernels.augmix_cpu.geometry import copy, packed, translate
from fastmagn_kernels.augmix_cpu.operations import (
    autocontrast,
    enhance_brightness,
    enhance_color,
    enhance_contrast,
    enhance_sharpness,
    equalize,
    posterize,
    solarize,
)
from fastmagn_kernels.augmix_cpu.shear import shear_x, shear_y
from fastmagn_kernels.compiling import jit_inlined, jit_uncounted
from fastmagn_kernels.policy_cpu.nearest import nearest
from fastmagn_kernels.random import policies


@jit_uncounted
def fill_box(target, height, width, left, top, box_width, box_height, colour):
    """Fill a rectangle of an image with a colour, uint8 [3]."""
    size = height * width
    for c in range(3):
        value = colour[c]
        for y in range(top, top + box_height):
            first = c * size + y * width + left
            for k in range(first, first + box_width):
                target[np.uint64(k)] = value


@jit_uncounted
def shift(source, target, height, width, dx, dy, fill):
    """Shift an image: target(x, y) = source(x + dx, y + dy), and the colour `fill`, uint8 [3], outside."""
    translate(source, target, height, width, dx, dy)
    if fill[0] == 0 and fill[1] == 0 and fill[2] == 0:
        return
    columns, rows = min(abs(dx), width), min(abs(dy), height)
    fill_box(target, height, width, 0 if dx < 0 else width - columns, 0, columns, height, fill)
    fill_box(target, height, width, 0, 0 if dy < 0 else height - rows, width, rows, fill)


@jit_uncounted
def shift_rows(source, target, height, width, matrix, fill):
    """Transform as `nearest` does, where every row moves by whole pixels: a0 and a4 are 1, a3 is 0."""
    size = height * width
    step, start = np.int64(matrix[1]), np.int64(matrix[2])
    for y in range(height):
        by = (start + y * step) >> 16
        first, last = min(max(-by, 0), width), max(min(width - by, width), 0)
        for c in range(3):
            row = c * size + y * width
            out = target[row : row + width]
            if first < last:
                copy(source[row + first + by :], out[first:last])
            value = fill[c]
            for x in range(min(first, width)):
                out[np.uint64(x)] = value
            for x in range(max(last, first), width):
                out[np.uint64(x)] = value


@jit_uncounted
def invert(source, target):
    """Apply ImageOps.invert."""
    for k in range(target.size):
        target[k] = ~source[k]


@jit_inlined
def apply_row(kind, parameters, fill, source, target, height, width, scratch):
    """Apply one row of a table: its kind and its parameters, float64 [6]."""
    first = parameters[0]
    if kind == policies.SHIFT:
        shift(source, target, height, width, np.int64(first), np.int64(parameters[1]), fill)
    elif kind == policies.SHIFT_ROWS:
        shift_rows(source, target, height, width, parameters, fill)
    elif kind == policies.NEAREST:
        nearest(source, target, height, width, parameters, fill, scratch)
    elif kind == policies.AFFINE or kind == policies.SHEAR_X or kind == policies.SHEAR_Y:
        transform(kind, parameters, fill, source, target, height, width, scratch)
    elif kind == policies.AUTOCONTRAST:
        autocontrast(source, target, scratch.table)
    elif kind == policies.EQUALIZE:
        equalize(source, target, scratch.histograms, scratch.table)
    elif kind == policies.INVERT:
        invert(source, target)
    elif kind == policies.POSTERIZE:
        posterize(source, target, np.int64(first))
    elif kind == policies.SOLARIZE:
        solarize(source, target, np.int64(first))
    elif kind == policies.COLOR:
        enhance_color(source, target, np.float32(first), scratch.channels)
    elif kind == policies.CONTRAST:
        enhance_contrast(source, target, np.float32(first), scratch.channels, scratch.table)
    elif kind == policies.BRIGHTNESS:
        enhance_brightness(source, target, np.float32(first), scratch.table)
    elif kind == policies.SHARPNESS:
        enhance_sharpness(source, target, height, width, np.float32(first), scratch.channels)
    else:
        copy(source, target)


@jit_uncounted
def transform(kind, parameters, fill, source, target, height, width, scratch):
    """Transform by an affine matrix, bilinear. The shears in fixed point know only black as the outside."""
    colour = packed(fill[0], fill[1], fill[2])
    if kind == policies.SHEAR_X and colour == 0:
        shear_x(source, target, height, width, parameters[1], scratch)
    elif kind == policies.SHEAR_Y and colour == 0:
        shear_y(source, target, height, width, parameters[3], scratch)
    else:
        matrix = (parameters[0], parameters[1], parameters[2], parameters[3], parameters[4], parameters[5])
        transform_bilinear(source, target, height, width, matrix, colour, scratch)
