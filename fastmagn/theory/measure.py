"""Measures the local geometry of a model's loss, image by image.

Shape letters: M images, B batch, K classes, C H W image.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.errors import InputError, as_array, check, counted, form
from fastmagn.machine.hardware import full_float32
from fastmagn.models import evaluation_mode
from fastmagn.theory.config import GeometryConfig
from fastmagn.theory.curvature import (
    LossExpansion,
    estimate_fisher_trace,
    estimate_trace,
    expand_loss,
    fisher_factor,
    fisher_largest_eigenvalue,
    fisher_product,
    fisher_trace,
    plain_attention,
    power_iteration,
)
from fastmagn.theory.probes import Purpose, rademacher, standard_normal
from fastmagn.theory.smoothing import deviation_bound, loss_deviation, noise_regulariser


def measure_geometry(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: GeometryConfig | None = None,
    *,
    indices: np.ndarray | None = None,
    device: torch.device | None = None,
) -> dict[str, np.ndarray]:
    """Fisher information, gradient, curvature and local deviation of the cross-entropy near each image.

    All are taken with respect to the image, pixels in [0, 1], in evaluation mode. The model's modes and gradients are
    left as they were. An image's numbers do not depend on the other images, up to the rounding of its dtype.
    Where (12) has lambda_max(H), the bound of the loss has |curvature|: the two are equal if H is positive
    semidefinite; if not, |curvature| still bounds the quadratic term, as far as its power iteration has converged.

    Args:
        model: Takes images [B, C, H, W] in [0, 1] (and noisy ones outside it) and returns logits [B, K].
        images: A tensor [M, C, H, W], of the model's dtype.
        labels: A tensor of integers [M], 0..K-1.
        config: What to measure; None means the defaults.
        indices: int64 [M], the images' numbers in their set, for the random stream; None counts from 0.
        device: Where the model is; None means where the images are.

    Returns:
        float64 arrays [M] by name:

        - loss: L, nats; correct: 1 where the largest logit is the label's, else 0.
        - fisher_trace, fisher_largest_eigenvalue: of G, equation (8).
        - fisher_trace_error (standard error), fisher_eigenvalue_error (residual): with fisher="estimate" only.
        - gradient_norm: |grad L|.
        - hessian_trace, hessian_trace_error: Hutchinson's estimate and its standard error.
        - curvature, curvature_error: H's eigenvalue of largest magnitude, with its sign, and its residual.
        - loss_deviation_mean, loss_deviation_max: |L(x + delta) - L(x)| over delta ~ N(0, noise_sigma^2 I).
        - loss_bound_mean: mean over the same delta of (12) without its o(), with |curvature| in place of lambda_max(H).
        - loss_bound_share: share of these delta whose deviation is within the bound, 0..1.
        - noise_kl, noise_kl_error, noise_kl_small_noise: both sides of equation (9), and the first's standard error.

    Raises:
        InputError: The images, labels or indices are not as described here, or a quantity is not finite.
    """
    config = config or GeometryConfig()
    _check_tensors(images, labels)
    device = device or images.device
    indices = np.arange(len(images)) if indices is None else as_array("indices", indices)
    fits = indices.shape == (len(images),) and indices.dtype.kind in "iu"
    check(fits, "indices", form(indices), f"{counted(len(images), 'integer')}, one for each image")
    indices = indices.astype(np.int64)
    parts: dict[str, list[np.ndarray]] = {}
    with evaluation_mode(model), full_float32(), plain_attention():
        for first in range(0, len(images), config.batch_size):
            rows = slice(first, first + config.batch_size)
            batch = _Batch(model, images[rows].to(device), labels[rows].to(device), indices[rows], config)
            for name, values in _measure(batch).items():
                parts.setdefault(name, []).append(values.double().cpu().numpy())
    measured = {name: np.concatenate(values) for name, values in parts.items()}
    for name, quantity in measured.items():
        bad = np.flatnonzero(~np.isfinite(quantity))
        if len(bad):
            raise InputError(f"{name}: got {quantity[bad[0]]} at image {indices[bad[0]]}; expected a finite number.")
    return measured


def _check_tensors(images: Tensor, labels: Tensor) -> None:
    """Raise InputError unless these are images [M, C, H, W] and their labels [M], as tensors."""
    is_batch = isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point()
    check(is_batch, "images", _shown(images), "a tensor of floats [M, C, H, W]")
    check(len(images) > 0, "images", "none", "at least one")
    is_integer = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.dtype == torch.bool)
    check(is_integer and labels.ndim == 1, "labels", _shown(labels), "a tensor of integers [M]")
    check(len(labels) == len(images), "labels", counted(len(labels), "label"), f"{len(images)}, one for each image")


def _shown(values: object) -> str:
    return form(values) if isinstance(values, Tensor) else f"a {type(values).__name__}"


@dataclass(frozen=True)
class _Batch:
    """The images that are being measured, their labels and sample indices, and what is measured."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    indices: np.ndarray
    config: GeometryConfig

    def probes(self, purpose: Purpose) -> Iterator[Tensor]:
        for draw in range(self.config.num_probes):
            yield rademacher(self.images, purpose, draw, self.indices, self.config.seed)

    def start(self, purpose: Purpose) -> Tensor:
        return standard_normal(self.images, purpose, 0, self.indices, self.config.seed)


