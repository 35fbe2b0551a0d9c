"""The operations of policies on one image, each by all threads of a block, exact against Pillow.

Rows and barriers are those of `augmix_cuda.operations`, whose operations are used where they are the same.
"""

import numpy as np
from numba import cuda

from fastmagn_kernels.augmix_cuda.device import num_threads, thread_number
from fastmagn_kernels.augmix_cuda.geometry import (
    BLACK,
    colour_of,
    load_pixel,
    rotation_matrix,
    shear,
    shift,
    store_pixel,
    transform,
)
from fastmagn_kernels.augmix_cuda.operations import change_values
from fastmagn_kernels.policy_cuda.table import AFFINE, INVERT, NEAREST, SHIFT
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.draws import ANGLE_UNITS_PER_DEGREE

_EVERY_BIT = np.uint32(0xFFFFFFFF)


@cuda.jit(device=True)
def parameter(table, row, number):
    """Return parameter `number` of a row, float64; the row is a value, float64."""
    return table.parameters[np.uint32(6 * np.int32(row) + number)]


@cuda.jit(device=True)
def nearest(pixels, source, target, height, width, table, row):
    """Transform as Image.transform does, by a row's matrix in 16.16 fixed point, to the nearest pixel."""
    a0, a1 = np.int32(parameter(table, row, 0)), np.int32(parameter(table, row, 1))
    a3, a4 = np.int32(parameter(table, row, 3)), np.int32(parameter(table, row, 4))
    a2, a5 = np.int32(parameter(table, row, 2)), np.int32(parameter(table, row, 5))
    step = np.uint32(np.uint32(3 * width) * cuda.blockDim.y)
    x = np.int32(cuda.threadIdx.x)
    while x < width:
        y = np.int32(cuda.threadIdx.y)
        source_x = np.int32(a2 + np.int32(x * a0) + np.int32(y * a1))
        source_y = np.int32(a5 + np.int32(x * a3) + np.int32(y * a4))
        k = np.uint32(target + np.uint32(3 * np.int32(y * width + x)))
        while y < height:
            red, green, blue = colour_of(table.fill)
            column, line = np.int32(source_x >> 16), np.int32(source_y >> 16)
            if np.uint32(column) < np.uint32(width) and np.uint32(line) < np.uint32(height):
                red, green, blue = load_pixel(pixels, source + np.uint32(3 * np.int32(line * width + column)))
            store_pixel(pixels, k, red, green, blue)
            y = np.int32(y + cuda.blockDim.y)
            source_x = np.int32(source_x + np.int32(a1 * cuda.blockDim.y))
            source_y = np.int32(source_y + np.int32(a4 * cuda.blockDim.y))
            k = np.uint32(k + step)
        x = np.int32(x + cuda.blockDim.x)


@cuda.jit(device=True)
def invert(words, source, target, num_words):
    """Apply ImageOps.invert."""
    i, k = thread_number(), np.uint32(np.uint32(target >> np.uint32(2)) + thread_number())
    offset = np.uint32(np.uint32(source >> np.uint32(2)) - np.uint32(target >> np.uint32(2)))
    while i < num_words:
        words[k] = np.uint32(words[np.uint32(k + offset)] ^ _EVERY_BIT)
        i, k = np.uint32(i + num_threads()), np.uint32(k + num_threads())


@cuda.jit(device=True)
def matrix_of(table, row):
    """Return the matrix of a row, as `parameter` does: six float64."""
    return (
        parameter(table, row, 0),
        parameter(table, row, 1),
        parameter(table, row, 2),
        parameter(table, row, 3),
        parameter(table, row, 4),
        parameter(table, row, 5),
    )


@cuda.jit(device=True)
def bilinear_matrix(operation, value, height, width, rotation_table, table):
    """Return the matrix of AFFINE, or else of AugMix's ROTATE: six float64."""
    if operation == AFFINE:
        return matrix_of(table, value)
    return rotation_matrix(np.int32(value * ANGLE_UNITS_PER_DEGREE), rotation_table, height, width)


@cuda.jit(device=True)
def offset_of(operation, value, table):
    """Return the shift of SHIFT, or else of AugMix's translations: two int32, px. A rotation by 0 moves by 0."""
    if operation == SHIFT:
        return np.int32(parameter(table, value, 0)), np.int32(parameter(table, value, 1))
    return (
        np.int32(value) if operation == draws.TRANSLATE_X else np.int32(0),
        np.int32(value) if operation == draws.TRANSLATE_Y else np.int32(0),
    )


@cuda.jit(device=True)
def apply_step(operation, value, rows, source, target, height, width, scratch, rotation_table, table):
    """Apply an operation of a policy or of AugMix to the row at the byte `source` of `rows`."""
    pixels = rows.pixels
    fill = table.fill if operation in (AFFINE, SHIFT) else BLACK
    if operation == AFFINE or (operation == draws.ROTATE and value != 0.0):
        matrix = bilinear_matrix(operation, value, height, width, rotation_table, table)
        transform(pixels, source, target, height, width, matrix, fill)
    elif operation == draws.SHEAR_X or operation == draws.SHEAR_Y:
        shear(pixels, source, target, height, width, value, operation == draws.SHEAR_X)
    elif operation == NEAREST:
        nearest(pixels, source, target, height, width, table, value)
    elif (
        operation == SHIFT
        or operation == draws.TRANSLATE_X
        or operation == draws.TRANSLATE_Y
        or operation == draws.ROTATE
    ):
        dx, dy = offset_of(operation, value, table)
        shift(pixels, np.uint64(source), pixels, target, height, width, dx, dy, False, fill)
    elif operation == INVERT:
        num_words = np.uint32(np.uint32(3 * np.uint32(height * width) + 3) >> np.uint32(2))
        invert(rows.words, source, target, num_words)
    else:
        change_values(operation, value, rows, source, target, height, width, scratch)
