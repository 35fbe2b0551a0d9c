"""A batch shared among threads as they become free.

numba's `prange` gives each thread its part beforehand, and all wait for the slowest core.
"""

from numba import types
from numba.extending import intrinsic


@intrinsic
def claim(typingctx, counter):
    """`counter[0]`, int64, and one more for the next who asks, in whatever thread."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate
