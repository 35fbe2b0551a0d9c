"""Muon: orthogonal updates for filters, Nesterov SGD for all other parameters, in few launches and without waiting.

Parameters of equal shape are updated together: ResNet-18's 62 parameters have 11 shapes of filters. All tensors are
handled in the order in which they lie in memory (channels last or not), where PyTorch's operations on lists are one
launch each. A permutation of a filter's inputs changes neither its norm nor what is orthogonal.

Shape letters: P filter banks of one shape, M filters in each, N inputs of a filter.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastmagn.training.replaying import Replayed

# x -> a x + b x^3 + c x^5 takes singular values in (0, 1] to about 1: quickly, not exactly.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3


def orthogonalise(matrices: Tensor) -> Tensor:
    """Roughly the (semi-)orthogonal matrices nearest to [..., M, N].

    No singular value ends up above about 1.2. Small ones grow, 41-fold at most, so those far below the largest stay
    small.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.reshape(-1, *matrices.shape[-2:])
    x = x.bfloat16() if x.is_cuda else x.float()
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    is_wide = x.shape[1] <= x.shape[2]
    x = x if is_wide else x.mT
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x if is_wide else x.mT).to(matrices.dtype).reshape(matrices.shape)


class Muon(torch.optim.Optimizer):
    """Muon for parameters with four dimensions and Nesterov SGD for the others, in one optimiser.

    With a GradScaler, a step whose gradients are not finite changes nothing; the host does not wait to know.

    Args:
        parameters: The parameters of the model, float32.
        lr: Learning rate of the SGD part, above 0.
        momentum: Nesterov momentum of both, 0 <= momentum < 1.
        weight_decay: L2 penalty of the SGD part. A bank of M filters gets the norm sqrt(M) before each update instead.
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
        # GradScaler then leaves the scale and what is not finite to `step`, as `grad_scale` and `found_inf`.
        self._step_supports_amp_scaling = True
        self._on_cuda = Replayed()

    @torch.no_grad()
    def step(  # type: ignore[override]  # one signature for the two overloads of Optimizer
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """One update of every parameter that has a gradient; on CUDA from the fourth on as one CUDA graph.

        Args:
            closure: Computes the gradients anew, and returns the loss.

        Returns:
            The closure's loss; None without a closure.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        rates = [
            group["lr"] * (group["filter_lr_ratio"] if group["is_filters"] else 1.0) for group in self.param_groups
        ]
        if parameters and parameters[0].is_cuda and not hasattr(self, "found_inf"):
            memory = [*parameters, *map(self._buffer, parameters)]
            self._on_cuda.run(lambda *given: self._update(parameters, *given), memory, gradients, rates)
        else:
            self._update(parameters, gradients, rates)
        return loss

    def _update(self, parameters: list[nn.Parameter], gradients: list[Tensor], rates: Sequence[Tensor | float]) -> None:
        gradient_of = dict(zip(parameters, gradients, strict=True))
        for group, rate in zip(self.param_groups, rates, strict=True):
            own = [parameter for parameter in group["params"] if parameter in gradient_of]
            if own:
                self._update_group(own, [gradient_of[parameter] for parameter in own], rate, group)

    def _update_group(
        self, parameters: list[nn.Parameter], given: list[Tensor], rate: Tensor | float, group: dict[str, Any]
    ) -> None:
        weights = [_as_in_memory(parameter, parameter) for parameter in parameters]
        gradients, skipped = self._gradients(parameters, given)
        momentum, weight_decay = group["momentum"], group["weight_decay"]
        if skipped is not None:
            momentum = torch.where(skipped, 1.0, momentum)
            rate, weight_decay = torch.where(skipped, 0.0, rate), torch.where(skipped, 0.0, weight_decay)
        if not group["is_filters"]:
            decay = list(torch._foreach_mul(weights, weight_decay))
            torch._foreach_add_(decay, gradients)
            gradients = decay
        buffers = [_as_in_memory(self._buffer(parameter), parameter) for parameter in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        updates = torch._foreach_add(gradients, buffers, alpha=group["momentum"])
        if not group["is_filters"]:
            torch._foreach_mul_(updates, -rate)
            torch._foreach_add_(weights, updates)
            return
        for same in _by_shape(weights):
            banks, update = (torch.stack([tensors[i] for i in same]) for tensors in (weights, updates))
            direction = orthogonalise(update.flatten(2)).view_as(update)
            new = banks * _norm_factors(banks, skipped) - direction * rate
            torch._foreach_copy_([weights[i] for i in same], list(new.unbind()))

    def _gradients(self, parameters: list[nn.Parameter], given: list[Tensor]) -> tuple[list[Tensor], Tensor | None]:
        """The gradients as they lie in memory, and whether this step changes nothing; None without a GradScaler.

        Those that are not finite are then 0, so that nothing else becomes so.
        """
        gradients = [_as_in_memory(gradient, p) for gradient, p in zip(given, parameters, strict=True)]
        found_inf, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found_inf is None:
            return gradients, None
        skipped = found_inf > 0
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        flat = torch.where(skipped, 0.0, flat if scale is None else flat / scale)
        parts = flat.split([gradient.numel() for gradient in gradients])
        return [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)], skipped

    def _buffer(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def _as_in_memory(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """A view of the tensor that is contiguous if it lies in memory as the parameter does.

    All such views of one shape have equal strides, those of dimensions of size 1 among them.
    """
    if parameter.ndim != 4:
        return tensor
    is_last = parameter.is_contiguous(memory_format=torch.channels_last)
    seen = tensor.permute(0, 2, 3, 1) if is_last else tensor
    return seen.flatten().view(seen.shape) if seen.is_contiguous() else seen


def _by_shape(tensors: list[Tensor]) -> list[list[int]]:
    """The numbers of the tensors of each shape, dtype and device."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, tensor in enumerate(tensors):
        groups.setdefault((tensor.shape, tensor.dtype, tensor.device), []).append(i)
    return list(groups.values())


def _norm_factors(banks: Tensor, skipped: Tensor | None) -> Tensor:
    """What gives each of the filter banks [P, M, ...] the norm sqrt(M), or 1 in a step that changes nothing."""
    norms = torch.linalg.vector_norm(banks, dim=tuple(range(1, banks.ndim)), keepdim=True)
    factors = banks.shape[1] ** 0.5 / norms.clamp_min(1e-12)  # a bank of zeros stays
    return factors if skipped is None else torch.where(skipped, 1.0, factors)
