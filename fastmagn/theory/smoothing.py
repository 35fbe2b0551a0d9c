"""How Gaussian smoothing changes the loss near an image: both sides of equation (9) and of Theorem 1.

Shape letters: B batch, K classes, C H W image, D = C*H*W.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastmagn.errors import check
from fastmagn.losses import kl_divergence
from fastmagn.theory.curvature import (
    Model,
    cross_entropy,
    hessian_matrix,
    log_prob_gradients,
    mean_of_draws,
    target_probs,
)
from fastmagn.theory.probes import Purpose, noise_levels, standard_normal


class NoiseRegulariser(NamedTuple):
    """Both sides of equation (9), float64 [B] each, in nats.

    `measured` is the mean over the draws of D_KL(p(x) || p(x + delta)), with its standard error; `small_noise` is
    sigma_max^2 / 6 Tr(G(x)).
    """

    measured: Tensor
    standard_error: Tensor
    small_noise: Tensor


class DeviationBound(NamedTuple):
    """Both sides of Theorem 1's (12) without its o(|delta|^2), float64 [B] each.

    deviation <= first_order + second_order + o(|delta|^2).
    """

    deviation: Tensor
    first_order: Tensor
    second_order: Tensor


@torch.no_grad()
def noise_regulariser(
    model: Model,
    images: Tensor,
    fisher_trace: Tensor,
    *,
    sigma_max: float,
    num_draws: int,
    indices: np.ndarray,
    seed: int,
) -> NoiseRegulariser:
    """The regulariser of equation (6) without its weight, by Monte Carlo, and its value by equation (9).

    The two agree as sigma_max -> 0, to first order in sigma_max^2. At a finite noise they may differ: the
    divergence of a network with bounded logits stays bounded, but sigma_max^2 / 6 Tr(G) does not.

    Args:
        model: Images [B, C, H, W] to logits [B, K], in evaluation mode.
        images: [B, C, H, W]; in [0, 1] if sigma_max is to have the same meaning as in training.
        fisher_trace: Tr(G), [B].
        sigma_max: Largest standard deviation of the noise, pixels; above 0.
        num_draws: Draws of (sigma, delta) per image, 2 or more.
        indices: int64 [B], the images' sample indices.
        seed: 0..2^64 - 1.
    """
    check(sigma_max > 0, "sigma_max", sigma_max, "a number above 0")
    sigmas = noise_levels(images, num_draws, sigma_max, indices, seed)
    log_probs = torch.log_softmax(model(images).double(), dim=1)
    divergences = []
    for draw, sigma in enumerate(sigmas):
        noise = standard_normal(images, Purpose.REGULARISER, draw, indices, seed)
        noisy = images + sigma.view(-1, *[1] * (images.ndim - 1)) * noise
        divergences.append(kl_divergence(log_probs, torch.log_softmax(model(noisy).double(), dim=1)))
    return NoiseRegulariser(*mean_of_draws(divergences), sigma_max**2 / 6 * fisher_trace.double())


@torch.no_grad()
def loss_deviation(model: Model, images: Tensor, targets: Tensor, loss: Tensor, deltas: Tensor) -> Tensor:
    """|L(x + delta, y) - L(x, y)|, float64 [B].

    Args:
        model: Images [B, C, H, W] to logits [B, K], in evaluation mode.
        images: x, [B, C, H, W].
        targets: Labels, int64 [B], or soft labels, [B, K].
        loss: L(x, y), [B].
        deltas: delta, [B, C, H, W].
    """
    return (cross_entropy(model(images + deltas), targets) - loss).abs()


def weighted_gradient_norm(gradients: Tensor, targets: Tensor) -> Tensor:
    """sqrt(sum_k y_k |grad log p_k|^2), the first factor of (12), float64 [B].

    The proof of (13) equates it with |grad L| = |sum_k y_k grad log p_k|. The two are equal for one-hot y, where only
    one term is left. For soft labels the norm of a mean is at most the root of the mean square, and mostly less. The
    bound then still holds, though it is looser, but the proof's equality does not. At y = p(x), the proof's own limit
    for correct classifications, |grad L| is 0 while this is sqrt(Tr(G)).

    Args:
        gradients: grad log p_k, [B, K, D], as `log_prob_gradients` gives them.
        targets: Labels, int64 [B], or soft labels, [B, K].
    """
    weights = target_probs(targets, gradients.shape[1])
    return (weights * gradients.double().square().sum(dim=2)).sum(dim=1).sqrt()


def deviation_bound(gradient_norm: Tensor, largest_eigenvalue: Tensor, delta_norm: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of (12): |delta| * gradient_norm and lambda_max(H) |delta|^2 / 2, [B] each."""
    return delta_norm * gradient_norm, largest_eigenvalue * delta_norm.square() / 2


def theorem_1(model: Model, images: Tensor, targets: Tensor, deltas: Tensor) -> DeviationBound:
    """Both sides of Theorem 1 exactly as the paper states them. For small inputs: lambda_max is taken from the whole H.

    The o(|delta|^2) is left out, although it is needed: along the gradient the linear term is tight, and the third
    order can push the deviation past the two terms by about |delta|^3. The proof also assumes that H is positive
    semidefinite, which follows from Proposition 1 where that holds. With curved activations H can have a negative
    eigenvalue of larger magnitude; then |lambda| in place of lambda_max bounds the quadratic term.

    Args:
        model: Images [B, C, H, W] to logits [B, K], in evaluation mode.
        images: x, [B, C, H, W].
        targets: Labels, int64 [B], or soft labels, [B, K].
        deltas: delta, [B, C, H, W].
    """
    with torch.no_grad():
        loss = cross_entropy(model(images), targets)
    _, gradients = log_prob_gradients(model, images)
    largest = torch.linalg.eigvalsh(hessian_matrix(model, images, targets).whole)[:, -1]
    norms = deltas.double().flatten(1).norm(dim=1)
    bound = deviation_bound(weighted_gradient_norm(gradients, targets), largest, norms)
    return DeviationBound(loss_deviation(model, images, targets, loss, deltas), *bound)
