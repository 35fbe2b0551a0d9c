"""Equation (9) against quadrature, and Theorem 1: where it holds, and what its proof needs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastmagn.errors import InputError
from fastmagn.theory.curvature import expand_loss, fisher_factor, fisher_trace, log_prob_gradients
from fastmagn.theory.smoothing import noise_regulariser, theorem_1, weighted_gradient_norm


@pytest.fixture(scope="module")
def small_network():
    """A smooth network of three inputs, few enough for quadrature, and an image [1, 3, 1, 1]."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double().eval()
        for layer in (network[1], network[3]):
            layer.weight.data *= 2
        return network, torch.rand(1, 3, 1, 1, dtype=torch.float64)


def exact_regulariser(network: nn.Module, image: torch.Tensor, sigma_max: float) -> float:
    """E_sigma E_delta D_KL(p(x) || p(x + delta)) by Gauss-Legendre in sigma and Gauss-Hermite in delta."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    weights = weights / weights.sum()
    normals = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 3)
    normal_weights = np.einsum("i,j,k->ijk", weights, weights, weights).reshape(-1)
    levels, level_weights = np.polynomial.legendre.leggauss(12)
    total = 0.0
    for level, level_weight in zip(levels, level_weights, strict=True):
        sigma = sigma_max * (level + 1) / 2
        noisy = image + torch.from_numpy(sigma * normals).view(-1, 3, 1, 1)
        with torch.no_grad():
            p, q = (torch.softmax(network(x), dim=1).numpy() for x in (image, noisy))
        total += level_weight / 2 * float(normal_weights @ (p * np.log(p / q)).sum(axis=1))
    return total


def measure(network: nn.Module, image: torch.Tensor, sigma_max: float, num_images: int = 1, num_draws: int = 2):
    """The regulariser of `num_images` copies of the image, each with draws of its own."""
    images = image.expand(num_images, -1, -1, -1).contiguous()
    trace = fisher_trace(fisher_factor(network, images))
    return noise_regulariser(
        network, images, trace, sigma_max=sigma_max, num_draws=num_draws, indices=np.arange(num_images), seed=7
    )


def test_equation_9_holds_as_the_noise_vanishes(small_network):
    """The ratio of the two sides goes to 1, as sigma_max^2."""
    network, image = small_network
    gaps = []
    for sigma_max in (0.1, 0.05, 0.025):
        gaps.append(
            exact_regulariser(network, image, sigma_max) / float(measure(network, image, sigma_max).small_noise) - 1
        )
    assert abs(gaps[-1]) < 5e-3
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("sigma_max", [1e-5, 0.02, 0.5, 3.0])
def test_monte_carlo_is_within_its_standard_error_of_quadrature(sigma_max, small_network):
    network, image = small_network
    result = measure(network, image, sigma_max, num_images=500, num_draws=64)
    error = float(result.measured.std()) / math.sqrt(500)
    assert abs(float(result.measured.mean()) - exact_regulariser(network, image, sigma_max)) < 4 * error
    assert float(result.standard_error.mean()) == pytest.approx(float(result.measured.std()), rel=0.25)


def test_at_small_noise_the_estimate_agrees_with_the_trace(small_network):
    result = measure(*small_network, 1e-5, num_images=1000, num_draws=64)
    ratio = result.measured / result.small_noise
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(1000)
    assert float(ratio.std()) / math.sqrt(1000) < 0.01


def test_equation_9_fails_at_large_noise(small_network):
    """Bounded logits bound the divergence; sigma_max^2 / 6 Tr(G) grows for ever."""
    network, image = small_network
    result = measure(network, image, 30.0, num_images=50, num_draws=64)
    weights, bias = network[3].weight.detach(), network[3].bias.detach()
    bound = 2 * float((weights.abs().sum(dim=1) + bias.abs()).max())  # |f_k(x + delta) - f_k(x)|, then log p likewise
    assert float(result.measured.max()) < 2 * bound
    assert float(result.small_noise[0]) > 10 * float(result.measured.max())


def test_a_regulariser_without_noise_is_refused(small_network):
    with pytest.raises(InputError, match=r"sigma_max: got 0; expected a number above 0"):
        measure(*small_network, 0)


def soft_targets(number: int, seed: int, sharpness: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharpness * torch.randn(number, 4, generator=generator, dtype=torch.float64), dim=1)


def random_directions(images: torch.Tensor, norm: float, seed: int) -> torch.Tensor:
    deltas = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return norm * deltas / deltas.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@given(st.integers(0, 10**6), st.floats(0.1, 5), st.floats(-4, 1.5), st.booleans())
@settings(max_examples=100, deadline=None)
def test_theorem_1_with_its_remainder_made_explicit(make_linear, make_images, seed, scale, log_norm, soft):
    """Linear logits W x: |third derivative| <= m * second, m the span of W delta, so 1/2 becomes (e^m - m - 1)/m^2.

    With it, the two terms bound the deviation for every delta, of whatever size: nothing is left to an o().
    """
    network, weight = make_linear(seed, scale)
    images = make_images(20, seed)
    targets = soft_targets(20, seed) if soft else torch.arange(20) % 4
    deltas = random_directions(images, 10**log_norm, seed + 1)
    both = theorem_1(network, images, targets, deltas)
    slopes = deltas.flatten(1) @ weight.T
    span = slopes.amax(dim=1) - slopes.amin(dim=1)
    inflation = torch.where(span > 1e-3, 2 * (torch.expm1(span) - span) / span.square(), 1 + span)
    bound = both.first_order + both.second_order * inflation
    assert (both.deviation <= bound * (1 + 1e-9) + 1e-13).all()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.GELU()], ids=str)
@pytest.mark.parametrize("norm", [1e-4, 1e-2])
def test_theorem_1_holds_in_random_directions(activation, norm, make_network, make_images):
    for seed in range(4):
        network, images = make_network(activation, seed), make_images(50, seed)
        both = theorem_1(network, images, torch.arange(50) % 4, random_directions(images, norm, seed))
        assert (both.deviation <= both.first_order + both.second_order + 1e-13).all()


def test_theorem_1_is_local(make_network, make_images):
    """Half the distance between two images away, over many kinks, the two terms no longer bound the deviation."""
    network, images = make_network(nn.ReLU()), make_images(200)
    both = theorem_1(network, images, torch.arange(200) % 4, random_directions(images, 0.7, 0))
    assert (both.deviation > 1.2 * (both.first_order + both.second_order)).any()


def test_theorem_1_holds_to_second_order_along_the_gradient(make_linear, make_images):
    """There the linear term is tight. What exceeds the bound vanishes against |delta|^2, and is not always 0."""
    network, _ = make_linear(scale=2.0)
    images, labels = make_images(200), torch.arange(200) % 4
    gradient = expand_loss(network, images, labels).gradient
    gradient = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    excess = []
    for norm in (1e-1, 1e-2, 1e-3):
        both = theorem_1(network, images, labels, norm * gradient)
        excess.append(float(((both.deviation - both.first_order - both.second_order) / norm**2).max()))
    assert excess[0] > 0, "the o(|delta|^2) cannot be left out"
    assert excess[1] < excess[0] / 5
    assert excess[2] < excess[0] / 50


def test_theorem_1_needs_a_positive_semidefinite_hessian():
    """Logits (x^2, 0), label 0, at x = 0: no gradient, H = -1, so that (12) bounds a deviation by less than nothing."""

    class Square(nn.Module):
        def forward(self, images):
            squares = images.flatten(1).square()
            return torch.cat([squares, torch.zeros_like(squares)], dim=1)

    delta = torch.full((1, 1, 1, 1), 1e-3, dtype=torch.float64)
    both = theorem_1(Square(), torch.zeros_like(delta), torch.tensor([0]), delta)
    assert float(both.first_order) == 0
    assert float(both.second_order) == pytest.approx(-1e-6 / 2)
    assert float(both.deviation) == pytest.approx(1e-6 / 2, rel=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()], ids=str)
def test_the_proofs_square_root_is_the_gradients_norm_for_one_hot_labels(activation, make_network, make_images):
    network, images = make_network(activation), make_images(8)
    labels = torch.arange(8) % 4
    _, gradients = log_prob_gradients(network, images)
    norms = expand_loss(network, images, labels).gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(weighted_gradient_norm(gradients, labels), norms, rtol=1e-12, atol=0)
    one_hot = torch.eye(4, dtype=torch.float64)[labels]
    torch.testing.assert_close(weighted_gradient_norm(gradients, one_hot), norms, rtol=1e-12, atol=0)


def test_the_proofs_square_root_is_not_the_gradients_norm_for_soft_labels(make_network, make_images):
    """Two classes: logits (x, 0), y = (1/2, 1/2). By hand: |grad L| = |p - 1/2|, the root sqrt(((1-p)^2 + p^2) / 2)."""

    class TwoClasses(nn.Module):
        def forward(self, images):
            return torch.cat([images.flatten(1), torch.zeros(len(images), 1, dtype=images.dtype)], dim=1)

    image, targets = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64), torch.full((1, 2), 0.5, dtype=torch.float64)
    p = 1 / (1 + math.exp(-0.3))
    _, gradients = log_prob_gradients(TwoClasses(), image)
    assert float(expand_loss(TwoClasses(), image, targets).gradient) == pytest.approx(p - 0.5)
    root = float(weighted_gradient_norm(gradients, targets))
    assert root == pytest.approx(math.sqrt(((1 - p) ** 2 + p**2) / 2))
    assert root > 6 * (p - 0.5)


@given(st.integers(0, 10**6), st.floats(0, 10))
@settings(max_examples=50, deadline=None)
def test_the_square_root_bounds_the_gradients_norm_for_all_labels(make_network, make_images, seed, sharpness):
    network, images = make_network(nn.GELU(), seed % 5), make_images(10, seed)
    targets = soft_targets(10, seed, sharpness)
    _, gradients = log_prob_gradients(network, images)
    norms = expand_loss(network, images, targets).gradient.flatten(1).norm(dim=1)
    assert (norms <= weighted_gradient_norm(gradients, targets) * (1 + 1e-12)).all()


def test_where_the_label_is_the_prediction_the_gradient_is_0_and_the_root_is_that_of_fishers_trace(
    make_network, make_images
):
    network, images = make_network(nn.ReLU()), make_images(8)
    probs, gradients = log_prob_gradients(network, images)
    assert float(expand_loss(network, images, probs).gradient.abs().max()) < 1e-13
    root = weighted_gradient_norm(gradients, probs)
    torch.testing.assert_close(root, fisher_trace(fisher_factor(network, images)).sqrt(), rtol=1e-12, atol=0)
