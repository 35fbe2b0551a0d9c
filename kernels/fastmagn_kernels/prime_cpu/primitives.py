"""PRIME's three primitives on planes, float64 [3, H W] in [0, 1].

They compute in float64, because a primitive multiplies the rounding errors of the one before it: a colour curve by up
to some hundreds, a filter by about thirty.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random.prime import NUM_TAPS

BLOCK = 64  # values whose recurrences run side by side; their four rows stay in a core's first cache
UNROLLED = 4  # terms of a colour curve at once: a multiple of this many coefficients
_TERMS = 10
# Taylor: sin(pi t) / t and cos(pi t) in powers of t^2, for |t| <= 1/2; the errors are below 1e-14.
_SINE = tuple((-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(_TERMS))
_COSINE = tuple((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k) for k in range(_TERMS + 1))


@jit
def clamp(value):
    """Return a float64, clipped to [0, 1]."""
    return min(max(value, 0.0), 1.0)


@jit
def filter_planes(out, planes, weights, height, width):
    """Correlate each plane with `weights`, float64 [9], row by row of 3 x 3; zeros are outside the image."""
    for channel in range(3):
        source, target = planes[channel], out[channel]
        target[:] = 0.0
        for y in range(height):
            row = target[y * width : (y + 1) * width]
            for tap in range(NUM_TAPS):
                from_y, shift, weight = y + tap // 3 - 1, tap % 3 - 1, weights[tap]
                if 0 <= from_y < height:
                    other = source[from_y * width : (from_y + 1) * width]
                    first, last = max(0, -shift), min(width, width - shift)
                    to_part, from_part = row[first:last], other[first + shift : last + shift]
                    for x in range(to_part.size):
                        to_part[x] += weight * from_part[x]
            for x in range(width):
                row[x] = clamp(row[x])


@jit
def color_values(out, values, coefficients, scratch):
    """Fill `out` with clip(c + sum_k a_k sin(k pi c)) for the values c; both float64 [N].

    Clenshaw's recurrence b_k = a_k + 2 cos(pi c) b_(k+1) - b_(k+2) gives the sum as b_1 sin(pi c): three operations for
    each term, and no sine.

    Args:
        out: The curve's values.
        values: c in [0, 1].
        coefficients: a_1, a_2, ..., float64; UNROLLED of them, or a multiple.
        scratch: float64 [4, BLOCK].
    """
    twice_cosine, sine, b1, b2 = scratch
    for start in range(0, values.size, BLOCK):
        block, target = values[start : start + BLOCK], out[start : start + BLOCK]
        for x in range(block.size):
            t = block[x] - 0.5
            z = t * t
            s, c = _SINE[9], _COSINE[10]
            for k in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
                c = c * z + _COSINE[k]
            for k in (8, 7, 6, 5, 4, 3, 2, 1, 0):
                s = s * z + _SINE[k]
            twice_cosine[x], sine[x] = -2.0 * t * s, c
            b1[x] = b2[x] = 0.0
        for k in range(coefficients.size - UNROLLED, -1, -UNROLLED):
            a0, a1, a2, a3 = coefficients[k], coefficients[k + 1], coefficients[k + 2], coefficients[k + 3]
            for x in range(block.size):
                c, u, v = twice_cosine[x], b1[x], b2[x]
                v = a3 + c * u - v
                u = a2 + c * v - u
                v = a1 + c * u - v
                b1[x], b2[x] = a0 + c * v - u, v
        for x in range(block.size):
            target[x] = clamp(block[x] + sine[x] * b1[x])


@jit
def displacement_fields(out, modes, num_rows, num_columns, sines_y, sines_x, scratch):
    """Fill `out`, float64 [2, H, W], with the displacements along x and y, px.

    Args:
        out: field[y, x] = sum_p sin(p pi y / (H - 1)) sum_q modes[p, q] sin(q pi x / (W - 1)).
        modes: float64 [2, P, Q].
        num_rows: How many of the P can differ from 0.
        num_columns: How many of the Q can differ from 0.
        sines_y: float64 [P, H].
        sines_x: float64 [Q, W].
        scratch: float64 [P, W].
    """
    for field in range(2):
        for p in range(num_rows):
            along = scratch[p]
            along[:] = 0.0
            for q in range(num_columns):
                mode, sines = modes[field, p, q], sines_x[q]
                for x in range(along.size):
                    along[x] += mode * sines[x]
        for y in range(out.shape[1]):
            row = out[field, y]
            row[:] = 0.0
            for p in range(num_rows):
                sine, along = sines_y[p, y], scratch[p]
                for x in range(row.size):
                    row[x] += sine * along[x]


@jit
def displace_planes(out, planes, fields):
    """Sample each plane at (x - dx, y - dy), bilinear; places outside the image are moved to its edge."""
    height, width = fields.shape[1:]
    for y in range(height):
        for x in range(width):
            source_x = min(max(x - fields[0, y, x], 0.0), width - 1.0)
            source_y = min(max(y - fields[1, y, x], 0.0), height - 1.0)
            left, top = np.int64(source_x), np.int64(source_y)
            right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
            u, v = source_x - left, source_y - top
            for channel in range(3):
                plane = planes[channel]
                upper = (1.0 - u) * plane[top * width + left] + u * plane[top * width + right]
                lower = (1.0 - u) * plane[bottom * width + left] + u * plane[bottom * width + right]
                out[channel, y * width + x] = (1.0 - v) * upper + v * lower