def _measure(batch: _Batch) -> dict[str, Tensor]:
    config = batch.config
    with torch.no_grad():
        correct = batch.model(batch.images).argmax(dim=1) == batch.labels
    expansion = expand_loss(batch.model, batch.images, batch.labels)
    measured = {
        "loss": expansion.loss,
        "correct": correct,
        "gradient_norm": expansion.gradient.double().flatten(1).norm(dim=1),
        **_fisher(batch),
        **_hessian(batch, expansion),
    }
    measured |= _deviation(batch, measured)
    regulariser = noise_regulariser(
        batch.model,
        batch.images,
        measured["fisher_trace"],
        sigma_max=config.sigma_max,
        num_draws=config.num_noise,
        indices=batch.indices,
        seed=config.seed,
    )
    names = ("noise_kl", "noise_kl_error", "noise_kl_small_noise")
    return measured | dict(zip(names, regulariser, strict=True))


def _fisher(batch: _Batch) -> dict[str, Tensor]:
    if batch.config.fisher == "exact":
        factor = fisher_factor(batch.model, batch.images)
        return {"fisher_trace": fisher_trace(factor), "fisher_largest_eigenvalue": fisher_largest_eigenvalue(factor)}
    trace = estimate_fisher_trace(batch.model, batch.images, batch.probes(Purpose.FISHER_PROBE))
    product = fisher_product(batch.model, batch.images)
    largest = power_iteration(product, batch.start(Purpose.FISHER_START), batch.config.num_iterations)
    return {
        "fisher_trace": trace.mean,
        "fisher_trace_error": trace.standard_error,
        "fisher_largest_eigenvalue": largest.value,
        "fisher_eigenvalue_error": largest.residual,
    }


def _hessian(batch: _Batch, expansion: LossExpansion) -> dict[str, Tensor]:
    trace = estimate_trace(expansion.hessian_product, batch.probes(Purpose.HESSIAN_PROBE))
    start = batch.start(Purpose.HESSIAN_START)
    largest = power_iteration(expansion.hessian_product, start, batch.config.num_iterations)
    return {
        "hessian_trace": trace.mean,
        "hessian_trace_error": trace.standard_error,
        "curvature": largest.value,
        "curvature_error": largest.residual,
    }


def _deviation(batch: _Batch, measured: dict[str, Tensor]) -> dict[str, Tensor]:
    deviations, bounds = [], []
    for draw in range(batch.config.num_noise):
        noise = standard_normal(batch.images, Purpose.DEVIATION, draw, batch.indices, batch.config.seed)
        deltas = batch.config.noise_sigma * noise
        deviations.append(loss_deviation(batch.model, batch.images, batch.labels, measured["loss"], deltas))
        norms = deltas.double().flatten(1).norm(dim=1)
        first, second = deviation_bound(measured["gradient_norm"], measured["curvature"].abs(), norms)
        bounds.append(first + second)
    deviation, bound = torch.stack(deviations), torch.stack(bounds)
    return {
        "loss_deviation_mean": deviation.mean(dim=0),
        "loss_deviation_max": deviation.amax(dim=0),
        "loss_bound_mean": bound.mean(dim=0),
        "loss_bound_share": (deviation <= bound).double().mean(dim=0),
    }
