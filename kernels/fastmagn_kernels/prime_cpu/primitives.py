"""PRIME's three primitives on planes, float64 [3, H W] in [0, 1].

They compute in float64, because a primitive multiplies the rounding errors of the one before it: a colour curve by up
to some hundreds, a filter by about thirty.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit, jit_uncounted

BLOCK = 64  # values whose recurrences run side by side; their four rows stay in a core's first cache
UNROLLED = 4  # terms of a sum at once: arrays of terms have a multiple of this length
_TERMS = 10
# Taylor: sin(pi t) / t and cos(pi t) in powers of t^2, for |t| <= 1/2; the errors are below 1e-14.
_SINE = tuple((-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(_TERMS))
_COSINE = tuple((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k) for k in range(_TERMS + 1))


@jit
def round_up(count):
    """Return the lowest multiple of UNROLLED that is not below `count`."""
    return (count + UNROLLED - 1) // UNROLLED * UNROLLED


@jit
def clamp(value):
    """Return a float64, clipped to [0, 1]."""
    return min(max(value, 0.0), 1.0)


@jit_uncounted
def filter_planes(out, planes, weights, padded):
    """Correlate each plane with `weights`, float64 [9], row by row of 3 x 3, and clip to [0, 1].

    `padded`, float64 [H + 2, W + 2], is memory for a plane with a border of zeros, which are there already.
    """
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    for channel in range(3):
        for y in range(height):
            row, from_row = padded[y + 1, 1 : 1 + width], planes[channel, y * width : (y + 1) * width]
            for x in range(width):
                row[x] = from_row[x]
        for y in range(height):
            row = out[channel, y * width : (y + 1) * width]
            add_taps(row, padded[y], weights[0], weights[1], weights[2], True)
            add_taps(row, padded[y + 1], weights[3], weights[4], weights[5], False)
            add_taps(row, padded[y + 2], weights[6], weights[7], weights[8], False)
            for x in range(width):
                row[x] = clamp(row[x])


@jit_uncounted
def add_taps(out, row, left, middle, right, anew):
    """Add a row of a filter to `out`, float64 [W], or begin it anew; `row`, float64 [W + 2], has a zero at each end."""
    before, here, after = row[: out.size], row[1 : 1 + out.size], row[2 : 2 + out.size]
    for x in range(out.size):
        value = left * before[x] + middle * here[x] + right * after[x]
        out[x] = value if anew else out[x] + value


@jit_uncounted
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
    for start in range(0, values.size, BLOCK):
        block, target = values[start : start + BLOCK], out[start : start + BLOCK]
        twice_cosine, sine = scratch[0, : block.size], scratch[1, : block.size]
        b1, b2 = scratch[2, : block.size], scratch[3, : block.size]
        fill_angles(twice_cosine, sine, block)
        add_terms(b1, b2, twice_cosine, coefficients)
        for x in range(block.size):
            target[x] = clamp(block[x] + sine[x] * b1[x])


@jit_uncounted
def fill_angles(twice_cosine, sine, values):
    """Fill 2 cos(pi c) and sin(pi c) for the values c in [0, 1]; all float64 [N]."""
    for x in range(values.size):
        t = values[x] - 0.5
        z = t * t
        s, c = _SINE[9], _COSINE[10]
        for k in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
            c = c * z + _COSINE[k]
        for k in (8, 7, 6, 5, 4, 3, 2, 1, 0):
            s = s * z + _SINE[k]
        twice_cosine[x] = -2.0 * t * s
        sine[x] = c


@jit_uncounted
def add_terms(b1, b2, twice_cosine, coefficients):
    """Fill b_1 and b_2 of Clenshaw's recurrence; all float64 [N], but the coefficients [K]."""
    b1[:] = 0.0
    b2[:] = 0.0
    for k in range(coefficients.size - UNROLLED, -1, -UNROLLED):
        a0, a1, a2, a3 = coefficients[k], coefficients[k + 1], coefficients[k + 2], coefficients[k + 3]
        for x in range(b1.size):
            c, u, v = twice_cosine[x], b1[x], b2[x]
            v = (a3 - v) + c * u
            u = (a2 - u) + c * v
            v = (a1 - v) + c * u
            b1[x] = (a0 - u) + c * v
            b2[x] = v


@jit_uncounted
def displacement_fields(out, modes, num_rows, num_columns, sines_y, sines_x, scratch):
    """Fill `out`, float64 [2, H, W], with the displacements along x and y, px.

    Args:
        out: field[y, x] = sum_p sin(p pi y / (H - 1)) sum_q modes[p, q] sin(q pi x / (W - 1)).
        modes: float64 [2, P, Q]; P and Q are multiples of UNROLLED.
        num_rows: How many of the P can differ from 0.
        num_columns: How many of the Q can differ from 0.
        sines_y: float64 [H, P].
        sines_x: float64 [Q, W].
        scratch: float64 [P, W].
    """
    for field in range(2):
        for p in range(round_up(num_rows)):
            add_sines(scratch[p], modes[field, p], num_columns, sines_x)
        for y in range(out.shape[1]):
            add_sines(out[field, y], sines_y[y], num_rows, scratch)


@jit_uncounted
def add_sines(out, factors, count, rows):
    """Fill `out`, float64 [W], with the sum of `rows`, float64 [N, W], times `factors`, float64 [N].

    The first `count` of them are added, in steps of UNROLLED: N is a multiple of it, and further factors are 0.
    """
    out[:] = 0.0
    for n in range(0, count, UNROLLED):
        a, b, c, d = factors[n], factors[n + 1], factors[n + 2], factors[n + 3]
        row_a, row_b, row_c, row_d = rows[n], rows[n + 1], rows[n + 2], rows[n + 3]
        for x in range(out.size):
            out[x] += (a * row_a[x] + b * row_b[x]) + (c * row_c[x] + d * row_d[x])


@jit_uncounted
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
