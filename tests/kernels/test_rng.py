"""Philox against Random123's published vectors and plain Python integers; the draws made of it against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastmagn_kernels.random import rng
from tests.helpers.philox import philox_reference

WORDS = st.integers(0, 2**32 - 1)

# Random123's kat_vectors, "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_vectors(counter, key, expected):
    assert list(rng.philox4x32(*words(counter), *np.array(words(key), np.uint32))) == words(expected)


@given(st.lists(WORDS, min_size=4, max_size=4), st.lists(WORDS, min_size=2, max_size=2))
def test_philox_equals_plain_integers(counter, key):
    assert list(rng.philox4x32(*counter, *np.array(key, np.uint32))) == philox_reference(counter, key)


def test_seed_is_both_key_words():
    assert rng.key_words(0x0123456789ABCDEF) == (0x89ABCDEF, 0x01234567)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match=rf"^seed: got {seed}; expected 0\.\.2\^64 - 1\.$"):
        rng.key_words(seed)


@given(WORDS, st.integers(1, 2**20))
def test_below_is_the_scaled_word(word, n):
    assert rng.below(np.uint32(word), n) == word * n // 2**32


@settings(max_examples=300)
@given(WORDS, WORDS)
def test_normal_pair_is_box_muller(word_0, word_1):
    u = float(np.float32(word_0 >> 8) + np.float32(0.5)) * 2.0**-24  # the half step rounds away in [1/2, 1]
    radius = math.sqrt(-2 * math.log(u))
    turn = 2 * math.pi * word_1 / 2**32
    z0, z1 = rng.normal_pair(np.uint32(word_0), np.uint32(word_1))
    assert z0 == pytest.approx(radius * math.cos(turn), abs=3e-6)
    assert z1 == pytest.approx(radius * math.sin(turn), abs=3e-6)


def noise(size: int, view: int = 0, index: int = 0, epoch: int = 0, seed: int = 1) -> np.ndarray:
    out = np.empty(size, np.float32)
    rng.standard_normal(out, rng.STREAM_NOISE, view, index, epoch, *rng.key_words(seed))
    return out


def test_noise_is_standard_normal_and_uncorrelated():
    z = np.stack([noise(3072, index=i) for i in range(300)]).astype(np.float64)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    for moment, expected in enumerate((0, 1, 0, 3), start=1):
        assert np.mean(z**moment) == pytest.approx(expected, abs=0.02)
    quarter = 3072 // 4  # elements of one block are a quarter apart
    for lag in (1, 3, quarter, 2 * quarter, 3 * quarter):
        assert abs(np.mean(z[:, :-lag] * z[:, lag:])) < 0.006
        assert abs(np.mean(z[:, :-lag] ** 2 * z[:, lag:] ** 2) - 1) < 0.03
    assert abs(np.mean(z[:-1] * z[1:])) < 0.006


@pytest.mark.parametrize("other", [{"view": 1}, {"index": 1}, {"epoch": 1}, {"seed": 2}, {"seed": 1 + 2**32}])
def test_noise_of_another_view_index_epoch_or_seed_is_independent(other):
    assert abs(np.corrcoef(noise(30_000), noise(30_000, **other))[0, 1]) < 0.02


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 13])
def test_noise_fills_every_size(size):
    z = noise(size)
    assert np.isfinite(z).all()
    assert len(set(z.tolist())) == size


def test_noise_batch_is_the_rows():
    indices = np.array([5, 0, 2**32 - 1])
    out = np.empty((3, 77), np.float32)
    rng.standard_normal_batch(out, rng.STREAM_NOISE, 3, indices, 9, *rng.key_words(1))
    np.testing.assert_array_equal(out, [noise(77, view=3, index=i, epoch=9) for i in indices])


@given(st.integers(0, 500), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_permutation_visits_everything_once(n, seed, epoch):
    np.testing.assert_array_equal(np.sort(rng.permutation(n, seed, epoch)), np.arange(n))


def test_permutation_is_uniform():
    orders = np.stack([rng.permutation(5, 7, epoch) for epoch in range(6000)])
    counts = np.unique(orders @ 5 ** np.arange(5), return_counts=True)[1]
    assert len(counts) == 120
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("vary", ["seed", "view", "epoch"])
def test_normals_of_many_streams_are_standard_to_their_sampling_error(vary):
    """z scores of mean, variance and mean |z| of 120 draws of a million normals: centred, of spread 1, none wild."""
    out = np.empty((330, 3072), np.float32)
    scores = []
    for i in range(120):
        seed, view, epoch = (i if vary == name else 7 for name in ("seed", "view", "epoch"))
        indices = np.arange(len(out))
        rng.standard_normal_batch(out, rng.STREAM_CORRUPTION, view, indices, epoch, *rng.key_words(seed))
        normals = out.astype(np.float64)
        n, mean_abs = normals.size, np.sqrt(2 / np.pi)
        abs_score = (np.abs(normals).mean() - mean_abs) * np.sqrt(n / (1 - 2 / np.pi))
        scores.append((normals.mean() * np.sqrt(n), (normals.var() - 1) * np.sqrt(n / 2), abs_score))
    scores = np.array(scores)
    assert np.all(np.abs(scores.mean(axis=0)) < 4 / np.sqrt(120))
    assert np.all(np.abs(scores.std(axis=0) - 1) < 4 / np.sqrt(240))
    assert np.abs(scores).max() < 4.5
