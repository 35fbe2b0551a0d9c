"""RMS calibration error against plain loops in exact fractions, cases done by hand, and its properties."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from fastmagn.errors import InputError
from fastmagn.evaluation.metrics import corrupt_rms_calibration_error, rms_calibration_error

BINNINGS = ("width", "adaptive")


def exact_error(bins: list[list[tuple[Fraction, Fraction]]]) -> float:
    """E_c of bins of (confidence, correctness), by the paper's formula in exact fractions."""
    n = sum(len(members) for members in bins)
    total = Fraction(0)
    for members in bins:
        if members:
            accuracy = sum(correct for _, correct in members) / len(members)
            confidence = sum(c for c, _ in members) / len(members)
            total += Fraction(len(members), n) * (accuracy - confidence) ** 2
    return math.sqrt(total)


def exact_width(confidences, correct, num_bins: int) -> float:
    bins = [[] for _ in range(num_bins)]
    for c, hit in zip(confidences, correct, strict=True):
        index = num_bins - 1
        while index > 0 and float(c) < index / num_bins:
            index -= 1
        bins[index].append((Fraction(float(c)), Fraction(int(hit))))
    return exact_error(bins)


def exact_adaptive(confidences, correct, num_bins: int) -> float:
    pairs = sorted((Fraction(float(c)), Fraction(int(hit))) for c, hit in zip(confidences, correct, strict=True))
    shared = []
    for c, _ in pairs:
        equal = [hit for other, hit in pairs if other == c]
        shared.append((c, sum(equal) / len(equal)))
    bins, start = [], 0
    for i in range(num_bins):
        size = len(shared) // num_bins + (i < len(shared) % num_bins)
        bins.append(shared[start : start + size])
        start += size
    return exact_error(bins)


EXACT = {"width": exact_width, "adaptive": exact_adaptive}


def random_predictions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidences = rng.beta(4, 1, n)
    return confidences, rng.random(n) < confidences**2


