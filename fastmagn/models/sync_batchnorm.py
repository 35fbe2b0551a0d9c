"""Batch normalisation over the images of all processes.

torch.nn.SyncBatchNorm works on GPUs only and breaks a compiled graph; this one is plain operations and a functional
all-reduce, which the compiler takes in and gloo carries too.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor, nn

from fastmagn.errors import InputError


class _SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor; its gradient is the sum of every process's gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return collectives.wait_tensor(collectives.all_reduce(values, "sum", dist.group.WORLD))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return collectives.wait_tensor(collectives.all_reduce(gradient.contiguous(), "sum", dist.group.WORLD))


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch statistics are those of all processes' images, each process having equally many.

    Statistics are float32, whatever the precision of the activations; parameters and buffers keep BatchNorm2d's names.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        sums = torch.stack([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))])
        mean, mean_square = _SumOverProcesses.apply(sums) / count
        variance = mean_square - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Turn every BatchNorm2d of `network` into a SyncedBatchNorm2d, in place.

    Raises:
        InputError: The network has a batch normalisation of another kind.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise InputError(
                f"model.sync_bn: got a network with {type(module).__name__}; expected BatchNorm2d only, or false."
            )
