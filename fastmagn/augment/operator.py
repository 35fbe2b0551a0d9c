"""AugMix and policies as a custom operator: what `torch.compile` and `torch.export` put into their graphs.

The operator is opaque, so that no compiler traces into numba, and works with `fullgraph=True` and dynamic shapes. It
draws from the generator of an object such as AugMix, which a graph cannot hold; the graph holds the object's number
instead. So a compiled or exported graph works in this process, while the object lives.
"""

import itertools
import weakref
from typing import Protocol

import torch
from torch import Tensor

from fastmagn.augment.image_forms import to_tensor


class Changer(Protocol):
    """What the operator calls."""

    def change(
        self, images: Tensor, indices: Tensor | None, epoch: int, out: Tensor | None, one_draw: bool
    ) -> Tensor: ...


_numbers = itertools.count()
_changers: weakref.WeakValueDictionary[int, Changer] = weakref.WeakValueDictionary()


def register(changer: Changer) -> int:
    """The number by which the operator finds `changer`."""
    number = next(_numbers)
    _changers[number] = changer
    return number


# It claims to change `order`, which makes compilers keep every call, and the order of the calls: each one draws anew.
# A recorded CUDA graph would repeat its draws.
@torch.library.custom_op(
    "fastmagn::augment",
    mutates_args=("order",),
    tags=(torch.Tag.nondeterministic_seeded, torch.Tag.cudagraph_unsafe),
)
def augment(images: Tensor, order: Tensor, indices: Tensor | None, epoch: int, number: int, one_draw: bool) -> Tensor:
    """What the object makes of the images, of the same shape, dtype and device, channels last in memory."""
    changer = _changers.get(number)
    if changer is None:
        raise RuntimeError(
            "A compiled or exported graph calls an object of fastmagn, such as AugMix, that is not in this process any"
            " more. Keep the object, compile or export where it is, or export the model without it."
        )
    plain = to_tensor(images)[0]
    # Compilers count on a start that is aligned, and no output may be an input.
    changed = _channels_last(plain)
    changer.change(plain, indices, epoch, changed, one_draw)
    return changed


def _channels_last(images: Tensor) -> Tensor:
    channels, height, width = images.shape[-3:]
    return images.new_empty((*images.shape[:-3], height, width, channels)).movedim(-1, -3)


@augment.register_fake
def _(images: Tensor, order: Tensor, indices: Tensor | None, epoch: int, number: int, one_draw: bool) -> Tensor:
    return _channels_last(images)
