"""The optimisers, and the learning rate as a pure function of the step: it has no state to save."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fastmagn.config.schema import OptimConfig

# x -> a x + b x^3 + c x^5 takes singular values in (0, 1] to about 1: quickly, not exactly.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3

# The shape of torch.optim.lr_scheduler.OneCycleLR with its defaults.
WARMUP_FRACTION = 0.3
TRIANGLE_TOP = 0.2  # the fraction of the steps at which the triangular schedule peaks
FIRST_LR_DIVISOR = 25.0
LAST_LR_DIVISOR = 25.0 * 1e4


def make_optimizer(parameters: Iterable[nn.Parameter], optim: OptimConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (plain SGD if momentum is 0), with one fused kernel for all parameters; or Muon."""
    if optim.name == "muon":
        return Muon(
            parameters,
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            filter_lr_ratio=optim.filter_lr_ratio,
        )
    return torch.optim.SGD(
        parameters,
        lr=optim.lr,
        momentum=optim.momentum,
        nesterov=optim.momentum > 0,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def learning_rate(step: int, optim: OptimConfig, *, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of step 0 .. epochs * steps_per_epoch - 1."""
    if optim.schedule == "step":
        return optim.lr * optim.step_factor ** (step // steps_per_epoch // optim.step_epochs)
    last = epochs * steps_per_epoch - 1
    if optim.schedule == "triangular":
        top = TRIANGLE_TOP * (last + 1)
        return optim.lr * min((step + 1) / (top + 1), (last + 1 - step) / (last + 1 - top))
    peak = max(WARMUP_FRACTION * (last + 1) - 1, 0.0)
    if step <= peak:
        return _cosine(optim.lr / FIRST_LR_DIVISOR, optim.lr, step / peak if peak else 1.0)
    return _cosine(optim.lr, optim.lr / LAST_LR_DIVISOR, (step - peak) / (last - peak))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))


def orthogonalise(matrix: Tensor) -> Tensor:
    """Approximately the (semi-)orthogonal matrix nearest to [M, N]: its singular values end up in about 0.7..1.2."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    x = x / (x.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x if wide else x.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for parameters with four dimensions and Nesterov SGD for the others, in one optimiser.

    Args:
        parameters: The parameters of the model.
        lr: Learning rate of the SGD part, above 0.
        momentum: Nesterov momentum of both, 0 <= momentum < 1.
        weight_decay: L2 penalty of the SGD part. Filter banks keep their norm instead.
        filter_lr_ratio: The learning rate of filter banks divided by `lr`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        filter_lr_ratio: float,
    ) -> None:
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.ndim == 4], "is_filters": True},
            {"params": [p for p in parameters if p.ndim != 4], "is_filters": False},
        ]
        defaults: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(groups, {**defaults, "filter_lr_ratio": filter_lr_ratio})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        if not group["is_filters"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(buffer, alpha=group["momentum"])
        if not group["is_filters"]:
            parameter.add_(update, alpha=-group["lr"])
            return
        parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
        direction = orthogonalise(update.reshape(len(update), -1)).view_as(update)
        parameter.add_(direction, alpha=-group["lr"] * group["filter_lr_ratio"])
