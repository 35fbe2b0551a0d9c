"""Accuracy tables and mCA against sums by hand."""

import numpy as np
import pytest

from fastmagn.errors import InputError
from fastmagn.evaluation.metrics import corruption_accuracy, mean_corruption_accuracy


def test_table_counts_each_severity_by_itself():
    rng = np.random.default_rng(0)
    correct = {name: rng.random((5, 37)) < 0.7 for name in ("fog", "snow")}
    table = corruption_accuracy(correct)
    assert list(table) == ["fog", "snow"]
    for name, rows in correct.items():
        assert table[name] == pytest.approx([sum(bool(hit) for hit in row) / 37 for row in rows], abs=1e-15)
        assert all(type(value) is float for value in table[name])


@pytest.mark.parametrize("shape", [(4, 10), (5, 0), (50,), (5, 10, 1)])
def test_table_refuses_other_shapes(shape):
    with pytest.raises(InputError, match=r"^predictions under fog: got \[.*\]; expected shape \[5, N\]"):
        corruption_accuracy({"fog": np.ones(shape, bool)})


def test_mca_is_the_plain_mean_over_the_named_set():
    table = {"fog": [0.9, 0.8, 0.7, 0.6, 0.5], "snow": [0.5, 0.5, 0.4, 0.4, 0.2], "frost": [0.0] * 5}
    assert mean_corruption_accuracy(table, ["fog", "snow"]) == pytest.approx(0.55, abs=1e-15)
    assert mean_corruption_accuracy(table, ("fog", "snow", "frost")) == pytest.approx(5.5 / 15, abs=1e-15)
    assert mean_corruption_accuracy(table, iter(["frost"])) == 0.0


def test_mca_is_none_when_a_corruption_is_missing():
    assert mean_corruption_accuracy({"fog": [1.0] * 5}, ["fog", "jpeg_compression"]) is None
