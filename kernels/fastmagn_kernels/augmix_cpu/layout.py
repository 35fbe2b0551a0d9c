"""Moves of data: pixels [H W 3] to planes [3 H W] and back, mirrored rows, floats past the caches.

They are written for whole vectors: LLVM's own code for such loops of bytes takes five to ten times as long.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu.geometry import copy
from fastmagn_kernels.augmix_cpu.lookup import LANES, VECTOR, pointer_at
from fastmagn_kernels.compiling import jit_uncounted

_ROW_LANES = 16  # bytes of the vectors in which a row is mirrored
_FLOAT_LANES = 16
CACHE_LINE = 64  # bytes
_Index = tuple[int, int]  # a byte's vector, of three, and its place there


def _gather(builder: Any, vectors: list[Any], indices: list[_Index]) -> Any:
    """Return a vector of the bytes at `indices` in three `vectors`, by two shuffles."""
    mask = ir.VectorType(ir.IntType(32), LANES)
    of_two = [LANES * vector + k if vector < 2 else 0 for vector, k in indices]
    of_all = [LANES + k if vector == 2 else lane for lane, (vector, k) in enumerate(indices)]
    found = builder.shuffle_vector(vectors[0], vectors[1], mask(of_two))
    return builder.shuffle_vector(found, vectors[2], mask(of_all))


def _move(context: Any, builder: Any, signature: Any, args: Any, to_planes: bool) -> Any:
    """Move all whole vectors of `count` pixels; return how many pixels they hold."""
    source, source_at, target, target_at, size, count = args
    source_type, _, target_type, *_ = signature.args

    def number(value: int) -> Any:
        return context.get_constant(types.intp, value)

    stop = builder.and_(count, number(-LANES))
    with cgutils.for_range_slice(builder, number(0), stop, number(LANES), inc=True) as (k, _):

        def pointers(array_type: Any, array: Any, at: Any, planar: bool) -> list[Any]:
            first = builder.add(at, k if planar else builder.mul(number(3), k))
            apart = size if planar else number(LANES)
            positions = [builder.add(first, builder.mul(number(v), apart)) for v in range(3)]
            return [pointer_at(context, builder, array_type, array, position, VECTOR) for position in positions]

        sources = pointers(source_type, source, source_at, planar=not to_planes)
        targets = pointers(target_type, target, target_at, planar=to_planes)
        vectors = [builder.load(pointer, align=1) for pointer in sources]
        for v, pointer in enumerate(targets):
            positions = range(LANES * v, LANES * (v + 1))
            planar = [(p % 3, p // 3) for p in positions]  # places in planes of the pixels' bytes
            in_pixels = [divmod(3 * k + v, LANES) for k in range(LANES)]  # places in pixels of plane v's bytes
            builder.store(_gather(builder, vectors, in_pixels if to_planes else planar), pointer, align=1)
    return stop


@intrinsic
def _vectors_to_planes(typingctx, source, source_at, target, target_at, size, count):
    def generate(context, builder, signature, args):
        return _move(context, builder, signature, args, to_planes=True)

    return types.intp(source, source_at, target, target_at, size, count), generate


@intrinsic
def _vectors_to_pixels(typingctx, source, source_at, target, target_at, size, count):
    def generate(context, builder, signature, args):
        return _move(context, builder, signature, args, to_planes=False)

    return types.intp(source, source_at, target, target_at, size, count), generate


@intrinsic
def _mirror_vectors(typingctx, source, target, count, width):
    """Mirror `count` rows of `width` bytes, as many whole vectors as fit; return how many columns they fill."""

    def generate(context, builder, signature, args):
        source, target, count, width = args
        source_type, target_type, _, _ = signature.args
        vector, mask = (ir.VectorType(ir.IntType(bits), _ROW_LANES) for bits in (8, 32))
        zero, one, lanes = (context.get_constant(types.intp, value) for value in (0, 1, _ROW_LANES))
        done = builder.and_(width, context.get_constant(types.intp, -_ROW_LANES))
        with cgutils.for_range_slice(builder, zero, count, one, inc=True) as (row, _):
            start = builder.mul(row, width)
            end = builder.add(start, width)
            with cgutils.for_range_slice(builder, zero, done, lanes, inc=True) as (x, _):
                mirrored = builder.sub(builder.sub(end, x), lanes)
                pointer = pointer_at(context, builder, source_type, source, mirrored, vector)
                values = builder.load(pointer, align=1)
                values = builder.shuffle_vector(values, values, mask(list(reversed(range(_ROW_LANES)))))
                out = pointer_at(context, builder, target_type, target, builder.add(start, x), vector)
                builder.store(values, out, align=1)
        return done

    return types.intp(source, target, count, width), generate


@jit_uncounted
def mirror(source, target, width):
    """Exchange left and right in rows of `width` elements, uint8."""
    count = source.size // width
    done = _mirror_vectors(source, target, count, width)
    for y in range(count):
        for x in range(done, width):
            target[y * width + x] = source[(y + 1) * width - 1 - x]


@jit_uncounted
def pixels_to_planes(pixels, planes):
    """Convert an image from uint8 [H W 3] to uint8 [3 H W]."""
    size = planes.size // 3
    done = _vectors_to_planes(pixels, 0, planes, 0, size, size)
    for k in range(done, size):
        for c in range(3):
            planes[c * size + k] = pixels[3 * k + c]


@jit_uncounted
def planes_to_pixels(planes, start, count, pixels, at):
    """Copy pixels start..start + count - 1 of an image, uint8 [3 H W], to `pixels`, channels last, from `at` on."""
    size = planes.size // 3
    done = _vectors_to_pixels(planes, start, pixels, at, size, count)
    for k in range(done, count):
        for c in range(3):
            pixels[at + 3 * k + c] = planes[c * size + start + k]


@jit_uncounted
def take_values(planes, start, count, planar, values, at):
    """Copy `count` values of an image, uint8 [3 H W], from number `start` on, to `values` from `at` on.

    They are counted, and come, in the order of planes or of pixels; of pixels in whole ones.
    """
    if planar:
        copy(planes[start : start + count], values[at : at + count])
    else:
        planes_to_pixels(planes, start // 3, count // 3, values, at)


@intrinsic
def _stream_vectors(typingctx, source, target, count):
    """Store as many floats as fill whole cache lines; return how many, 0 if `target` starts within a cache line."""

    def generate(context, builder, signature, args):
        source, target, count = args
        source_type, target_type, _ = signature.args
        vector = ir.VectorType(ir.FloatType(), _FLOAT_LANES)
        zero, lanes = (context.get_constant(types.intp, value) for value in (0, _FLOAT_LANES))
        first = pointer_at(context, builder, target_type, target, zero, vector)
        offset = builder.and_(builder.ptrtoint(first, ir.IntType(64)), context.get_constant(types.intp, CACHE_LINE - 1))
        whole = builder.and_(count, context.get_constant(types.intp, -_FLOAT_LANES))
        stop = builder.select(builder.icmp_signed("==", offset, zero), whole, zero)
        past_the_cache = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        with cgutils.for_range_slice(builder, zero, stop, lanes, inc=True) as (k, _):
            values = builder.load(pointer_at(context, builder, source_type, source, k, vector), align=4)
            out = pointer_at(context, builder, target_type, target, k, vector)
            builder.store(values, out, align=CACHE_LINE).set_metadata("nontemporal", past_the_cache)
        return stop

    return types.intp(source, target, count), generate


@jit_uncounted
def stream(source, target, count):
    """Store the first `count` floats of `source` in `target`, past the caches.

    A batch of views does not fit into the caches, and an ordinary store first reads the memory that it will replace.
    """
    for k in range(_stream_vectors(source, target, count), count):
        target[k] = source[k]
