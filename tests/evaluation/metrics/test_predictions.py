"""Measures of logits against NumPy and SciPy in float64, and the memory of float64 copies of many classes."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from torch.utils._python_dispatch import TorchDispatchMode

from fastmagn.errors import InputError
from fastmagn.evaluation.held_out import _mean_nll
from fastmagn.evaluation.metrics.detection import familiarity_scores
from fastmagn.evaluation.metrics.predictions import _VALUES_AT_ONCE, measure_logits
from fastmagn.evaluation.metrics.temperature import fit_temperature

NUM_CLASSES = 1000
ROWS_AT_ONCE = _VALUES_AT_ONCE // NUM_CLASSES


def made(num_images: int, num_classes: int = NUM_CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [M, K] and labels; the first row is certain, and in the second some classes are ruled out."""
    rng = np.random.default_rng(num_images)
    logits = 4 * rng.standard_normal((num_images, num_classes), dtype=np.float32)
    if num_images:
        logits[0, 2] = 1000
    if num_images > 1:
        logits[1, 5:] = -np.inf
    labels = np.where(rng.random(num_images) < 0.5, logits.argmax(1), rng.integers(0, 5, num_images))
    return logits, labels.astype(np.int64)


def plain(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """The fields of `Predictions`."""
    log_probs = log_softmax(logits.astype(np.float64), axis=1)
    probs, rows = np.exp(log_probs), np.arange(len(labels))
    brier = ((probs - np.eye(logits.shape[1])[labels]) ** 2).sum(axis=1)
    return probs.max(axis=1), probs.argmax(axis=1) == labels, -log_probs[rows, labels], brier


@pytest.mark.parametrize("num_images", [1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE + 100])
def test_parts_are_measured_as_the_whole(num_images):
    logits, labels = made(num_images)
    measured = measure_logits(torch.from_numpy(logits), torch.from_numpy(labels))
    for values, expected in zip(measured, plain(logits, labels), strict=True):
        assert values.dtype == expected.dtype
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


def test_a_temperature_divides_the_logits():
    logits, labels = made(50, 7)
    measured = measure_logits(torch.from_numpy(logits), torch.from_numpy(labels), 1.7)
    for values, expected in zip(measured, plain(logits / np.float32(1.7), labels), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_measured_in_float64_and_left_as_they_are(dtype):
    logits, labels = made(40, 9)
    given = torch.from_numpy(logits).to(dtype)
    before = given.clone()
    measured = measure_logits(given, torch.from_numpy(labels))
    assert torch.equal(given, before)
    for values, expected in zip(measured, plain(before.double().numpy(), labels), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


def test_no_images_are_no_predictions():
    logits, labels = made(0, 9)
    measured = measure_logits(torch.from_numpy(logits), torch.from_numpy(labels))
    assert [values.shape for values in measured] == [(0,)] * 4


def test_scores_and_likelihoods_of_parts_are_those_of_the_whole():
    logits, labels = made(ROWS_AT_ONCE + 300)
    energy = logsumexp(logits.astype(np.float64), axis=1)
    scores = familiarity_scores(torch.from_numpy(logits))
    np.testing.assert_allclose(scores["energy"], energy, rtol=1e-12)
    np.testing.assert_array_equal(scores["max_logit"], logits.max(axis=1).astype(np.float64))
    np.testing.assert_allclose(scores["max_softmax"], np.exp(logits.max(axis=1) - energy), rtol=1e-12, atol=1e-12)
    logits, labels = logits[2:], labels[2:]
    expected = -log_softmax(logits.astype(np.float64) / 1.7, axis=1)[np.arange(len(labels)), labels].mean()
    assert _mean_nll(torch.from_numpy(logits), torch.from_numpy(labels), 1.7) == pytest.approx(expected, rel=1e-12)


class LargestFloat64(TorchDispatchMode):
    """Notes the largest number of float64 values that an operation returns in one tensor."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
                self.count = max(self.count, made.numel())
        return result


@pytest.mark.parametrize(
    "measure",
    [
        measure_logits,
        lambda logits, labels: measure_logits(logits, labels, 2.0),
        lambda logits, labels: familiarity_scores(logits),
        fit_temperature,
        lambda logits, labels: _mean_nll(logits, labels, 2.0),
    ],
    ids=["predictions", "with a temperature", "scores", "fit", "likelihood"],
)
def test_no_float64_copy_of_all_logits_is_made(measure):
    logits, labels = made(2 * ROWS_AT_ONCE)
    logits[0, 2] = 0
    with LargestFloat64() as largest:
        measure(torch.from_numpy(logits), torch.from_numpy(labels))
    assert 0 < largest.count <= _VALUES_AT_ONCE


@pytest.mark.parametrize("measure", [measure_logits, fit_temperature])
@pytest.mark.parametrize(("labels", "shown"), [([0, 3], r"0\.\.3"), ([-1, 2], r"-1\.\.2")])
def test_labels_beyond_the_classes_are_one_line(measure, labels, shown):
    with pytest.raises(InputError, match=rf"labels: got '{shown}'; expected 0\.\.2, the model's classes\."):
        measure(torch.zeros(2, 3), torch.tensor(labels))