@pytest.mark.parametrize("binning", BINNINGS)
@pytest.mark.parametrize("num_bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize("n", [1, 7, 15, 400])
def test_equals_exact_loops(binning, num_bins, n):
    confidences, correct = random_predictions(n, seed=n + num_bins)
    expected = EXACT[binning](confidences, correct, num_bins)
    assert rms_calibration_error(confidences, correct, num_bins, binning) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("binning", BINNINGS)
def test_equals_exact_loops_with_edges_ties_and_float32(binning):
    rng = np.random.default_rng(5)
    on_edges = rng.choice(np.concatenate([np.arange(16) / 15, [0.0, 1.0, 1.0, 1.0]]), 300)
    correct = rng.random(300) < 0.6
    for confidences in (on_edges, on_edges.astype(np.float32)):
        expected = EXACT[binning](confidences, correct, 15)
        assert rms_calibration_error(confidences, correct, 15, binning) == pytest.approx(expected, abs=1e-9)


def test_width_agrees_with_torchmetrics_below_one():
    confidences, correct = random_predictions(5000, seed=1)
    # Its binary form takes the confidence of class 1 as it is, so the outcome is the target.
    theirs = binary_calibration_error(
        torch.from_numpy(confidences), torch.from_numpy(correct.astype(np.int64)), n_bins=15, norm="l2"
    )
    assert rms_calibration_error(confidences, correct, 15) == pytest.approx(float(theirs), abs=1e-9)


def test_hand_computed():
    # Bins [0, 1/2) and [1/2, 1]: (0.2 right, 0.4 wrong) gap 1/2 - 0.3; (0.6 wrong, 1.0 right) gap 1/2 - 0.8.
    expected = math.sqrt(0.5 * 0.2**2 + 0.5 * 0.3**2)
    confidences, correct = np.array([0.6, 0.2, 1.0, 0.4]), np.array([False, True, True, False])
    assert rms_calibration_error(confidences, correct, num_bins=2) == pytest.approx(expected, abs=1e-12)
    assert rms_calibration_error(confidences, correct, num_bins=2, binning="adaptive") == pytest.approx(
        expected, abs=1e-12
    )


def test_the_last_bin_holds_one_and_an_edge_belongs_to_the_upper_bin():
    # 0.95 and 1.0 share a bin, where a right and a wrong one make the gap 1/2 - 0.975.
    error = rms_calibration_error(np.array([0.95, 1.0]), np.array([True, False]), num_bins=10)
    assert error == pytest.approx(0.475, abs=1e-12)
    # 0.5 goes with 0.9 (gap 1/2 - 0.7) and not with 0.1 (gap 0.1 alone).
    error = rms_calibration_error(np.array([0.5, 0.9, 0.1]), np.array([True, False, False]), num_bins=2)
    assert error == pytest.approx(math.sqrt((2 * 0.2**2 + 0.1**2) / 3), abs=1e-12)


@pytest.mark.parametrize("binning", BINNINGS)
def test_confidence_zero_and_one(binning):
    assert rms_calibration_error(np.array([1.0, 0.0]), np.array([True, False]), binning=binning) == 0.0
    assert rms_calibration_error(np.array([1.0, 0.0]), np.array([False, True]), binning=binning) == 1.0


@pytest.mark.parametrize("binning", BINNINGS)
def test_perfectly_calibrated_is_zero(binning):
    confidences, correct = [], []
    for tenths in range(1, 10):
        confidences += [tenths / 10] * 100
        correct += [True] * (10 * tenths) + [False] * (100 - 10 * tenths)
    error = rms_calibration_error(np.array(confidences), np.array(correct), num_bins=9, binning=binning)
    assert error == pytest.approx(0.0, abs=1e-12)


predictions = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


@given(predictions=predictions, num_bins=st.integers(1, 40), binning=st.sampled_from(BINNINGS), seed=st.integers(0, 99))
def test_properties(predictions, num_bins, binning, seed):
    confidences, correct = np.array([c for c, _ in predictions]), np.array([hit for _, hit in predictions])
    error = rms_calibration_error(confidences, correct, num_bins, binning)
    assert 0.0 <= error <= 1.0 + 1e-12
    # No binning hides the overall gap (Jensen), and one bin shows nothing else.
    overall = abs(float(np.mean(correct)) - float(np.mean(confidences)))
    assert error >= overall - 1e-12
    assert rms_calibration_error(confidences, correct, 1, binning) == pytest.approx(overall, abs=1e-9)
    order = np.random.default_rng(seed).permutation(len(correct))
    permuted = rms_calibration_error(confidences[order], correct[order], num_bins, binning)
    assert permuted == pytest.approx(error, abs=1e-9)
    doubled = rms_calibration_error(np.tile(confidences, 2), np.tile(correct, 2), num_bins, "width")
    assert doubled == pytest.approx(rms_calibration_error(confidences, correct, num_bins), abs=1e-9)


def corrupt_predictions() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    confidences, correct = {}, {}
    for seed, name in enumerate(("fog", "snow", "frost")):
        c, hit = random_predictions(5 * 40, seed)
        confidences[name], correct[name] = (c ** (1 + seed)).reshape(5, 40), hit.reshape(5, 40)
    return confidences, correct


@pytest.mark.parametrize("binning", BINNINGS)
def test_pooled_bins_all_predictions_together(binning):
    confidences, correct = corrupt_predictions()
    together = [c for name in confidences for row in confidences[name] for c in row]
    hits = [hit for name in confidences for row in correct[name] for hit in row]
    expected = EXACT[binning](together, hits, 15)
    assert corrupt_rms_calibration_error(confidences, correct, 15, binning) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("binning", BINNINGS)
def test_per_corruption_is_the_mean_of_each_corruptions_error(binning):
    confidences, correct = corrupt_predictions()
    errors = [EXACT[binning](confidences[name].ravel(), correct[name].ravel(), 15) for name in confidences]
    error = corrupt_rms_calibration_error(confidences, correct, 15, binning, "per_corruption")
    assert error == pytest.approx(sum(errors) / 3, abs=1e-9)


def test_pairs_corruptions_by_name_not_by_position():
    confidences, correct = corrupt_predictions()
    other_order = {name: correct[name] for name in reversed(list(correct))}
    expected = corrupt_rms_calibration_error(confidences, correct)
    assert corrupt_rms_calibration_error(confidences, other_order) == expected


ONE = (np.array([0.5]), np.array([True]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rms_calibration_error(np.array([]), np.array([])), "got 'no predictions'; expected at least one"),
        (lambda: rms_calibration_error(np.array([0.5]), np.array([True, False])), "got '2 outcomes'; expected 1"),
        (lambda: rms_calibration_error(np.array([0.5, 1.25]), np.array([True, False])), r"0.5\.\.1.25'; expected 0..1"),
        (lambda: rms_calibration_error(np.array([-0.5]), np.array([True])), r"-0.5\.\.-0.5'; expected 0..1"),
        (
            lambda: rms_calibration_error(np.array([np.nan, 0.5]), np.array([True, False])),
            r"nan\.\.nan'; expected 0..1",
        ),
        (lambda: rms_calibration_error(np.array([0.5, 0.4]), np.array([7, 3])), r"correct 3.0\.\.7.0'; expected 0..1"),
        (lambda: rms_calibration_error(np.array([1 + 1e-12]), np.array([True])), r"\.\.1\.000000000001'; expected"),
        (lambda: rms_calibration_error(np.array([0.5]), np.array([np.nan])), r"correct nan\.\.nan'; expected"),
        (lambda: rms_calibration_error(*ONE, num_bins=0), "eval.num_bins: got 0; expected 1 or more"),
        (lambda: rms_calibration_error(*ONE, binning="mass"), "eval.binning: got 'mass'; expected width or adaptive"),
        (lambda: corrupt_rms_calibration_error({}, {}), "got 'no corruptions'; expected at least one"),
        (
            lambda: corrupt_rms_calibration_error({"fog": ONE[0]}, {"snow": ONE[1]}),
            r"got \['snow'\]; expected outcomes",
        ),
        (
            lambda: corrupt_rms_calibration_error({"fog": ONE[0]}, {"fog": ONE[1]}, pooling="mean"),
            "eval.pooling: got 'mean'; expected pooled or per_corruption",
        ),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()
