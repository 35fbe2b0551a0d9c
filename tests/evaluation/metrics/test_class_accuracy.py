"""Accuracy by class and balanced accuracy against scikit-learn and a plain loop."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.evaluation.logits import write_logits
from fastmagn.evaluation.measure import summarise_logits
from fastmagn.evaluation.metrics.classes import add_counts, class_accuracy, count_classes
from fastmagn.evaluation.metrics.predictions import measure_logits
from fastmagn.evaluation.shown import print_results

NUM_CLASSES, ABSENT = 6, 2
SIZES = (40, 12, 0, 7, 1, 25)


def labels_and_cells(names) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.repeat(np.arange(NUM_CLASSES), SIZES))
    cells = {}
    for name in ("clean", *names):
        logits = rng.standard_normal((1 if name == "clean" else 5, len(labels), NUM_CLASSES), dtype=np.float32)
        logits[:, np.arange(len(labels)), labels] += 0.3 * labels
        cells[name] = list(logits)
    return labels, cells


def store(folder, labels, cells) -> None:
    with write_logits(folder, labels) as writer:
        for name, logits in cells.items():
            for severity, cell in enumerate(logits, start=name != "clean"):
                writer.write(name, severity, cell)


def by_scikit_learn(labels: np.ndarray, cells: list[np.ndarray]) -> tuple[list[float | None], float]:
    """The mean over cells of recall_score, by class, and of balanced_accuracy_score."""
    predicted = [cell.argmax(1) for cell in cells]
    options = {"labels": range(NUM_CLASSES), "average": None, "zero_division": np.nan}
    recalls = np.mean([recall_score(labels, one, **options) for one in predicted], axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class is predicted that has no images
        balanced = np.mean([balanced_accuracy_score(labels, one) for one in predicted])
    return [None if np.isnan(recall) else recall for recall in recalls], float(balanced)


def by_loop(labels: np.ndarray, cells: list[np.ndarray]) -> list[float | None]:
    means: list[float | None] = []
    for k in range(NUM_CLASSES):
        shares = []
        for cell in cells:
            right, total = 0, 0
            for row, label in zip(cell, labels, strict=True):
                total += label == k
                right += label == k and max(range(NUM_CLASSES), key=lambda c: row[c]) == k
            shares += [right / total] if total else []
        means.append(sum(shares) / len(shares) if shares else None)
    return means


@pytest.mark.parametrize(
    ("measured", "title", "members"),
    [
        (CORRUPTION_SETS["c19"], "c18", CORRUPTION_SETS["c18"]),
        (CORRUPTION_SETS["c15"], "c15", CORRUPTION_SETS["c15"]),
        (("fog", "contrast"), "fog+contrast", ("fog", "contrast")),
    ],
    ids=["c19", "c15", "two"],
)
def test_stored_logits_give_scikit_learns_recall(tmp_path, measured, title, members):
    labels, cells = labels_and_cells(measured)
    store(tmp_path / "logits", labels, cells)
    entry = summarise_logits(tmp_path / "logits", EvalConfig())["class_accuracy"]
    assert (entry["num_images"], entry["corruption_set"]) == (list(SIZES), title)
    for part, group in (("clean", cells["clean"]), ("corrupt", [cell for name in members for cell in cells[name]])):
        recalls, balanced = by_scikit_learn(labels, group)
        assert [value is None for value in entry[part]] == [k == ABSENT for k in range(NUM_CLASSES)]
        for values in (recalls, by_loop(labels, group)):
            for value, expected in zip(entry[part], values, strict=True):
                assert value == (None if expected is None else pytest.approx(expected, abs=1e-12))
        assert entry["balanced_accuracy"][part] == pytest.approx(balanced, abs=1e-12)


def test_a_model_that_never_finds_the_rare_class_shows_it(tmp_path, capsys):
    """95 % are right, none of the 5 % with a defect."""
    labels = np.repeat([0, 1], (95, 5))
    never = np.tile(np.array([1.0, 0.0], np.float32), (100, 1))
    store(tmp_path / "logits", labels, {"clean": [never], "fog": [never] * 5})
    results = summarise_logits(tmp_path / "logits", EvalConfig())
    assert results["clean_accuracy"] == 0.95
    assert results["class_accuracy"] == {
        **{"num_images": [95, 5], "clean": [1.0, 0.0], "corrupt": [1.0, 0.0], "corruption_set": "fog"},
        "balanced_accuracy": {"clean": 0.5, "corrupt": 0.5},
    }
    results["class_accuracy"]["class_names"] = ["whole", "defect"]
    print_results(results, "a model")
    printed = capsys.readouterr().out
    row = "defect (0.00 % of 5 images), whole (100.00 % of 95 images)"
    said = (
        f" accuracy by class, clean: {row} accuracy by class, corrupt (fog): {row} balanced accuracy: clean 50.00 %, "
    )
    assert said + "corrupt (fog) 50.00 %" in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 80


def test_large_classes_of_one_size_take_two_short_lines(tmp_path, capsys):
    labels = np.repeat(np.arange(4), 100)
    logits = np.eye(4, dtype=np.float32)[labels]
    for label, wrong in ((3, 30), (1, 20), (0, 10)):
        logits[np.flatnonzero(labels == label)[:wrong]] = np.eye(4, dtype=np.float32)[2]
    store(tmp_path / "logits", labels, {"clean": [logits], "fog": [logits] * 5})
    print_results(summarise_logits(tmp_path / "logits", EvalConfig()), "a model")
    said = " ".join(capsys.readouterr().out.split())
    row = "class 3 (70.00 %), class 1 (80.00 %), class 0 (90.00 %)"
    assert f" lowest accuracy by class, clean: {row} lowest accuracy by class, corrupt (fog): {row} " in said
    assert "balanced" not in said


def counts_of(logits: np.ndarray, labels: np.ndarray):
    return count_classes(measure_logits(torch.from_numpy(logits), torch.from_numpy(labels)), labels, NUM_CLASSES)


def test_the_counts_of_parts_add_up():
    labels, cells = labels_and_cells(())
    (logits,) = cells["clean"]
    parts = [counts_of(logits[rows], labels[rows]) for rows in (slice(0, 3), slice(3, 3), slice(3, None))]
    joined, whole = add_counts(parts), counts_of(logits, labels)
    assert class_accuracy({"clean": [joined]}) == class_accuracy({"clean": [whole]})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_costs_its_class_and_the_mean(bad):
    labels, cells = labels_and_cells(())
    (logits,) = cells["clean"]
    whole = class_accuracy({"clean": [counts_of(logits, labels)]})
    logits[np.flatnonzero(labels == 3)[2], 0] = bad
    entry = class_accuracy({"clean": [counts_of(logits, labels)]})
    assert entry["clean"] == [*whole["clean"][:3], None, *whole["clean"][4:]]
    assert entry["balanced_accuracy"] == {"clean": None}
