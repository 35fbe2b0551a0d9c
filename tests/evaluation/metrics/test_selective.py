"""Selective prediction against exact fractions over every order of equal confidences, and scikit-learn's area."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import auc

from fastmagn.errors import InputError
from fastmagn.evaluation.metrics.selective import selective_risk


def exact_risks(correct: list[bool]) -> list[Fraction]:
    """The share of errors among the first k, for k = 1..n."""
    return [Fraction(sum(not hit for hit in correct[:k]), k) for k in range(1, len(correct) + 1)]


def exact_mean_over_orders(confidences: list[float], correct: list[bool]) -> tuple[float, float]:
    """(AURC, risk at 80 %), averaged over every order whose confidences fall."""
    falling = sorted(confidences, reverse=True)
    orders = [
        [correct[i] for i in order]
        for order in permutations(range(len(correct)))
        if [confidences[i] for i in order] == falling
    ]
    risks = [exact_risks(order) for order in orders]
    kept = -(-8 * len(correct) // 10)
    areas = [sum(row, Fraction(0)) / len(row) for row in risks]
    return float(sum(areas) / len(areas)), float(sum(row[kept - 1] for row in risks) / len(risks))


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_mean_over_all_orders(n, seed):
    rng = np.random.default_rng(seed)
    confidences, correct = rng.integers(0, 3, n) / 2, rng.random(n) < 0.6
    found = selective_risk(confidences, correct)
    assert found == pytest.approx(exact_mean_over_orders(confidences.tolist(), correct.tolist()), abs=1e-12)


def test_large_and_without_ties_equals_the_plain_curve_and_is_near_its_trapezoids():
    rng = np.random.default_rng(1)
    confidences = rng.random(1000)
    correct = rng.random(1000) < confidences
    order = sorted(range(1000), key=lambda i: -confidences[i])
    risks = [float(risk) for risk in exact_risks([bool(correct[i]) for i in order])]
    found = selective_risk(confidences, correct)
    assert found.aurc == pytest.approx(sum(risks) / 1000, abs=1e-12)
    assert found.risk_at_80_coverage == pytest.approx(risks[799], abs=1e-12)
    # TorchUncertainty's form: trapezoids over the coverages from 1 / n to 1, divided by that length.
    trapezoids = auc(np.arange(1, 1001) / 1000, risks) / (1 - 1 / 1000)
    assert found.aurc == pytest.approx(trapezoids, abs=1e-3)


def test_the_order_of_the_input_and_confident_errors():
    confidences, correct = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, True, True, True, False])
    found = selective_risk(confidences, correct)
    assert found == pytest.approx((1 / 5 / 5, 0.0))  # the error is answered last, so that it is the first to go
    assert selective_risk(confidences[::-1], correct[::-1]) == pytest.approx(found)
    assert selective_risk(confidences, ~correct).risk_at_80_coverage == 1.0


def test_says_what_is_wrong():
    with pytest.raises(InputError, match="selective prediction: got 'no predictions'; expected at least one"):
        selective_risk(np.array([]), np.array([]))
    with pytest.raises(InputError, match=r"selective prediction: got '2 outcomes'; expected 1\."):
        selective_risk(np.array([0.5]), np.array([True, False]))
    for confidences in (np.array([0.5, np.nan]), np.array([50.0, 99.0])):
        with pytest.raises(InputError, match=r"selective prediction: got 'confidences .*'; expected 0\.\.1\."):
            selective_risk(confidences, np.array([True, False]))
    with pytest.raises(InputError, match=r"selective prediction: got 'correct 3\.0\.\.7\.0'; expected 0\.\.1\."):
        selective_risk(np.array([0.5, 0.4]), np.array([7, 3]))
