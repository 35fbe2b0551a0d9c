"""Muon: momentum whose update is made orthogonal, for the filters of convolutions; SGD with Nesterov for the rest.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), and its use for filters in
cifar10-airbench. A filter bank [out, in, kh, kw] is the matrix [out, in kh kw].
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ_STEPS = 3
# The quintic x -> a x + b x^3 + c x^5 that takes singular values in (0, 1] to about 1 quickly, and not exactly.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix to [M, N], roughly: its singular values end in about 0.7..1.2."""
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
    """Muon for parameters of four dimensions, Nesterov SGD for the others, in one optimiser.

    Args:
        parameters: The model's.
        lr: Learning rate of the SGD part, above 0.
        momentum: Nesterov momentum of both, 0 <= momentum < 1.
        weight_decay: L2 penalty of the SGD part. Filter banks have their norm kept instead.
        filter_lr_ratio: Filter banks' learning rate over `lr`.
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
