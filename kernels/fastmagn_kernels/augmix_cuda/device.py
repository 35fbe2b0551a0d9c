"""What the CUDA engine's functions need of the device itself: threads, and instructions that numba has no name for."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

_SHARED_SPACE = 3  # of addresses, in NVVM


@cuda.jit(device=True)
def thread_number():
    """Return the number of this thread in its block, uint32."""
    return np.uint32(cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y)


@cuda.jit(device=True)
def num_threads():
    """Return the number of threads in the block, uint32."""
    return np.uint32(cuda.blockDim.x * cuda.blockDim.y)


@intrinsic
def by_address(typingctx, array):
    """Return all shared memory as one array, from its address 0 on, and where `array`, of bytes or words, lies in it.

    That is its address in bytes, uint32. Into an array with a base of its own, each access would add the base, and the
    assembler computes the base of shared memory anew in every loop, in five instructions. The 0 comes from an assembly
    instruction, because a compiler may take an access to the address 0 for an error.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        all_shared = context.make_array(array)(context, builder, args[0])
        of_bytes, of_data = ir.PointerType(ir.IntType(8), _SHARED_SPACE), all_shared.data.type
        pointer = ir.PointerType(of_data.pointee, _SHARED_SPACE)
        address = builder.ptrtoint(builder.addrspacecast(all_shared.data, pointer), i32)
        zero = builder.call(ir.InlineAsm(ir.FunctionType(i32, []), "mov.u32 $0, 0;", "=r"), [])
        start = builder.bitcast(builder.inttoptr(zero, of_bytes), pointer)
        all_shared.data = builder.addrspacecast(start, of_data)
        return context.make_tuple(builder, signature.return_type, [all_shared._getvalue(), address])

    return types.Tuple((array, types.uint32))(array), generate


@intrinsic
def store_vector(typingctx, out, i, first, second, third, fourth):
    """Store four values from out[i] on at once; `i` is a multiple of four, and `out` starts at one of 16 bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out_type, _, *value_types = signature.args
        place = builder.gep(context.make_array(out_type)(context, builder, args[0]).data, [args[1]])
        vector = ir.VectorType(context.get_data_type(out_type.dtype), 4)(ir.Undefined)
        for n, (value, value_type) in enumerate(zip(args[2:], value_types, strict=True)):
            element = context.cast(builder, value, value_type, out_type.dtype)
            vector = builder.insert_element(vector, element, ir.IntType(32)(n))
        size = context.get_abi_sizeof(context.get_data_type(out_type.dtype))
        builder.store(vector, builder.bitcast(place, vector.type.as_pointer()), align=4 * size)
        return context.get_dummy_value()

    return types.void(out, i, first, second, third, fourth), generate


@intrinsic
def _permute(typingctx, word, selector):
    """Select bytes of a word and of 0, uint32, by the instruction `prmt`: 0..3 are the word's and 4 is 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        assembly = ir.InlineAsm(ir.FunctionType(i32, [i32, i32]), "prmt.b32 $0, $1, 0, $2;", "=r,r,r")
        return builder.call(assembly, args)

    return types.uint32(types.uint32, types.uint32), generate


@cuda.jit(device=True)
def byte(word, place):
    """Return byte `place`, 0..3 from the lowest, of a uint32, int32: one instruction instead of a shift and a mask."""
    return np.int32(_permute(word, np.uint32(0x4440 + place)))
