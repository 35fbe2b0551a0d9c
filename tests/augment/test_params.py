"""The draws: their distributions, and that each depends on nothing but (seed, epoch, sample index, view)."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastmagn.augment.operations import OPERATIONS
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from tests.augment.drawn import flat

SPEC = ViewSpec(num_augmix_views=2, num_noise_views=2)
PAPER = AugmentConfig(aug_severity=10, random_aug_severity=True, horizontal_flip=True, color_jitter=0.25)
PER_SAMPLE = ("crop_x_px", "crop_y_px", "flip", "jitter_order", "brightness", "contrast", "saturation", "angle")
PER_VIEW = ("ops", "magnitudes", "chain_weights", "mix_weight", "sigma")
ALPHA = 1e-4  # of each test here: the seed is fixed, so a failure is a fault and not bad luck


def draw(
    augment: AugmentConfig = PAPER, num: int = 4000, seed: int = 3, epoch: int = 5, spec: ViewSpec = SPEC, size=(32, 32)
) -> SimpleNamespace:
    return flat(sample_view_params(seed, epoch, np.arange(num), spec, augment, size))


def assert_uniform_counts(values: np.ndarray, expected: range) -> None:
    found, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, list(expected))
    assert stats.chisquare(counts).pvalue > ALPHA


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    assert stats.kstest(values.ravel(), stats.uniform(low, high - low).cdf).pvalue > ALPHA


def test_base_draws_are_uniform():
    p = draw(num=20_000)
    assert_uniform_counts(p.crop_x_px, range(9))
    assert_uniform_counts(p.crop_y_px, range(9))
    assert_uniform_counts(p.flip, range(2))
    assert_uniform_counts(p.jitter_order, range(6))
    assert_uniform_counts(p.angle, range(-128, 129))
    for factor in (p.brightness, p.contrast, p.saturation):
        assert_uniform(factor, 0.75, 1.25)


def test_draws_of_a_batch_are_those_of_its_samples():
    whole = draw(num=200)
    for index in (0, 57, 199):
        one = flat(sample_view_params(3, 5, [index], SPEC, PAPER, (32, 32)))
        for name in PER_SAMPLE:
            assert getattr(one, name)[0] == getattr(whole, name)[index]
        for name in PER_VIEW:
            np.testing.assert_array_equal(getattr(one, name)[:, 0], getattr(whole, name)[:, index])


def test_base_draws_are_independent():
    p = draw(num=20_000)
    columns = np.stack([getattr(p, name).astype(np.float64) for name in PER_SAMPLE])
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.03
    neighbours = [abs(np.corrcoef(column[:-1], column[1:])[0, 1]) for column in columns]
    assert max(neighbours) < 0.03


@pytest.mark.parametrize("all_operations", [False, True])
def test_operations_and_depths_are_uniform(all_operations):
    p = draw(dataclasses.replace(PAPER, all_operations=all_operations))
    depth = (p.ops >= 0).sum(-1)
    assert_uniform_counts(depth, range(1, 4))
    np.testing.assert_array_equal(p.ops >= 0, np.arange(3) < depth[..., None])
    num_ops = 13 if all_operations else 9
    for step in range(3):
        assert_uniform_counts(p.ops[..., step][depth > step], range(num_ops))
    assert_uniform_counts((p.ops[..., 0].astype(int) * num_ops + p.ops[..., 1])[depth > 1], range(num_ops**2))


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_fixed_depth_is_kept(depth):
    p = draw(dataclasses.replace(PAPER, mixture_depth=depth), num=50)
    assert p.ops.shape == (2, 50, 3, depth)
    assert (p.ops >= 0).all()


@pytest.mark.parametrize("severity", [1, 3, 10])
def test_levels_are_uniform_and_signs_fair(severity):
    p = draw(AugmentConfig(aug_severity=severity), num=20_000)
    shear = p.magnitudes[np.isin(p.ops, (5, 6))]
    assert_uniform(np.abs(shear) * 10 / 0.3, 0.1, severity)
    assert_uniform_counts(shear > 0, range(2))
    for op in OPERATIONS[:9]:
        values = p.magnitudes[p.ops == op.id]
        highest = np.nextafter(severity, 0)
        bounds = sorted((op.magnitude(0.1, 32, 32), op.magnitude(highest, 32, 32)))
        assert np.abs(values).min() >= bounds[0]
        assert np.abs(values).max() <= bounds[1]
        assert (values < 0).any() == (op.signed and bounds[1] > 0)


def test_random_strength_is_uniform_for_each_image_and_view():
    p = draw(num=20_000)
    levels = np.abs(p.magnitudes[np.isin(p.ops, (5, 6))]) * 10 / 0.3
    strengths = np.arange(1, 11)

    def mixture_cdf(level):
        return np.clip((np.asarray(level)[..., None] - 0.1) / (strengths - 0.1), 0, 1).mean(-1)

    assert stats.kstest(levels, mixture_cdf).pvalue > ALPHA
    # One strength holds for all of a view's levels: they are correlated within a view, and not between views.
    level = np.where(np.isin(p.ops, (5, 6)), np.abs(p.magnitudes) * 10 / 0.3, np.nan)
    first, second, other = level[0, :, 0, 0], level[0, :, 1, 0], level[1, :, 1, 0]
    within = np.isfinite(first) & np.isfinite(second)
    between = np.isfinite(first) & np.isfinite(other)
    assert np.corrcoef(first[within], second[within])[0, 1] > 0.2
    assert abs(np.corrcoef(first[between], other[between])[0, 1]) < 0.12


@pytest.mark.parametrize("width", [2, 3, 8])
def test_chain_weights_are_dirichlet(width):
    p = draw(dataclasses.replace(PAPER, mixture_width=width))
    np.testing.assert_allclose(p.chain_weights.sum(-1), 1, atol=1e-6)
    for w in range(width):
        weights = p.chain_weights[..., w].ravel()
        assert stats.kstest(weights, stats.beta(1, width - 1).cdf).pvalue > ALPHA
    covariance = np.cov(p.chain_weights.reshape(-1, width).T)[0, 1]
    assert covariance == pytest.approx(-1 / (width**2 * (width + 1)), rel=0.15)


def test_a_single_chain_weighs_one():
    assert (draw(dataclasses.replace(PAPER, mixture_width=1)).chain_weights == 1).all()


def test_mix_weight_and_sigma_are_uniform():
    p = draw(dataclasses.replace(PAPER, sigma_max=0.2), num=20_000)
    for view in range(2):
        assert_uniform(p.mix_weight[view], 0, 1)
        assert_uniform(p.sigma[view], 0, 0.2)
    assert abs(np.corrcoef(p.sigma)[0, 1]) < 0.03
    assert abs(np.corrcoef(p.mix_weight)[0, 1]) < 0.03


def test_extents_of_zero_are_identities():
    p = draw(AugmentConfig(crop_padding_px=0, color_jitter=0, rotation_deg=0, sigma_max=0), num=500)
    for name in ("crop_x_px", "crop_y_px", "flip", "angle", "sigma"):
        assert not getattr(p, name).any()
    for name in ("brightness", "contrast", "saturation"):
        assert (getattr(p, name) == 1).all()


@given(st.permutations(range(12)), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_draws_do_not_depend_on_the_batch(order, seed, epoch):
    indices = np.array([0, 1, 2, 3, 50_000, 49_999, 77, 78, 2**31, 2**32 - 1, 9, 10])
    whole = flat(sample_view_params(seed, epoch, indices, SPEC, PAPER, (32, 32)))
    part = flat(sample_view_params(seed, epoch, indices[order[:5]], SPEC, PAPER, (32, 32)))
    for name in PER_SAMPLE:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[order[:5]])
    for name in PER_VIEW:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, order[:5]])


@pytest.mark.parametrize("other", [{"seed": 4}, {"seed": 3 + 2**32}, {"epoch": 6}])
def test_another_seed_or_epoch_draws_anew(other):
    p, q = draw(), draw(**other)
    for name in ("brightness", "mix_weight", "sigma"):
        assert abs(np.corrcoef(getattr(p, name).ravel(), getattr(q, name).ravel())[0, 1]) < 0.06


def test_more_views_keep_the_first_ones():
    small, large = draw(spec=ViewSpec(num_augmix_views=1, num_noise_views=1)), draw()
    for name in PER_SAMPLE:
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))
    for name in PER_VIEW:
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name)[:1])


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"crop_padding_px": 0}, {"crop_x_px", "crop_y_px"}),
        ({"horizontal_flip": False}, {"flip"}),
        ({"color_jitter": 0.1}, {"brightness", "contrast", "saturation"}),
        ({"rotation_deg": 0.0}, {"angle"}),
        ({"sigma_max": 0.1}, {"sigma"}),
        ({"aug_severity": 5}, {"magnitudes"}),
        ({"random_aug_severity": False}, {"magnitudes"}),
        ({"all_operations": True}, {"ops", "magnitudes"}),
        ({"mixture_depth": 3}, {"ops", "magnitudes"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_field_moves_only_its_own_draws(change, moved):
    p, q = draw(), draw(dataclasses.replace(PAPER, **change))
    changed = {n for n in (*PER_SAMPLE, *PER_VIEW) if not np.array_equal(getattr(p, n), getattr(q, n))}
    assert changed == moved


def test_a_wider_mixture_keeps_the_first_chains_operations():
    p, q = draw(), draw(dataclasses.replace(PAPER, mixture_width=5))
    np.testing.assert_array_equal(p.ops, q.ops[:, :, :3])
    np.testing.assert_array_equal(p.magnitudes, q.magnitudes[:, :, :3])
    np.testing.assert_array_equal(p.mix_weight, q.mix_weight)


def test_identity_base_keeps_augmix_and_noise():
    drawn = sample_view_params(3, 5, np.arange(20), SPEC, PAPER, (32, 32))
    p, q = flat(drawn), flat(identity_base(drawn))
    for name in PER_VIEW:
        np.testing.assert_array_equal(getattr(q, name), getattr(p, name))
    for name in ("crop_x_px", "crop_y_px", "flip", "angle"):
        assert not getattr(q, name).any()
    for name in ("brightness", "contrast", "saturation"):
        assert (getattr(q, name) == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: got -1; expected an integer in 0..2^64 - 1."),
        ({"epoch": -1}, "epoch: got -1; expected an integer in 0..2^32 - 1."),
        ({"indices": np.array([-1, 4])}, "indices: got '-1..4'; expected 0..2^32 - 1."),
        (
            {"indices": [1, [2]]},
            "indices: got a list that is not an array (setting an array element with a sequence. The requested array"
            " has an inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous part.).",
        ),
        (
            {"indices": np.array([0.5])},
            "indices: got 'float64 [1]'; expected integers [B], the sample's number each.",
        ),
        (
            {"indices": np.array([[1, 2]])},
            "indices: got 'int64 [1, 2]'; expected integers [B], the sample's number each.",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    given_arguments = {"seed": 0, "epoch": 0, "indices": np.arange(4), **arguments}
    with pytest.raises(InputError) as error:
        sample_view_params(**given_arguments, view_spec=SPEC, augment=PAPER, image_size=(32, 32))
    assert str(error.value) == message


def test_view_spec_counts_the_clean_view():
    assert ViewSpec(num_augmix_views=2, num_noise_views=1).num_views == 4
    assert ViewSpec(num_augmix_views=0, num_noise_views=0).num_views == 1


# AugMix's ImageNet script: severity 1, IMAGE_SIZE 224. A level is uniform in [0.1, 1]; int(level * maximum / 10).
IMAGENET = AugmentConfig(aug_severity=1)
IMAGENET_MAXIMA = {"posterize": 4, "rotate": 30, "solarize": 256, "translate_x": 224 / 3, "translate_y": 224 / 3}


@pytest.mark.parametrize("name", IMAGENET_MAXIMA)
def test_augmix_at_224_px_and_severity_1_has_its_integer_magnitudes(name):
    maximum = IMAGENET_MAXIMA[name]
    op = next(op for op in OPERATIONS if op.name == name)
    p = draw(IMAGENET, num=10_000, size=(224, 224))
    drawn = p.magnitudes[p.ops == op.id]
    values = {"posterize": 4 - drawn, "solarize": 256 - drawn}.get(name, np.abs(drawn)).astype(int)
    edges = np.clip(np.arange(int(maximum / 10) + 2) * 10 / maximum, 0.1, 1)
    probabilities = np.diff(edges) / 0.9
    counts = np.bincount(values, minlength=len(probabilities))
    assert len(counts) == len(probabilities)
    assert counts[probabilities == 0].sum() == 0
    if len(counts) > 1:
        possible = probabilities > 0
        assert stats.chisquare(counts[possible], probabilities[possible] * counts.sum()).pvalue > ALPHA
    if op.signed:
        negative = np.count_nonzero(drawn < 0)
        assert stats.binomtest(negative, np.count_nonzero(drawn), 0.5).pvalue > ALPHA


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_augmix_at_224_px_and_severity_1_has_its_shears(name):
    op = next(op for op in OPERATIONS if op.name == name)
    p = draw(IMAGENET, num=10_000, size=(224, 224))
    assert_uniform(np.abs(p.magnitudes[p.ops == op.id]), 0.003, 0.03)


def test_translations_are_a_third_of_any_size():
    """At most int(level * (size / 3) / 10) px, each axis by its own size; level below 10."""
    ops = {op.name: op.id for op in OPERATIONS}
    for height, width in ((64, 64), (224, 224), (299, 331), (512, 96)):
        p = draw(AugmentConfig(aug_severity=10), num=10_000, size=(height, width))
        for name, side in (("translate_x", width), ("translate_y", height)):
            farthest = np.abs(p.magnitudes[p.ops == ops[name]]).max()
            assert side / 3 * 0.98 - 1 < farthest <= side / 3
