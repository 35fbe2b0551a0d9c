"""Every CUDA kernel of the package, and what ptxas may make of it at most.

`tests/ptx/test_every_kernel.py` finds the functions that compile kernels and holds them to this table.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastmagn_kernels.augmix_cuda.storing import ALONE_ELEMENTS, ELEMENTS
from fastmagn_kernels.augmix_cuda.views import kernel_source
from fastmagn_kernels.policy_cuda import images as policy_images
from tests.ptx.assembling import Resources


def views_name(element: str, in_shared: bool, with_recipe: bool = False) -> str:
    """Return the name of one of the kernels of views."""
    return f"{'recipe_' if with_recipe else ''}views_{element}_{'shared' if in_shared else 'scratch'}"


def alone_name(element: str, in_shared: bool) -> str:
    """Return the name of one of the kernels of AugMix views alone."""
    return f"augmix_{element}_{'shared' if in_shared else 'scratch'}"


def images_name(in_shared: bool) -> str:
    """Return the name of one of the kernels of policies alone."""
    return f"policy_images_{'shared' if in_shared else 'scratch'}"


Source = tuple[Callable, Any, tuple[int, int]]  # a kernel's Python function, its signature and its launch bounds

# The function that compiles kernels -> name -> what gives `compile_ptx` its arguments.
KERNELS: dict[str, dict[str, Callable[[], Source]]] = {
    "fastmagn.augment.engines.on_device.load_kernel": {
        views_name(element, in_shared, with_recipe): partial(kernel_source, element, in_shared, with_recipe)
        for with_recipe in (False, True)
        for element in ELEMENTS
        for in_shared in (True, False)
    }
    | {
        alone_name(element, in_shared): partial(kernel_source, element, in_shared, alone=True)
        for element in ALONE_ELEMENTS
        for in_shared in (True, False)
    }
    | {images_name(in_shared): partial(policy_images.kernel_source, in_shared) for in_shared in (True, False)},
}

# Known today, of ptxas 13.0 and 13.3 for sm_90a. Lower them when a kernel needs less.
_SHARED = Resources(registers=64, spill_store_bytes=16, spill_load_bytes=28, stack_bytes=16, shared_bytes=5312)
_SCRATCH = Resources(registers=64, spill_store_bytes=36, spill_load_bytes=96, stack_bytes=32, shared_bytes=5304)
_POLICY = Resources(registers=64, spill_store_bytes=0, spill_load_bytes=0, stack_bytes=0, shared_bytes=5200)
# The spills of recipes are of what is drawn and of the crop, whose loop over pixels loads two. In scratch, an operation
# loads one for each column, and the loops over noise one for four values.
_RECIPE_SHARED = Resources(registers=80, spill_store_bytes=76, spill_load_bytes=172, stack_bytes=64, shared_bytes=5664)
_RECIPE_SCRATCH = Resources(registers=80, spill_store_bytes=88, spill_load_bytes=188, stack_bytes=72, shared_bytes=5656)
_OF_ALONE = {
    alone_name(element, in_shared): known
    for element in ALONE_ELEMENTS
    for in_shared, known in ((True, _SHARED), (False, _SCRATCH))
}
AT_MOST = (
    _OF_ALONE
    | {images_name(in_shared): _POLICY for in_shared in (True, False)}
    | {
        views_name(element, in_shared, with_recipe): known
        for with_recipe, (of_shared, of_scratch) in (
            (False, (_SHARED, _SCRATCH)),
            (True, (_RECIPE_SHARED, _RECIPE_SCRATCH)),
        )
        for element in ELEMENTS
        for in_shared, known in ((True, of_shared), (False, of_scratch))
    }
)
