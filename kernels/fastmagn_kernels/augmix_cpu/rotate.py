"""The CPU engine's rotations by whole degrees, AugMix's, of small images, exact against Pillow (see `pixel`).

The source of a rotated pixel depends on the angle only, and AugMix has few angles: 17 at severity 3. For each angle
there is a plan: for sixteen pixels at a time, it holds the places of their four neighbours in 256 bytes of a plane,
and the neighbours' weights in fixed point. AVX-512 finds 64 neighbours in one step (see `lookup`), and its VNNI
multiplies and adds them. Other angles, larger images and other CPUs have no plan: for an image of 32 x 32,
`bilinear.rotate` takes 1.2 us instead of 0.5.

Why this is exact. Let p be a pixel's neighbours, w their weights (1 - dx) (1 - dy) and so on, whose sum is 1,
v = sum p w the value that Pillow truncates, and S = 2^22. The plan's weights W are S w rounded, except the largest,
which makes their sum S; it is off by at most 3/2, the others by at most 1/2. The sum of these errors e is 0, so
V = sum p W differs from S v by |sum p e| <= 255 / 2 sum |e| < 383. If V is at least 384 away from all multiples of S,
then trunc(v) is V >> 22, and Pillow's float64, whose error is below 2^-40, gives it too. If all p with a weight w above
0 are the same, then V = S p, and Pillow gives p because its differences are 0. All other pixels, one in 5,000, are in
doubt and are left to Pillow's arithmetic.
"""

import functools
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu.bilinear import rotate, rotation_matrix
from fastmagn_kernels.augmix_cpu.geometry import BLACK, copy, transform_pixels
from fastmagn_kernels.augmix_cpu.lookup import LANES, cpu_has, load_quarters, look_up_lanes, pointer_at
from fastmagn_kernels.compiling import jit, jit_uncounted
from fastmagn_kernels.pixel import MAX_ANGLE_UNITS, rotation_table
from fastmagn_kernels.random.draws import ANGLE_UNITS_PER_DEGREE

MAX_DEGREES = MAX_ANGLE_UNITS // ANGLE_UNITS_PER_DEGREE
_FEATURES = ("avx512vbmi", "avx512vnni")
_BITS = 22
_DOUBTFUL = 384
_GROUP = 16  # pixels, with four neighbours each
_WINDOW = 256  # bytes of a plane that must contain a group's neighbours
_LARGEST = 4096  # pixels; in larger images a group's neighbours are seldom so close, and plans take too much memory
_DIGITS = 3  # of a weight, base 256


class Rotations(NamedTuple):
    """The plans for the A angles, and the G groups of images of one size; without plans, the last three are empty.

    Args:
        matrices: `pixel.rotation_table()`.
        planned: Which whole degrees, from -MAX_DEGREES on, have a plan: bool [A].
        starts: The first byte, in a plane, of each group's window: int32 [A G].
        neighbours: The places, in the window, of the four neighbours of each pixel of a group: uint8 [A G x 64].
        weights: The weights' signed digits, highest first, in the order of `neighbours`: int8 [A G x 3 x 64].
    """

    matrices: np.ndarray
    planned: np.ndarray
    starts: np.ndarray
    neighbours: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=2)
def make_rotations(height: int, width: int) -> Rotations:
    """Return the plans for images of one size, 1 MB at 32 x 32; large images and CPUs without AVX-512 have none."""
    size, num_angles = height * width, 2 * MAX_DEGREES + 1
    planned = np.zeros(num_angles, np.bool_)
    if not _WINDOW <= size <= _LARGEST or size % _GROUP or not has_vectors():
        empty = np.empty(0, np.uint8)
        return Rotations(rotation_table(), planned, np.empty(0, np.int32), empty, empty.view(np.int8))
    groups = size // _GROUP
    starts = np.zeros((num_angles, groups), np.int32)
    neighbours = np.zeros((num_angles, groups, LANES), np.uint8)
    weights = np.zeros((num_angles, groups, _DIGITS, LANES), np.int8)
    for angle, degrees in enumerate(range(-MAX_DEGREES, MAX_DEGREES + 1)):
        positions, fixed = fixed_weights(degrees, height, width)
        weighs = (fixed.sum(axis=1) > 0).repeat(4).reshape(groups, LANES)
        positions = positions.reshape(groups, LANES)
        start = np.minimum(np.where(weighs, positions, size).min(axis=1), size - _WINDOW)
        offsets = np.where(weighs, positions - start[:, None], 0)
        planned[angle] = offsets.max() < _WINDOW
        if planned[angle]:
            starts[angle], neighbours[angle] = start, offsets
            weights[angle] = digits(fixed).reshape(groups, LANES, _DIGITS).transpose(0, 2, 1)
    return Rotations(rotation_table(), planned, starts.ravel(), neighbours.ravel(), weights.ravel())


def fixed_weights(degrees: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the four neighbours of each pixel, int64 [H W, 4], and their weights times 2^22, int64 [H W, 4].

    The sum of the weights is 2^22, or 0 for a pixel from outside the image. A neighbour whose exact weight is 0 (not
    one that rounds to 0) is replaced by the heaviest one, because it must not decide whether all are the same.
    Positions are computed in Pillow's order of operations.
    """
    xx, xy, offset_x, yx, yy, offset_y = rotation_matrix(
        ANGLE_UNITS_PER_DEGREE * degrees, rotation_table(), height, width
    )
    y, x = np.divmod(np.arange(height * width), width) + np.array([[0.5], [0.5]])
    source_x, source_y = xx * x + xy * y + offset_x, yx * x + yy * y + offset_y
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    left, dx = np.divmod(np.clip(source_x - 0.5, 0, width - 1), 1)
    top, dy = np.divmod(np.clip(source_y - 0.5, 0, height - 1), 1)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    positions = np.stack([row * width + column for row in (top, bottom) for column in (left, right)], axis=1)
    weights = np.stack([row * column for row in (1 - dy, dy) for column in (1 - dx, dx)], axis=1)
    fixed = np.rint(weights * (1 << _BITS)).astype(np.int64)
    pixel, heaviest = np.arange(len(fixed)), weights.argmax(axis=1)
    fixed[pixel, heaviest] += (1 << _BITS) - fixed.sum(axis=1)
    positions = np.where(weights > 0, positions, positions[pixel, heaviest][:, None])
    return positions.astype(np.int64), fixed * inside[:, None]


def digits(numbers: np.ndarray) -> np.ndarray:
    """Split numbers in 0..2^22 into three digits, base 256, in -128..127, highest first: int8, one more dimension."""
    low = (numbers + 128) % 256 - 128
    numbers = (numbers - low) // 256
    middle = (numbers + 128) % 256 - 128
    return np.stack([(numbers - middle) // 256, middle, low], axis=-1).astype(np.int8)


@intrinsic
def _has_vectors(typingctx):
    def generate(context, builder, signature, args):
        return context.get_constant(types.boolean, cpu_has(context, *_FEATURES))

    return types.boolean(), generate


@jit
def has_vectors():
    """Return whether this CPU can follow plans."""
    return _has_vectors()


@intrinsic
def _rotate_group(typingctx, source, target, size, group, start, neighbours, weights, entry):
    """Rotate a group in all three planes; return an int64 whose low 16 bits say which pixels are in doubt."""

    def generate(context, builder, signature, args):
        if not cpu_has(context, *_FEATURES):
            return context.get_constant(types.intp, 0)
        source, target, size, group, start, neighbours, weights, entry = args
        source_type, target_type, *_, neighbours_type, weights_type, _ = signature.args
        lanes, words = ir.VectorType(ir.IntType(8), LANES), ir.VectorType(ir.IntType(32), _GROUP)

        def number(value):
            return context.get_constant(types.intp, value)

        def all_words(value):
            return words([value] * _GROUP)

        def load(array_type, array, position):
            pointer = pointer_at(context, builder, array_type, array, position, lanes)
            return builder.load(pointer, align=1)

        multiply_add = builder.module.declare_intrinsic(
            "llvm.x86.avx512.vpdpbusd.512", fnty=ir.FunctionType(words, [words] * 3)
        )
        where = load(neighbours_type, neighbours, builder.mul(entry, number(LANES)))
        first_digit = builder.mul(entry, number(_DIGITS * LANES))
        of_weights = [
            builder.bitcast(load(weights_type, weights, builder.add(first_digit, number(d * LANES))), words)
            for d in range(_DIGITS)
        ]
        in_doubt = ir.VectorType(ir.IntType(1), _GROUP)(None)
        for c in range(3):
            plane = builder.mul(size, number(c))
            quarters = load_quarters(context, builder, source_type, source, builder.add(plane, start))
            found = builder.bitcast(look_up_lanes(builder, quarters, where), words)
            total = words(None)
            for digit in of_weights:
                total = builder.call(multiply_add, [builder.shl(total, all_words(8)), found, digit])
            rotated = builder.or_(builder.shl(found, all_words(8)), builder.lshr(found, all_words(24)))
            differ = builder.icmp_unsigned("!=", found, rotated)
            above = builder.and_(builder.add(total, all_words(_DOUBTFUL)), all_words((1 << _BITS) - 1))
            near = builder.icmp_unsigned("<", above, all_words(2 * _DOUBTFUL))
            in_doubt = builder.or_(in_doubt, builder.and_(near, differ))
            values = builder.trunc(builder.lshr(total, all_words(_BITS)), ir.VectorType(ir.IntType(8), _GROUP))
            position = builder.add(plane, builder.mul(group, number(_GROUP)))
            out = pointer_at(context, builder, target_type, target, position, values.type)
            builder.store(values, out, align=1)
        return builder.zext(builder.bitcast(in_doubt, ir.IntType(_GROUP)), ir.IntType(64))

    return types.intp(source, target, size, group, start, neighbours, weights, entry), generate


@jit_uncounted
def rotate_degrees(source, target, height, width, degrees, rotations, scratch):
    """Rotate as Image.rotate does, by whole degrees counter-clockwise, bilinear."""
    angle = ANGLE_UNITS_PER_DEGREE * degrees
    plan = degrees + MAX_DEGREES
    if not rotations.planned[plan]:
        rotate(source, target, height, width, angle, rotations.matrices, scratch)
        return
    if degrees == 0:
        copy(source, target)
        return
    matrix = rotation_matrix(angle, rotations.matrices, height, width)
    size = height * width
    groups = size // _GROUP
    for group in range(groups):
        entry = plan * groups + group
        doubts = _rotate_group(
            source, target, size, group, np.int64(rotations.starts[entry]), rotations.neighbours, rotations.weights,
            entry,
        )  # fmt: skip
        if doubts != 0:
            for k in range(_GROUP):
                if (doubts >> k) & 1:
                    p = group * _GROUP + k
                    transform_pixels(source, target, height, width, matrix, BLACK, p, p + 1)
