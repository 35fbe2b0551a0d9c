"""Fisher information and loss Hessian with respect to the input, exactly and by products with vectors.

Shape letters: B batch, K classes, C H W image, D = C*H*W. J [B, K, D] is the Jacobian of the logits f,
p = softmax(f), A = diag(p) - p p^T, and y [B, K] the target of the cross-entropy L = -sum_k y_k log p_k.

    G(x) = sum_k p_k (grad log p_k)(grad log p_k)^T = J^T A J                        equation (8), Proposition 1's proof
    H(x) = grad^2 L = J^T A J + sum_k (p_k - y_k) grad^2 f_k                         the chain rule

The paper's Proposition 1, H = G for any label y, therefore holds where the last term vanishes: where the logits are
piecewise linear in x (ReLU, max-pooling, batch normalisation in evaluation mode), away from the kinks. With curved
activations it does not hold, though E_{y ~ p} H = G for every smooth network, since E[y] = p.

In every function the model must be in evaluation mode, so that images do not influence each other. Softmax and all that
follows are computed in float64, whatever the model's dtype: for a confident prediction only 1 - p matters.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastmagn.errors import check, form

Model = Callable[[Tensor], Tensor]
Product = Callable[[Tensor], Tensor]


class Estimate(NamedTuple):
    """The mean over random draws, and its standard error, float64 [B] each."""

    mean: Tensor
    standard_error: Tensor


class Eigenvalue(NamedTuple):
    """A matrix M's Rayleigh quotient at the last unit vector v, and |M v - value v|, float64 [B] each.

    An eigenvalue of a symmetric M lies within `residual` of `value`.
    """

    value: Tensor
    residual: Tensor


class HessianParts(NamedTuple):
    """H = gauss_newton + rest, float64 [B, D, D] each: grad^2 L, J^T A J, and sum_k (p_k - y_k) grad^2 f_k."""

    whole: Tensor
    gauss_newton: Tensor
    rest: Tensor


class LossExpansion(NamedTuple):
    """The loss near each image: L float64 [B], its gradient [B, C, H, W], and the function v [B, C, H, W] -> H v."""

    loss: Tensor
    gradient: Tensor
    hessian_product: Product


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention from plain operations: its fused kernels have neither second derivatives nor forward mode."""
    was_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)


def target_probs(targets: Tensor, num_classes: int) -> Tensor:
    """y, float64 [B, K]: one-hot rows for labels int64 [B]; soft labels [B, K] are returned as they are."""
    if targets.is_floating_point():
        allowed = f"integers [B], or soft labels [B, {num_classes}]"
        check(targets.ndim == 2 and targets.shape[1] == num_classes, "labels", form(targets), allowed)
        return targets.double()
    in_range = len(targets) == 0 or (int(targets.min()) >= 0 and int(targets.max()) < num_classes)
    check(in_range, "labels", targets.unique().tolist(), f"0..{num_classes - 1}, the model's classes")
    return F.one_hot(targets.long(), num_classes).double()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """L = -sum_k y_k log p_k of each image, float64 [B]; values below about 1e-16 are rounding errors.

    Args:
        logits: [B, K].
        targets: Labels, int64 [B], or soft labels, [B, K].
    """
    return -(target_probs(targets, logits.shape[1]) * torch.log_softmax(logits.double(), dim=1)).sum(dim=1)


def log_prob_gradients(model: Model, images: Tensor) -> tuple[Tensor, Tensor]:
    """p [B, K] and grad_x log p_k [B, K, D], float64, by K backward passes."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
        rows = [torch.autograd.grad(column.sum(), images, retain_graph=True)[0] for column in logits.unbind(dim=1)]
    jacobian = torch.stack(rows, dim=1).flatten(2).double()
    probs = torch.softmax(logits.detach().double(), dim=1)
    return probs, _centred(jacobian, probs)


def fisher_factor(model: Model, images: Tensor) -> Tensor:
    """M, float64 [B, K, D], with G = M^T M: its rows are sqrt(p_k) grad log p_k (K backward passes)."""
    probs, gradients = log_prob_gradients(model, images)
    return probs.sqrt()[:, :, None] * gradients


def fisher_matrix(model: Model, images: Tensor) -> Tensor:
    """G of equation (8), float64 [B, D, D]. For small inputs."""
    factor = fisher_factor(model, images)
    return factor.mT @ factor


def fisher_trace(factor: Tensor) -> Tensor:
    """Tr(G) = sum_k p_k |grad log p_k|^2, the sum of equation (11), float64 [B], from `fisher_factor`'s M."""
    return factor.square().sum(dim=(1, 2))


def fisher_largest_eigenvalue(factor: Tensor) -> Tensor:
    """lambda_max(G), float64 [B], from `fisher_factor`'s M: M M^T is only K x K and has G's eigenvalues above 0.

    It is NaN where M is not finite, as LAPACK would raise for the whole batch.
    """
    gram = factor @ factor.mT
    finite = gram.isfinite().all(dim=2).all(dim=1)
    largest = torch.linalg.eigvalsh(torch.where(finite[:, None, None], gram, 0.0))[:, -1].clamp(min=0)
    return torch.where(finite, largest, torch.nan)


@torch.no_grad()
@plain_attention()
def estimate_fisher_trace(model: Model, images: Tensor, probes: Iterable[Tensor]) -> Estimate:
    """Hutchinson's estimate of Tr(G): the mean of z^T J^T A J z over probes z, one forward-mode pass each.

    Args:
        model: Images [B, C, H, W] to logits [B, K].
        images: [B, C, H, W].
        probes: Two or more [B, C, H, W] with E[z z^T] = I (`probes.rademacher`).
    """
    squares = []
    for probe in probes:
        logits, slopes = torch.func.jvp(model, (images,), (probe,))[:2]
        probs = torch.softmax(logits.double(), dim=1)
        squares.append((probs * _centred(slopes.double(), probs).square()).sum(dim=1))
    return mean_of_draws(squares)


