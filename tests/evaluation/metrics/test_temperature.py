"""The fitted temperature against float64 loops, scikit-learn's temperature scaling, and its limits."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from fastmagn.evaluation.metrics.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature


def made(scale: float, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose best temperature is about `scale`: labels are drawn from softmax(logits / scale)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, 5))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scale * logits, np.array([rng.choice(5, p=row) for row in probs])


def plain_nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        scaled = [value / temperature for value in row]
        top = max(scaled)
        total += top + math.log(sum(math.exp(value - top) for value in scaled)) - scaled[label]
    return total / len(labels)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_no_other_temperature_is_better(scale):
    logits, labels = made(scale)
    found = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    assert 0.7 * scale < found < 1.4 * scale
    best = plain_nll(logits, labels, found)
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2):
        assert plain_nll(logits, labels, factor * found) > best


class Logits(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose inputs are its logits."""

    def fit(self, features, labels):
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, features):
        return features

    def predict(self, features):
        return self.classes_[features.argmax(axis=1)]


def test_agrees_with_scikit_learn():
    logits, labels = made(1.7)
    theirs = CalibratedClassifierCV(FrozenEstimator(Logits().fit(logits, labels)), method="temperature", ensemble=False)
    theirs.fit(logits, labels)
    temperature = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    ours = torch.softmax(torch.from_numpy(logits) / temperature, dim=1).numpy()
    assert theirs.predict_proba(logits) == pytest.approx(ours, abs=1e-4)


def test_limits():
    right, labels = torch.eye(3), torch.arange(3)
    assert fit_temperature(10 * right, labels) == MIN_TEMPERATURE
    assert fit_temperature(10 * right, labels.roll(1)) == MAX_TEMPERATURE


def test_a_class_that_is_ruled_out_counts_as_probability_zero():
    logits, labels = made(1.5)
    ruled_out = np.concatenate([logits, np.full((len(logits), 1), -np.inf)], axis=1)
    expected = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    assert fit_temperature(torch.from_numpy(ruled_out), torch.from_numpy(labels)) == pytest.approx(expected, abs=1e-9)
