"""Tables of 256 bytes, looked up for 64 pixels at once where the CPU can (AVX-512 VBMI).

LLVM has no operation for this and finds none in a loop: a pixel takes two loads and a store, 0.63 us for an image of
32 x 32, not 0.05.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastmagn_kernels.compiling import jit_uncounted

_LANES = 64


@intrinsic
def _look_up_vectors(typingctx, source, table, target, count):
    """The first elements, as many as fill whole vectors, and their number: int64, 0 where the CPU cannot."""

    def generate(context, builder, signature, args):
        target_features = context.codegen().magic_tuple()[2]
        if "+avx512vbmi" not in target_features.split(","):
            return context.get_constant(types.intp, 0)
        vector = ir.VectorType(ir.IntType(8), _LANES)
        permute = builder.module.declare_intrinsic(
            "llvm.x86.avx512.vpermi2var.qi.512", fnty=ir.FunctionType(vector, [vector] * 3)
        )
        source_data, table_data, target_data = (
            context.make_array(array_type)(context, builder, array).data
            for array_type, array in zip(signature.args[:3], args[:3], strict=True)
        )

        def at(data, k):
            return builder.bitcast(builder.gep(data, [k]), vector.as_pointer())

        quarters = [
            builder.load(at(table_data, context.get_constant(types.intp, start)), align=1)
            for start in range(0, 256, _LANES)
        ]
        stop = builder.and_(args[3], context.get_constant(types.intp, -_LANES))
        zero, step = context.get_constant(types.intp, 0), context.get_constant(types.intp, _LANES)
        with cgutils.for_range_slice(builder, zero, stop, step, inc=True) as (k, _):
            values = builder.load(at(source_data, k), align=1)
            lower = builder.call(permute, [quarters[0], values, quarters[1]])  # by the seven low bits
            upper = builder.call(permute, [quarters[2], values, quarters[3]])
            is_upper = builder.icmp_signed("<", values, vector(None))
            builder.store(builder.select(is_upper, upper, lower), at(target_data, k), align=1)
        return stop

    return types.intp(source, table, target, count), generate


@jit_uncounted
def look_up_vectors(source, table, target):
    """`target[k] = table[source[k]]`, all uint8, for the first k; returns how many, 0 where the CPU cannot."""
    return _look_up_vectors(source, table, target, source.size)


@jit_uncounted
def look_up(source, table, target):
    """`target[:] = table[source]`, all uint8."""
    for k in range(look_up_vectors(source, table, target), source.size):
        target[k] = table[source[k]]
