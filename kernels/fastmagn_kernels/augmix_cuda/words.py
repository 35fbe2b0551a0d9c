"""The CUDA engine's arithmetic in 32 bits: four bytes of a word at a time, and float64 positions as fixed point.

numba widens every integer expression to 64 bits, so that each step here is cast back. The functions take and return
scalars; numba compiles them for the CPU, too.
"""

import numpy as np

from fastmagn_kernels.compiling import jit

BITS = 23  # of the fractions in fixed-point interpolation
MAX_FIXED = 2**18  # px: beyond, positions are not converted to fixed point

_EVERY_BYTE = np.uint32(0x01010101)
_LOW_BITS = np.uint32(0x7F7F7F7F)
_HIGH_BITS = np.uint32(0x80808080)

_TWO_TO_52 = np.uint64(0x4330000000000000)  # its bits as float64
_CENTRE = 2.0**52 - 0.5
_FIXED = 1.5 * 2.0**20
_FIXED_HIGH = np.uint32(0x41380000)  # the high word of its bits
_SHIFT_32 = np.uint64(32)
_ONE = np.uint32(1 << BITS)
_IN_DOUBT = np.uint32(512)  # units of 2^-23 around a whole value
_NEAR = np.uint32(16)  # units of 2^-32: 2^-28


@jit
def pack(first, second, third, fourth):
    """Pack four values in 0..255 into a uint32, the first lowest."""
    low = np.uint32(np.uint32(first) | np.uint32(np.uint32(second) << np.uint32(8)))
    high = np.uint32(np.uint32(third) | np.uint32(np.uint32(fourth) << np.uint32(8)))
    return np.uint32(low | np.uint32(high << np.uint32(16)))


@jit
def posterize_mask(bits):
    """Return what `pixel.posterize_entry` keeps of each of four bytes: uint32."""
    return np.uint32(np.uint32(0xFF & ~((1 << (8 - bits)) - 1)) * _EVERY_BYTE)


@jit
def solarize_word(word, threshold):
    """Apply `pixel.solarize_entry` to four bytes at once, for a threshold in 1..256: uint32.

    A byte v is not below the threshold if v + (256 - threshold) carries out of its eight bits. The low seven bits of
    all bytes are added at once, since their sums do not leave a byte; the carry is then the majority of the two highest
    bits and of the sum's. Where it is 1, the byte is inverted, which is 255 - v.
    """
    other = np.uint32(np.uint32(256 - threshold) * _EVERY_BYTE)
    total = np.uint32(np.uint32(word & _LOW_BITS) + np.uint32(other & _LOW_BITS))
    carry = np.uint32(((word & other) | (word & total) | (other & total)) & _HIGH_BITS)
    return np.uint32(word ^ np.uint32(np.uint32(carry >> np.uint32(7)) * np.uint32(0xFF)))


@jit
def centre(i):
    """Return i + 1/2, float64, for a pixel's index i, without a conversion, which takes as long as eight sums.

    The bits of 2^52 and i together are those of the float64 2^52 + i, and 2^52 - 1/2 is a float64, too; their
    difference is exact.
    """
    return np.uint64(_TWO_TO_52 | np.uint64(np.uint32(i))).view(np.float64) - _CENTRE


@jit
def high_word(value):
    """Return the upper half of a float64's bits, uint32."""
    return np.uint32(np.float64(value).view(np.uint64) >> _SHIFT_32)


@jit
def is_inside(position, size_high):
    """Return whether 0 <= position < size, float64, for `size_high = high_word(size)` of a whole number below 2^21.

    Positive float64 are ordered as their bits are. The lower half of the size's bits is 0, so the upper halves decide.
    Those of a negative number are above all others, because its sign is the highest bit. The position is never -0.
    """
    return high_word(position) < size_high


@jit
def fixed_point(value, offset):
    """Split value + offset, float64 in -2^19..2^19, into its whole part, int32, and its fraction in 2^-32, uint32.

    In 1.5 2^20 + offset + value, the last place is 2^-32: so the lower half of its bits is the fraction, rounded to
    nearest, and the upper half contains the whole part. The fraction is off by at most 2^-33. The offset is a constant,
    a multiple of 1/2.
    """
    bits = np.float64(value + (_FIXED + offset)).view(np.uint64)
    return np.int32(np.uint32(np.uint32(bits >> _SHIFT_32) - _FIXED_HIGH)), np.uint32(bits)


@jit
def is_near_whole(fraction):
    """Return whether a fraction of `fixed_point` is within 2^-28 of 0 or 1."""
    return np.uint32(fraction + _NEAR) < np.uint32(_NEAR + _NEAR)


@jit
def is_near_whole_or_half(fraction):
    """Return whether a fraction of `fixed_point` is within 2^-28 of 0, 1/2 or 1."""
    return np.uint32(np.uint32(fraction + _NEAR) & np.uint32(0x7FFFFFFF)) < np.uint32(_NEAR + _NEAR)


@jit
def lower_fraction(fraction):
    """Return F, int32, of `augmix_cpu.shear` for a fraction f of `fixed_point`: trunc(2^23 f - 1/2)."""
    half = np.uint32(1 << (31 - BITS))
    return np.int32(np.uint32(max(np.uint32(fraction), half) - half) >> np.uint32(32 - BITS))


@jit
def between_two(first, second, fraction):
    """Return the bounds `low` and `high`, int32, of `augmix_cpu.shear`: `fraction` is F, the values are bytes."""
    step = np.int32(second - first)
    low = np.int32(np.int32(first << BITS) + np.int32(step * fraction))
    return low, np.int32(low + np.int32(step + step))


@jit
def between_four(top_left, top_right, bottom_left, bottom_right, dx, dy):
    """Interpolate between four bytes in units of 2^-23, int32; the fractions are in units of 2^-32.

    The error is below 259 units. The lower bits of dx are cut off, so that a row is off by less than the difference of
    its bytes, 255 units, and by a 512th of that for the rounding in `fixed_point` and in Pillow's positions. The mean
    of both rows has no larger error; the product by dy is cut off at one unit, and dy at 2^-31.
    """
    right = np.int32(dx >> np.uint32(32 - BITS))
    left = np.int32((1 << BITS) - right)
    top = np.int32(np.int32(top_left * left) + np.int32(top_right * right))
    bottom = np.int32(np.int32(bottom_left * left) + np.int32(bottom_right * right))
    share = np.int64(np.int32(bottom - top)) * np.int64(np.int32(dy >> np.uint32(1)))
    return np.int32(top + np.int32(share >> 31))


@jit
def is_in_doubt(value):
    """Return whether `between_four` can have another whole part than the exact value, unless all four are equal."""
    return (np.uint32(np.uint32(value) + _IN_DOUBT) & np.uint32(_ONE - np.uint32(1))) < np.uint32(2 * _IN_DOUBT)
