"""The parts of losses as plain loops in Python's floats."""

import math

import pytest
import torch

from fastmagn.config.schema import AugmentConfig, LossConfig
from fastmagn.methods.method import LogitViews, Method

LABELS = torch.tensor([0, 3, 9, 1, 1, 5, 7])


def softmax_row(row: list[float]) -> list[float]:
    top = max(row)
    exponentials = [math.exp(value - top) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def kl_row(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def check_cross_entropy_of_its_only_view(method: Method, title: str) -> None:
    """The method's loss is the cross-entropy of one view, which has this title."""
    assert method.view_titles(AugmentConfig()) == [title]
    logits = 3 * torch.randn(len(LABELS), 10, generator=torch.Generator().manual_seed(0))
    rows = [softmax_row(row) for row in logits.tolist()]
    expected = -sum(math.log(row[label]) for row, label in zip(rows, LABELS.tolist(), strict=True)) / len(LABELS)
    loss, parts = method.loss(LogitViews(logits), LABELS, LossConfig())
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert parts.keys() == {"cross_entropy"}
