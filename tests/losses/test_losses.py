"""Losses against equation (6) written as plain float64 loops, and gradients against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from fastmagn.config.schema import AugmentConfig, LossConfig
from fastmagn.losses import MAGNLoss, jensen_shannon, kl_divergence, magn_consistency
from fastmagn.losses.divergences import log_softmax
from fastmagn.methods.method import LogitViews, split_logits
from fastmagn.methods.table import get_method
from tests.helpers.plain_losses import LABELS, kl_row, softmax_row


def equation_6(logits: LogitViews, labels: torch.Tensor, weights: LossConfig) -> dict[str, float]:
    """The three terms of equation (6), example by example, class by class, in Python floats."""
    totals = {"cross_entropy": 0.0, "consistency": 0.0, "jensen_shannon": 0.0}
    for i, label in enumerate(labels.tolist()):
        p = softmax_row(logits.clean[i].tolist())
        totals["cross_entropy"] -= math.log(p[label])
        noisy = [softmax_row(view[i].tolist()) for view in logits.noisy]
        totals["consistency"] += p[label] * sum(kl_row(p, q) for q in noisy) / max(len(noisy), 1)
        views = [p, *(softmax_row(view[i].tolist()) for view in logits.augmix)]
        mixture = [sum(column) / len(views) for column in zip(*views, strict=True)]
        totals["jensen_shannon"] += sum(kl_row(view, mixture) for view in views) / len(views)
    terms = {name: total / len(labels) for name, total in totals.items()}
    terms["loss"] = (
        terms["cross_entropy"]
        + weights.consistency_weight * terms["consistency"]
        + weights.jsd_weight * terms["jensen_shannon"]
    )
    return terms


def random_views(num_augmix: int, num_noisy: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> LogitViews:
    generator = torch.Generator().manual_seed(seed)
    views = [3 * torch.randn(7, 10, generator=generator, dtype=dtype) for _ in range(1 + num_augmix + num_noisy)]
    return LogitViews(views[0], tuple(views[1 : 1 + num_augmix]), tuple(views[1 + num_augmix :]))


@pytest.mark.parametrize("method", ["standard", "augmix", "magn", "magn_augmix"])
@pytest.mark.parametrize("seed", range(5))
def test_each_method_equals_equation_6(method, seed):
    weights = LossConfig(consistency_weight=3.0, jsd_weight=12.0)
    spec = get_method(method)
    logits = random_views(spec.num_augmix_views, int(spec.uses_noise), seed)
    expected = equation_6(logits, LABELS, weights)
    loss, parts = spec.loss(logits, LABELS, weights)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6, abs=1e-6)
    for name, part in parts.items():
        assert part.item() == pytest.approx(expected[name], rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize(("num_augmix", "num_noisy"), [(2, 1), (0, 3), (2, 0), (0, 0)])
def test_magn_loss_equals_equation_6(num_augmix, num_noisy):
    views = random_views(num_augmix, num_noisy)
    weights = LossConfig(consistency_weight=2.0, jsd_weight=5.0)
    loss = MAGNLoss(2.0, 5.0)(views.clean, LABELS, noisy=views.noisy, augmix=views.augmix)
    assert loss.item() == pytest.approx(equation_6(views, LABELS, weights)["loss"], rel=1e-6, abs=1e-6)


def test_several_noise_draws_average_their_divergences():
    logits = random_views(0, 4)
    expected = equation_6(logits, LABELS, LossConfig())
    assert magn_consistency(logits.clean, logits.noisy, LABELS).item() == pytest.approx(
        expected["consistency"], rel=1e-6
    )


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_losses_stay_finite_for_extreme_logits(scale):
    logits = random_views(2, 1)
    logits = LogitViews(
        logits.clean * scale, tuple(v * scale for v in logits.augmix), tuple(v * scale for v in logits.noisy)
    )
    logits.clean.requires_grad_()
    loss, _ = get_method("magn_augmix").loss(logits, LABELS, LossConfig())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.clean.grad).all()


def test_gradients_equal_finite_differences():
    views = random_views(2, 2, dtype=torch.float64)
    inputs = [view.requires_grad_() for view in (views.clean, *views.augmix, *views.noisy)]

    def loss(clean, augmix_1, augmix_2, noisy_1, noisy_2):
        return (
            torch.nn.functional.cross_entropy(clean, LABELS)
            + 3 * magn_consistency(clean, (noisy_1, noisy_2), LABELS)
            + 12 * jensen_shannon(clean, augmix_1, augmix_2)
        )

    assert gradcheck(loss, inputs, eps=1e-6, atol=1e-6)


def finite_difference(function, point: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    gradient = torch.zeros_like(point)
    for i in range(point.numel()):
        step = torch.zeros_like(point).view(-1)
        step[i] = eps
        step = step.view_as(point)
        gradient.view(-1)[i] = (function(point + step) - function(point - step)) / (2 * eps)
    return gradient


def test_detach_weight_and_detach_target_stop_just_their_factor():
    views = random_views(0, 1, dtype=torch.float64)
    clean, noisy = views.clean, views.noisy
    rows = torch.arange(len(LABELS))

    def consistency(weight_logits, target_logits, kl_logits):
        weight = torch.softmax(weight_logits, 1)[rows, LABELS]
        target = torch.softmax(target_logits, 1)
        divergence = (target * (torch.log_softmax(target_logits, 1) - torch.log_softmax(kl_logits, 1))).sum(1)
        return (weight * divergence).mean()

    for detach_weight, detach_target in [(True, False), (False, True), (True, True)]:
        point, noisy_point = clean.clone().requires_grad_(), noisy[0].clone().requires_grad_()
        magn_consistency(
            point, (noisy_point,), LABELS, detach_weight=detach_weight, detach_target=detach_target
        ).backward()

        def varied(x, detach_weight=detach_weight, detach_target=detach_target):
            return consistency(clean if detach_weight else x, clean if detach_target else x, noisy[0])

        gradient = torch.zeros_like(point) if point.grad is None else point.grad
        torch.testing.assert_close(gradient, finite_difference(varied, clean), atol=1e-7, rtol=1e-5)
        of_noisy = finite_difference(lambda x: consistency(clean, clean, x), noisy[0])
        torch.testing.assert_close(noisy_point.grad, of_noisy, atol=1e-7, rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.floats(0.01, 100))
def test_jensen_shannon_lies_between_0_and_ln_v(seed, num_views, scale):
    generator = torch.Generator().manual_seed(seed)
    views = [scale * torch.randn(4, 6, generator=generator) for _ in range(num_views)]
    divergence = jensen_shannon(*views).item()
    assert -1e-6 <= divergence <= math.log(num_views) + 1e-6
    assert jensen_shannon(*views[::-1]).item() == pytest.approx(divergence, abs=1e-6)
    assert jensen_shannon(views[0], views[0], views[0]).item() == pytest.approx(0, abs=1e-6)


def test_disjoint_predictions_reach_ln_3():
    views = [torch.full((1, 3), -50.0).index_fill_(1, torch.tensor([k]), 50.0) for k in range(3)]
    assert jensen_shannon(*views).item() == pytest.approx(math.log(3), abs=1e-5)


def test_permuting_the_batch_changes_no_loss():
    logits = random_views(2, 1)
    order = torch.tensor([6, 0, 5, 1, 4, 2, 3])
    permuted = LogitViews(
        logits.clean[order], tuple(v[order] for v in logits.augmix), tuple(v[order] for v in logits.noisy)
    )
    loss = get_method("magn_augmix").loss
    assert loss(permuted, LABELS[order], LossConfig())[0].item() == pytest.approx(
        loss(logits, LABELS, LossConfig())[0].item(), rel=1e-6
    )


def test_kl_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl_divergence(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_under_autocast_and_for_half_logits(dtype):
    logits = random_views(2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert log_softmax(logits.clean.to(dtype)).dtype == torch.float32
        assert jensen_shannon(logits.clean.to(dtype), logits.augmix[0].to(dtype)).dtype == torch.float32


def test_method_splits_the_fused_batch_in_the_views_order():
    method = get_method("magn_augmix")
    layout = method.layout(AugmentConfig(num_noise_samples=2))
    assert layout.num_views == 5
    fused = torch.from_numpy(np.repeat(np.arange(5.0), 3)[:, None].repeat(10, axis=1))
    logits = split_logits(fused, layout)
    values = [view[0, 0].item() for view in (logits.clean, *logits.augmix, *logits.noisy)]
    assert values == [0, 1, 2, 3, 4]
    assert len(logits.augmix) == 2
    assert len(logits.noisy) == 2
    assert logits.clean.shape == (3, 10)
