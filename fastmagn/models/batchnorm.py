"""Batch normalisation of a fused batch, view by view."""

import torch
from torch import Tensor, nn


class PerViewBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that normalises each of the V views stacked in [V*B, C, H, W] with its own batch statistics.

    Running statistics are updated once for each view, in order, as V separate forward passes would. Parameters and
    buffers keep BatchNorm2d's names, so checkpoints fit both.
    """

    num_views: int = 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.num_views == 1:
            return super().forward(x)
        return torch.cat([super(PerViewBatchNorm2d, self).forward(view) for view in x.chunk(self.num_views)])


def split_batch_norm(network: nn.Module, num_views: int) -> None:
    """Turn every BatchNorm2d of `network` into a PerViewBatchNorm2d for `num_views` views, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = PerViewBatchNorm2d
            module.num_views = num_views
