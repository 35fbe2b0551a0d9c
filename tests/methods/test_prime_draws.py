"""The distributions of what PRIME draws."""

import math

import numpy as np
import pytest
from scipy import stats

from fastmagn.methods.prime import draw_settings
from fastmagn_kernels.random import prime
from tests.helpers.prime_draws import plain_variances, plan_of
from tests.helpers.steps import make_context


@pytest.mark.parametrize("cut", [2, 7, 31, 64, 100])
def test_folded_modes_give_the_published_fields_their_covariance(cut):
    """E[field field'] = sum_ij s_j(y) s_i(x) s_j(y') s_i(x') / r^2 over the published modes, at any two pixels."""
    height, width = 5, 8

    def covariance(variances: np.ndarray, down: np.ndarray, along: np.ndarray) -> np.ndarray:
        return np.einsum("pq,py,qx,pv,qu->yxvu", variances, down, along, down, along)

    i = np.arange(1, cut + 1)
    r2 = i[:, None] ** 2 + i**2
    published = covariance(
        np.where(np.sqrt(r2) < cut + 0.5, 1 / r2, 0), prime.mode_sines(cut, height), prime.mode_sines(cut, width)
    )
    folded = np.empty((min(cut, height - 2), min(cut, width - 2)))
    prime.mode_variances(folded, cut, height, width)
    ours = covariance(folded, prime.mode_sines(len(folded), height), prime.mode_sines(folded.shape[1], width))
    np.testing.assert_allclose(ours, published, atol=1e-12)


def test_the_mixture_has_its_distributions():
    plan, _ = plan_of(make_context(indices=np.arange(2000)), num_views=2)
    depths = (plan.primitives != prime.NO_PRIMITIVE).sum(axis=3)
    for counts in (np.bincount(depths.ravel())[1:], np.bincount(plan.primitives[plan.primitives >= 0])):
        assert len(counts) == 3
        assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.kstest(plan.mix_weight.ravel(), "uniform").pvalue > 1e-3
    np.testing.assert_allclose(plan.chain_weights.sum(axis=2), 1, atol=1e-6)
    for chain in range(3):  # one of three weights of Dirichlet(1)
        assert stats.kstest(plan.chain_weights[..., chain].ravel(), stats.beta(1, 2).cdf).pvalue > 1e-3


@pytest.fixture(scope="module")
def settings() -> prime.Settings:
    return draw_settings(make_context(indices=[0]), 32, 32)


PLACES = [prime.Place(0, 1, 2, index, 0) for index in range(4000)]


def test_filters_have_their_distribution(settings):
    """sigma z with sigma uniform in (0, 4): the distribution function is that of z / sigma, averaged over sigmas."""
    weights = np.empty((len(PLACES), 9))
    for n, place in enumerate(PLACES):
        prime.draw_filter(weights[n], place, settings)
    weights[:, 4] -= 1
    sigmas = (np.arange(400) + 0.5) / 100
    for tap in range(9):
        values = weights[:, tap]
        assert stats.kstest(values, lambda a: stats.norm.cdf(np.divide.outer(a, sigmas)).mean(axis=-1)).pvalue > 1e-3


def test_color_curves_have_their_distributions(settings):
    curves = np.empty((len(PLACES), 3, 100))
    counts = np.array([prime.draw_color(curve, place, settings) for curve, place in zip(curves, PLACES, strict=True)])
    assert stats.chisquare(np.bincount(counts, minlength=101)[1:]).pvalue > 1e-3
    beyond = np.broadcast_to((np.arange(100) >= counts[:, None])[:, None], curves.shape)
    assert not curves[beyond].any()
    many = counts > 60
    variances = [(curve[:, :count] ** 2).mean() for curve, count in zip(curves[many], counts[many], strict=True)]
    assert (
        stats.kstest(np.array(variances) / 0.01, "uniform").statistic < 0.06
    )  # each is measured on 180 normals or more
    by_channel = curves.std(axis=(0, 2))
    np.testing.assert_allclose(by_channel, by_channel.mean(), rtol=0.02)


def test_displacements_have_their_distributions(settings):
    cuts, temperatures = np.array([prime.draw_cut(place, settings) for place in PLACES]).T
    generator = np.random.default_rng(0)
    bounds = generator.integers(3, 101, 200_000)
    expected = np.floor(2 + (bounds - 1) * generator.beta(0.5, 0.5, len(bounds)))
    assert stats.ks_2samp(cuts, expected).pvalue > 1e-3
    c = cuts + 1e-6
    lowest = 1 / (math.pi * 32**2 * np.log(c))
    highest = np.maximum(lowest, 4 / (math.pi**3 * c**2 * np.log(c)))
    wide = highest > 1.01 * lowest
    np.testing.assert_allclose(temperatures[~wide], lowest[~wide], rtol=0.02)
    along = (temperatures - lowest)[wide] / (highest - lowest)[wide]
    assert stats.kstest(along, stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


def test_a_displacements_modes_are_normal_with_their_variances(settings):
    modes, normals = np.empty((2, 30, 30)), []
    for place in PLACES[:200]:
        cut, temperature = prime.draw_cut(place, settings)
        num_rows, num_columns = prime.draw_displacement(modes, place, settings)
        assert (num_rows, num_columns) == (min(cut, 30), min(cut, 30))
        for (p, q), variance in plain_variances(int(cut), 32, 32).items():
            normals += [mode / math.sqrt(variance * temperature) / 32 for mode in modes[:, p - 1, q - 1]]
            modes[:, p - 1, q - 1] = 0
        assert not modes.any()
    assert stats.kstest(normals, "norm").pvalue > 1e-3