def fisher_product(model: Model, images: Tensor) -> Product:
    """The function v [B, C, H, W] -> G v = J^T A J v. It takes a forward-mode and a backward pass, and never forms G.

    This is also the Gauss-Newton part of the loss's Hessian, for every target.
    """
    with torch.no_grad(), plain_attention():  # no gradients of the weights; torch.func has those of the images
        logits, pull_back = torch.func.vjp(model, images)[:2]
    probs = torch.softmax(logits.double(), dim=1)

    @torch.no_grad()
    @plain_attention()
    def product(vectors: Tensor) -> Tensor:
        slopes = torch.func.jvp(model, (images,), (vectors,))[1].double()
        return pull_back((probs * _centred(slopes, probs)).to(logits.dtype))[0]

    return product


def expand_loss(model: Model, images: Tensor, targets: Tensor) -> LossExpansion:
    """Each image's loss, its gradient, and Hessian-vector products by a backward pass through the backward pass.

    Args:
        model: Images [B, C, H, W] to logits [B, K]; in evaluation mode, so that the gradient of the summed loss is
            that of each image's own loss.
        images: [B, C, H, W].
        targets: Labels, int64 [B], or soft labels, [B, K].
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad(), plain_attention():
        loss = cross_entropy(model(images), targets)
        (gradient,) = torch.autograd.grad(loss.sum(), images, create_graph=True)

    def product(vectors: Tensor) -> Tensor:
        return torch.autograd.grad(gradient, images, vectors, retain_graph=True)[0]

    return LossExpansion(loss.detach(), gradient.detach(), product)


def hessian_matrix(model: Model, images: Tensor, targets: Tensor) -> HessianParts:
    """H and its two parts, each computed independently. For small inputs.

    Args:
        model: Images [B, C, H, W] to logits [B, K]; in float64 if the results are to be that precise.
        images: [B, C, H, W].
        targets: Labels, int64 [B], or soft labels, [B, K].
    """

    def loss(image: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(model(image[None]), target[None]).sum()

    def weighted_logits(image: Tensor, weights: Tensor) -> Tensor:
        return (weights * model(image[None])).sum()

    with torch.no_grad(), plain_attention():
        logits = model(images)
        targets = target_probs(targets, logits.shape[1])
        weights = torch.softmax(logits.double(), dim=1) - targets
        parts = [
            torch.func.vmap(torch.func.hessian(function))(images, classes)
            for function, classes in ((loss, targets), (weighted_logits, weights))
        ]
    shape = (len(images), images[0].numel(), images[0].numel())
    whole, rest = (part.double().reshape(shape) for part in parts)
    return HessianParts(whole, fisher_matrix(model, images), rest)


def estimate_trace(product: Product, probes: Iterable[Tensor]) -> Estimate:
    """Hutchinson's estimate of the trace of a symmetric matrix, from its products with two or more probes."""
    return mean_of_draws([_dot(probe, product(probe)) for probe in probes])


def power_iteration(product: Product, start: Tensor, num_iterations: int) -> Eigenvalue:
    """The eigenvalue of largest magnitude, with its sign, of each image's symmetric matrix.

    The number of products is fixed, so that an image's result does not depend on the other images; `residual` says how
    well it has converged. A matrix of zeros gives 0.

    Args:
        product: v [B, C, H, W] -> M v.
        start: First vectors [B, C, H, W], not 0.
        num_iterations: Products with M, 1 or more.
    """
    check(num_iterations >= 1, "num_iterations", num_iterations, "1 or more")
    vectors = _scaled(start, 1 / _dot(start, start).sqrt())
    for _ in range(num_iterations):
        images = product(vectors)
        value, norm = _dot(vectors, images), _dot(images, images).sqrt()
        rest = images - _scaled(vectors, value)
        residual = _dot(rest, rest).sqrt()
        vectors = torch.where(_per_image(norm, start) > 0, _scaled(images, 1 / norm), vectors)
    return Eigenvalue(value, residual)


def mean_of_draws(draws: list[Tensor]) -> Estimate:
    """The mean over two or more draws, [B] each, and its standard error."""
    check(len(draws) >= 2, "draws", len(draws), "2 or more: one has no standard error")
    values = torch.stack(draws).double()
    return Estimate(values.mean(dim=0), values.std(dim=0) / math.sqrt(len(draws)))


def _centred(values: Tensor, probs: Tensor) -> Tensor:
    """Values [B, K, ...] minus their mean over the classes under probs [B, K].

    The likeliest class's value is subtracted first. Where its probability rounds to 1, the other classes' share of the
    mean would be lost otherwise, and a confident prediction's G consists of nothing else.
    """
    weights = probs.view(*probs.shape, *[1] * (values.ndim - 2))
    index = probs.argmax(dim=1).view(-1, *[1] * (values.ndim - 1)).expand(-1, 1, *values.shape[2:])
    values = values - values.gather(1, index)
    return values - (weights * values).sum(dim=1, keepdim=True)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Each image's scalar product, in float64 [B], as squares of gradients underflow in float32."""
    return (left.double() * right.double()).flatten(1).sum(dim=1)


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1], to broadcast with images."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _scaled(vectors: Tensor, factors: Tensor) -> Tensor:
    """Each image's vector times its factor [B], in the vectors' dtype."""
    return (vectors.double() * _per_image(factors, vectors)).to(vectors.dtype)
