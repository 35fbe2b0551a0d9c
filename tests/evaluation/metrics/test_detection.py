"""Out-of-distribution detection against loops over pairs and thresholds, and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from fastmagn.evaluation.metrics.detection import detect, detection_measures, familiarity_scores


def plain_auroc(positives: list[float], negatives: list[float]) -> float:
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def plain_average_precision(positives: list[float], negatives: list[float]) -> float:
    """The sum over thresholds of precision times the gain in recall; equal scores pass together."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted({*positives, *negatives}, reverse=True):
        hits, alarms = sum(p >= threshold for p in positives), sum(n >= threshold for n in negatives)
        recall = hits / len(positives)
        total += (recall - recall_before) * hits / (hits + alarms)
        recall_before = recall
    return total


def plain_fpr(positives: list[float], negatives: list[float]) -> float:
    for threshold in sorted({*positives, *negatives}, reverse=True):
        if 100 * sum(p >= threshold for p in positives) >= 95 * len(positives):
            return sum(n >= threshold for n in negatives) / len(negatives)
    raise AssertionError("no threshold passes everything")


def plain(tests: np.ndarray, others: np.ndarray) -> dict[str, float]:
    inside, outside = tests.tolist(), others.tolist()
    lower_inside, lower_outside = (-tests).tolist(), (-others).tolist()
    return {
        "auroc": plain_auroc(inside, outside),
        "aupr_in": plain_average_precision(inside, outside),
        "aupr_out": plain_average_precision(lower_outside, lower_inside),
        "fpr_at_95_tpr": plain_fpr(inside, outside),
        "fpr_at_95_tpr_out": plain_fpr(lower_outside, lower_inside),
    }


@pytest.mark.parametrize(("num_tests", "num_others"), [(1, 1), (3, 40), (40, 3), (60, 50), (100, 20)])
@pytest.mark.parametrize("are_tied", [True, False])
def test_equals_plain_loops(num_tests, num_others, are_tied):
    rng = np.random.default_rng(num_tests)
    tests, others = rng.normal(1, 1, num_tests), rng.normal(0, 1, num_others)
    if are_tied:
        tests, others = np.round(tests), np.round(others)
    assert detection_measures(tests, others) == pytest.approx(plain(tests, others), abs=1e-12)


def test_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    tests, others = rng.random(400) ** 0.5, rng.random(300)
    scores = torch.from_numpy(np.concatenate([tests, others]))
    target = torch.tensor([1] * 400 + [0] * 300)
    found = detection_measures(tests, others)
    assert found["auroc"] == pytest.approx(float(binary_auroc(scores, target)), abs=1e-6)
    assert found["aupr_in"] == pytest.approx(float(binary_average_precision(scores, target)), abs=1e-6)
    assert found["aupr_out"] == pytest.approx(float(binary_average_precision(1 - scores, 1 - target)), abs=1e-6)


def test_sets_apart_and_alike():
    apart = detection_measures(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert apart == {"auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr_at_95_tpr": 0, "fpr_at_95_tpr_out": 0}
    alike = detection_measures(np.ones(3), np.ones(1))
    assert alike == {"auroc": 0.5, "aupr_in": 0.75, "aupr_out": 0.25, "fpr_at_95_tpr": 1, "fpr_at_95_tpr_out": 1}


def test_scores_are_those_of_float64_loops():
    rows = [[1.5, -2.0, 0.25], [30.0, 29.0, -5.0], [700.0, 1.0, -math.inf]]
    scores = familiarity_scores(torch.tensor(rows))
    for i, row in enumerate(rows):
        energy = max(row) + math.log(sum(math.exp(value - max(row)) for value in row))
        assert scores["energy"][i] == pytest.approx(energy, abs=1e-12)
        assert scores["max_logit"][i] == max(row)
        assert scores["max_softmax"][i] == pytest.approx(math.exp(max(row) - energy), abs=1e-12)


def test_scores_of_logits_with_gradients_are_those_of_their_values():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    expected = familiarity_scores(logits)
    for name, scores in familiarity_scores(logits.clone().requires_grad_()).items():
        assert np.array_equal(scores, expected[name])


def test_the_energy_of_log_probabilities_and_values_that_are_not_finite_give_none():
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(rng.normal(size=(50, 5)).astype(np.float32))
    tests, others = familiarity_scores(logits.log_softmax(dim=1)), familiarity_scores(logits[:7].log_softmax(dim=1))
    measured = detect(tests, others)
    assert measured["energy"] is None
    expected = plain(tests["max_softmax"], others["max_softmax"])
    assert measured["max_softmax"] == pytest.approx(expected, abs=1e-12)
    logits[3, 2] = torch.nan
    assert detect(familiarity_scores(logits), others) == dict.fromkeys(("max_softmax", "energy", "max_logit"))
