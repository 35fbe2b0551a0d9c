"""Fisher information and Hessian against closed forms and finite differences; Proposition 1, where it holds and not."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.errors import InputError
from fastmagn.models import build_model
from fastmagn.theory.curvature import (
    estimate_fisher_trace,
    estimate_trace,
    expand_loss,
    fisher_factor,
    fisher_largest_eigenvalue,
    fisher_matrix,
    fisher_product,
    fisher_trace,
    hessian_matrix,
    mean_of_draws,
    power_iteration,
)
from fastmagn.theory.probes import Purpose, rademacher, standard_normal

PIECEWISE_LINEAR = [nn.ReLU(), nn.LeakyReLU(0.2)]
CURVED = [nn.GELU(), nn.Tanh(), nn.Softplus()]
LABELS = torch.tensor([0, 1, 2, 3, 1])


def plain_log_probs(network: nn.Module, image: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        logits = network(image[None])[0].numpy()
    return logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())


def plain_slopes(network: nn.Module, image: torch.Tensor, step: float = 1e-5) -> np.ndarray:
    """grad log p_k [K, D] by central differences."""
    columns = []
    for i in range(image.numel()):
        shift = torch.zeros(image.numel(), dtype=torch.float64)
        shift[i] = step
        ahead, behind = (plain_log_probs(network, image + sign * shift.view_as(image)) for sign in (1, -1))
        columns.append((ahead - behind) / (2 * step))
    return np.stack(columns, axis=1)


def closed_form(weight: torch.Tensor, network: nn.Module, image: torch.Tensor) -> np.ndarray:
    """W^T (diag p - p p^T) W."""
    probs = np.exp(plain_log_probs(network, image))
    return weight.numpy().T @ (np.diag(probs) - np.outer(probs, probs)) @ weight.numpy()


def test_a_linear_model_has_the_closed_form(make_linear, make_images):
    network, weight = make_linear()
    images = make_images(5)
    expected = np.stack([closed_form(weight, network, image) for image in images])
    factor = fisher_factor(network, images)
    hessian = hessian_matrix(network, images, LABELS)
    np.testing.assert_allclose(fisher_matrix(network, images), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(hessian.whole, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(hessian.gauss_newton, expected, rtol=0, atol=1e-14)
    assert not hessian.rest.any()
    np.testing.assert_allclose(fisher_trace(factor), np.trace(expected, axis1=1, axis2=2), rtol=1e-13)
    np.testing.assert_allclose(fisher_largest_eigenvalue(factor), np.linalg.eigvalsh(expected)[:, -1], rtol=1e-13)


@pytest.mark.parametrize("activation", [*PIECEWISE_LINEAR, *CURVED], ids=str)
def test_fisher_is_equation_8_of_finite_differences(activation, make_network, make_images):
    network, images = make_network(activation), make_images(5)
    for image, matrix in zip(images, fisher_matrix(network, images), strict=True):
        probs, slopes = np.exp(plain_log_probs(network, image)), plain_slopes(network, image)
        expected = sum(p * np.outer(slope, slope) for p, slope in zip(probs, slopes, strict=True))
        np.testing.assert_allclose(matrix, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("activation", CURVED, ids=str)
def test_hessian_is_that_of_finite_differences(activation, make_network, make_images):
    network, images = make_network(activation), make_images(5)
    whole = hessian_matrix(network, images, LABELS).whole
    for image, label, matrix in zip(images, LABELS, whole, strict=True):
        step, columns = 1e-5, []
        for i in range(image.numel()):
            shift = torch.zeros(image.numel(), dtype=torch.float64)
            shift[i] = step
            ahead, behind = (
                torch.from_numpy(-plain_slopes(network, image + sign * shift.view_as(image))[label]) for sign in (1, -1)
            )
            columns.append((ahead - behind) / (2 * step))
        expected = torch.stack(columns)
        assert (matrix - expected).abs().max() < 1e-4 * expected.abs().max()


def test_fused_attention_has_the_derivatives_of_finite_differences(make_transformer, make_images):
    network, images = make_transformer(True), make_images(5)
    whole = hessian_matrix(network, images, LABELS).whole
    fisher = fisher_matrix(network, images)
    basis = torch.eye(12, dtype=torch.float64).view(12, 1, 3, 2, 2).expand(-1, 5, -1, -1, -1)
    expansion, step = expand_loss(network, images, LABELS), 1e-5
    for i, direction in enumerate(basis):
        ahead, behind = (expand_loss(network, images + sign * step * direction, LABELS) for sign in (1, -1))
        slope = (ahead.loss - behind.loss) / (2 * step)
        assert torch.allclose(slope, expansion.gradient.flatten(1)[:, i], rtol=1e-6, atol=1e-9)
        column = ((ahead.gradient - behind.gradient) / (2 * step)).flatten(1)
        for found in (whole[:, :, i], expansion.hessian_product(direction).flatten(1)):
            assert (found - column).abs().max() < 1e-6 * column.abs().max()
        found = fisher_product(network, images)(direction).flatten(1)
        torch.testing.assert_close(found, fisher[:, :, i], rtol=1e-9, atol=1e-12)
    for image, matrix in zip(images, fisher, strict=True):
        probs, slopes = np.exp(plain_log_probs(network, image)), plain_slopes(network, image)
        expected = np.einsum("k,ki,kj->ij", probs, slopes, slopes)
        np.testing.assert_allclose(matrix, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("activation", PIECEWISE_LINEAR, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_proposition_1_holds_for_piecewise_linear_logits_and_every_label(activation, seed, make_network, make_images):
    network, images = make_network(activation, seed), make_images(5, seed)
    fisher = fisher_matrix(network, images)
    for label in range(4):
        hessian = hessian_matrix(network, images, torch.full((5,), label))
        torch.testing.assert_close(hessian.whole, fisher, rtol=0, atol=1e-12 * float(fisher.abs().max()))
        assert not hessian.rest.any()
    soft = torch.softmax(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)
    torch.testing.assert_close(hessian_matrix(network, images, soft).whole, fisher, rtol=1e-12, atol=1e-14)


def test_proposition_1_holds_for_the_trained_networks_architecture():
    """resnet_small is ReLU, batch normalisation in evaluation mode, convolutions and a mean: piecewise linear."""
    model = build_model("resnet_small", num_classes=4, mean=(0.5,) * 3, std=(0.25,) * 3).double().eval()
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fisher = fisher_matrix(model, images)
    whole = hessian_matrix(model, images, torch.tensor([1, 3])).whole
    assert (whole - fisher).abs().max() < 1e-12 * fisher.abs().max()


@pytest.mark.parametrize("activation", CURVED, ids=str)
def test_with_curved_activations_only_the_gauss_newton_part_is_fisher(activation, make_network, make_images):
    network, images = make_network(activation), make_images(5)
    fisher = fisher_matrix(network, images)
    hessian = hessian_matrix(network, images, LABELS)
    gaps = (hessian.whole - fisher).flatten(1).norm(dim=1) / hessian.whole.flatten(1).norm(dim=1)
    assert gaps.median() > 0.05, "a network on which the proposition nearly holds shows nothing"
    torch.testing.assert_close(hessian.gauss_newton, fisher, rtol=1e-12, atol=1e-14)
    scale = float(hessian.whole.abs().max())
    torch.testing.assert_close(hessian.whole, hessian.gauss_newton + hessian.rest, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("activation", CURVED, ids=str)
def test_over_labels_drawn_from_the_prediction_the_mean_hessian_is_fisher(activation, make_network, make_images):
    network, images = make_network(activation), make_images(5)
    probs = torch.softmax(network(images).detach(), dim=1)
    hessians = [hessian_matrix(network, images, torch.full((5,), label)).whole for label in range(4)]
    mean = sum(probs[:, label, None, None] * hessian for label, hessian in enumerate(hessians))
    fisher = fisher_matrix(network, images)
    torch.testing.assert_close(mean, fisher, rtol=0, atol=1e-13 * float(torch.stack(hessians).abs().max()))
    soft = hessian_matrix(network, images, probs).whole
    torch.testing.assert_close(soft, fisher, rtol=0, atol=1e-13 * float(torch.stack(hessians).abs().max()))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()], ids=str)
def test_products_are_the_matrices_products(activation, make_network, make_images):
    network, images = make_network(activation), make_images(5)
    vectors = torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    products = (fisher_product(network, images), expand_loss(network, images, LABELS).hessian_product)
    matrices = (fisher_matrix(network, images), hessian_matrix(network, images, LABELS).whole)
    for product, matrix in zip(products, matrices, strict=True):
        expected = torch.einsum("bij,bj->bi", matrix, vectors.flatten(1)).view_as(vectors)
        torch.testing.assert_close(product(vectors), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_expansion_holds_loss_and_gradient(make_network, make_images):
    network, images = make_network(nn.GELU()), make_images(5)
    expansion = expand_loss(network, images, LABELS)
    for i, (image, label) in enumerate(zip(images, LABELS, strict=True)):
        assert expansion.loss[i].item() == pytest.approx(-plain_log_probs(network, image)[label], rel=1e-12)
        slope = -plain_slopes(network, image)[label]
        np.testing.assert_allclose(expansion.gradient[i].flatten(), slope, rtol=1e-6, atol=1e-8 * np.abs(slope).max())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_trace_estimates_over_an_orthogonal_basis_are_exact(make_network, make_images):
    """The D probes sqrt(D) e_i average to the identity, so that their mean is the trace itself."""
    network, images = make_network(nn.GELU()), make_images(5)
    probes = [row.view(1, 3, 2, 2).expand_as(images) for row in math.sqrt(12) * torch.eye(12, dtype=torch.float64)]
    fisher = estimate_fisher_trace(network, images, probes)
    torch.testing.assert_close(fisher.mean, fisher_matrix(network, images).diagonal(dim1=1, dim2=2).sum(1))
    hessian = estimate_trace(expand_loss(network, images, LABELS).hessian_product, probes)
    exact = hessian_matrix(network, images, LABELS).whole.diagonal(dim1=1, dim2=2).sum(dim=1)
    torch.testing.assert_close(hessian.mean, exact, rtol=1e-10, atol=1e-12)


def test_trace_estimates_err_as_their_standard_errors_say(make_network, make_images):
    network = make_network(nn.GELU())
    images = make_images(1).expand(200, -1, -1, -1).contiguous()
    exact = float(fisher_matrix(network, images[:1])[0].trace())
    curvature = float(hessian_matrix(network, images[:1], LABELS[:1]).whole[0].trace())
    indices = np.arange(200)
    probes = [rademacher(images, Purpose.FISHER_PROBE, draw, indices, seed=3) for draw in range(64)]
    product = expand_loss(network, images, LABELS[:1].expand(200)).hessian_product
    for estimate, truth in (
        (estimate_fisher_trace(network, images, probes), exact),
        (estimate_trace(product, probes), curvature),
    ):
        scores = (estimate.mean - truth) / estimate.standard_error
        assert abs(scores.mean()) < 4 / math.sqrt(200) + 0.15  # + the skewness of squares over 64 draws
        assert 0.8 < scores.std() < 1.25


def test_power_iteration_finds_the_eigenvalue_of_largest_magnitude(make_network, make_images):
    network, images = make_network(nn.Tanh(), seed=2), make_images(40, seed=2)
    labels = torch.arange(40) % 4
    eigenvalues = torch.linalg.eigvalsh(hessian_matrix(network, images, labels).whole)
    magnitudes = eigenvalues.abs().sort(dim=1).values
    dominant = torch.where(eigenvalues[:, 0].abs() > eigenvalues[:, -1].abs(), eigenvalues[:, 0], eigenvalues[:, -1])
    assert (dominant < 0).any(), "the sign is to be tested too"
    start = standard_normal(images, Purpose.HESSIAN_START, 0, np.arange(40), seed=0)
    found = power_iteration(expand_loss(network, images, labels).hessian_product, start, 60)
    apart = magnitudes[:, -2] < 0.8 * magnitudes[:, -1]
    assert apart.sum() > 10
    torch.testing.assert_close(found.value[apart], dominant[apart], rtol=1e-8, atol=0)
    nearest = (eigenvalues - found.value[:, None]).abs().min(dim=1).values
    assert (nearest <= found.residual + 1e-12).all()


def test_power_iteration_of_fisher_is_the_largest_eigenvalue(make_network, make_images):
    network, images = make_network(nn.ReLU()), make_images(5)
    start = standard_normal(images, Purpose.FISHER_START, 0, np.arange(5), seed=0)
    found = power_iteration(fisher_product(network, images), start, 200)
    exact = torch.linalg.eigvalsh(fisher_matrix(network, images))[:, -1]
    torch.testing.assert_close(found.value, exact, rtol=1e-10, atol=0)


def test_power_iteration_of_a_zero_matrix_is_zero(make_images):
    images = make_images(3)
    found = power_iteration(torch.zeros_like, images, 5)
    assert found.value.tolist() == found.residual.tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [1.0, 30.0, 100.0])
def test_float32_keeps_the_digits_of_confident_predictions(scale, make_linear, make_images):
    """1 - p of a confident prediction, 1e-30 and less here, is lost where p itself is rounded to float32."""
    network, weight = make_linear(scale=scale)
    weight, images = weight.float().double(), make_images(5).float()
    low = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    low[1].load_state_dict({name: value.float() for name, value in network[1].state_dict().items()})
    with torch.no_grad():
        logits = low(images).double()
    probs = torch.softmax(logits, dim=1)
    differences = weight[:, None] - weight[None]  # Tr(G) = sum_{j<k} p_j p_k |W_j - W_k|^2: nothing cancels
    expected = torch.einsum("bj,bk,jkd->b", probs, probs, differences.square()) / 2
    np.testing.assert_allclose(fisher_trace(fisher_factor(low, images)), expected, rtol=1e-5)
    largest = fisher_largest_eigenvalue(fisher_factor(low, images))
    start = standard_normal(images, Purpose.FISHER_START, 0, np.arange(5), seed=0)
    found = power_iteration(fisher_product(low, images), start, 100)
    kept = expected > 1e-30  # below, float32 has no normal numbers for G v
    np.testing.assert_allclose(found.value[kept], largest[kept], rtol=1e-4)


def test_what_cannot_be_used_is_named(make_network, make_images):
    network, images = make_network(nn.ReLU()), make_images(2)
    with pytest.raises(InputError, match=r"labels: got \[1, 4\]; expected 0\.\.3, the model's classes"):
        expand_loss(network, images, torch.tensor([1, 4]))
    with pytest.raises(InputError, match=r"draws: got 1; expected 2 or more"):
        mean_of_draws([torch.zeros(2)])
    with pytest.raises(InputError, match=r"num_iterations: got 0; expected 1 or more"):
        power_iteration(torch.zeros_like, images, 0)
    with pytest.raises(InputError, match=r"seed: got -1; expected an integer in 0\.\.2\^64 - 1"):
        rademacher(images, Purpose.FISHER_PROBE, 0, np.arange(2), seed=-1)
