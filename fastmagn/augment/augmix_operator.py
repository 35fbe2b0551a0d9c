"""AugMix as a custom operator: what `torch.compile` and `torch.export` put into their graphs.

The operator is opaque, so that no compiler traces into numba, and works with `fullgraph=True` and dynamic shapes. It
draws from the generator of an AugMix object, which a graph cannot hold; the graph holds the object's number instead. So
a compiled or exported graph works in this process, while the object lives.
"""

import itertools
import weakref
from typing import Protocol

import torch
from torch import Tensor

from fastmagn.augment.image_forms import to_tensor


class Mixer(Protocol):
    """What the operator calls."""

    def mix(self, images: Tensor, indices: Tensor | None, epoch: int) -> Tensor: ...


_numbers = itertools.count()
_mixers: weakref.WeakValueDictionary[int, Mixer] = weakref.WeakValueDictionary()


def register(mixer: Mixer) -> int:
    """The number by which the operator finds `mixer`."""
    number = next(_numbers)
    _mixers[number] = mixer
    return number


# It claims to change `order`, which makes compilers keep every call, and the order of the calls: each one draws anew.
# A recorded CUDA graph would repeat its draws.
@torch.library.custom_op(
    "fastmagn::augmix",
    mutates_args=("order",),
    tags=(torch.Tag.nondeterministic_seeded, torch.Tag.cudagraph_unsafe),
)
def augmix(images: Tensor, order: Tensor, indices: Tensor | None, epoch: int, number: int) -> Tensor:
    """The mixed images of `AugMix.mix`, of the same shape, dtype and device, channels last in memory."""
    mixer = _mixers.get(number)
    if mixer is None:
        raise RuntimeError(
            "A compiled or exported graph calls an AugMix object that is not in this process any more. Keep the object,"
            " compile or export where it is, or export the model without it."
        )
    mixed = mixer.mix(to_tensor(images)[0], indices, epoch)
    return mixed.clone() if mixed.storage_offset() else mixed  # compilers count on a start that is aligned


@augmix.register_fake
def _(images: Tensor, order: Tensor, indices: Tensor | None, epoch: int, number: int) -> Tensor:
    channels, height, width = images.shape[-3:]
    return images.new_empty((*images.shape[:-3], height, width, channels)).movedim(-1, -3)
