"""Trigonometry in polynomials, which LLVM vectorises where a call of libm would not be.

The corruptions of C-bar take up to thirty sines for a pixel. The errors are below 1e-10.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit

_TURNS_PER_RADIAN = 1.0 / (2.0 * math.pi)
# Taylor: sin(2 pi r) / r in powers of r^2, for |r| <= 1/4; the error is below 1e-11.
_SINE = tuple((-1) ** k * (2.0 * math.pi) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(8))
# A Chebyshev fit: atan(q) / (2 pi q) in powers of q^2, for 0 <= q <= 1; the error is below 5e-11.
_ARC_TANGENT = (
    *(0.15915494303054525, -0.053051632310666376, 0.031830345400355724, -0.022725811382529652),
    *(0.017592644837355714, -0.01399945590777541, 0.010679478135789304, -0.007046373205408504),
    *(0.0035337896487052816, -0.0011405305884377476, 0.00017260238666786865),
)


@jit
def sine(x):
    """Return the sine of x, float64, in radians; |x| below 1e5."""
    r = x * _TURNS_PER_RADIAN
    r -= math.floor(r + 0.5)
    r = 0.5 - r if r > 0.25 else r
    r = -0.5 - r if r < -0.25 else r
    z = r * r
    p = _SINE[7]
    for k in (6, 5, 4, 3, 2, 1, 0):
        p = p * z + _SINE[k]
    return r * p


@jit
def cosine(x):
    """Return the cosine of x, float64, in radians; |x| below 1e5."""
    return sine(x + 0.5 * math.pi)


@jit(error_model="numpy")  # a check for a division by zero would keep LLVM from vectorising
def turn(y, x):
    """Return atan2(y, x) / (2 pi), float64 in [-1/2, 1/2]."""
    a, b = abs(y), abs(x)
    low, high = min(a, b), max(a, b)
    q = low / high if high > 0.0 else 0.0
    z = q * q
    p = _ARC_TANGENT[10]
    for k in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        p = p * z + _ARC_TANGENT[k]
    p *= q
    p = 0.25 - p if a > b else p
    p = 0.5 - p if x < 0.0 else p
    return -p if y < 0.0 else p


@jit
def level(x):
    """Convert a value in levels to a uint8: clipped to 0..255, truncated."""
    return np.uint8(min(max(x, 0.0), 255.0))
