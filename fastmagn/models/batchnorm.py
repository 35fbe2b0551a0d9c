"""Batch normalisation of a fused batch with separate statistics for each view."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class PerViewBatchNorm(_BatchNorm):
    """A mixin for a batch normalisation: each of the V views stacked in [V*B, ...] has its own batch statistics.

    Running statistics are updated once for each view, in order, as in V separate forward passes. Parameters and buffers
    keep their names, so the same checkpoints fit networks with and without it.
    """

    num_views: int = 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.num_views == 1:
            return super().forward(x)
        return torch.cat([super(PerViewBatchNorm, self).forward(view) for view in x.chunk(self.num_views)])


def split_batch_norm(network: nn.Module, num_views: int) -> None:
    """Make every batch normalisation of `network` a PerViewBatchNorm for `num_views` views, in place.

    Subclasses keep what they add, such as the activation of timm's BatchNormAct2d.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _per_view(type(module))
            module.num_views = num_views


@cache
def _per_view(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"PerView{kind.__name__}", (PerViewBatchNorm, kind), {})
