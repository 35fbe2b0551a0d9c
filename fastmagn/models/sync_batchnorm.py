"""Batch normalisation over the images of all processes.

torch.nn.SyncBatchNorm works on GPUs only and breaks a compiled graph. This one consists of plain operations and a
functional all-reduce, which the compiler can include in its graph and which gloo supports too.

A single process uses it as well if it is asked for, so that a run's numbers do not depend on the number of processes.
On a CPU with channels last, the gradients of PyTorch's own batch normalisation are off by up to 1e-3 of the largest
(float32, 64 digits, against float64); those of this one are off by 1e-6.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor, nn

from fastmagn.errors import InputError


class _MeanOverProcesses(torch.autograd.Function):
    """The mean of every process's tensor; its gradient is the mean of every process's gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _mean(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient.contiguous())


def _mean(values: Tensor) -> Tensor:
    group: Any = dist.group.WORLD
    total = collectives.wait_tensor(collectives.all_reduce(values, "sum", group))
    return total / dist.get_world_size()


def _mean_over_processes(values: Tensor) -> Tensor:
    return _MeanOverProcesses.apply(values) if dist.is_initialized() else values


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with batch statistics over the images of all processes, each of which has equally many.

    Statistics are float32, whatever the precision of the activations. Parameters and buffers keep BatchNorm2d's names.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = x.numel() // x.shape[1] * (dist.get_world_size() if dist.is_initialized() else 1)
        # The variance comes from deviations: mean squares would lose three digits to cancellation after a ReLU.
        variance_here, mean_here = torch.var_mean(values, dim=(0, 2, 3), correction=0)
        mean = _mean_over_processes(mean_here)
        variance = _mean_over_processes(variance_here + (mean_here - mean).square())
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                # Without a momentum, as BatchNorm2d: the mean over all batches.
                share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.float()
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (count / (count - 1)), share)
        scale = torch.rsqrt(variance + self.eps)
        scale = self.weight * scale if self.affine else scale
        shift = (self.bias if self.affine else 0) - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Turn every BatchNorm2d of `network` into a SyncedBatchNorm2d, in place.

    Raises:
        InputError: The network has another kind of batch normalisation.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise InputError(
                f"model.sync_bn: got a network with {type(module).__name__}; expected BatchNorm2d only, or false."
            )
