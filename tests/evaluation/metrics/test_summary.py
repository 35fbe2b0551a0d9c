"""Every measure of stored logits against float64 loops written from the definitions, to 1e-9."""

import math

import numpy as np
import pytest

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import InputError
from fastmagn.evaluation.logits import write_logits
from fastmagn.evaluation.measure import summarise_logits

NUM_IMAGES, NUM_CLASSES, NUM_BINS = 37, 6, 5


def store(folder, names) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, NUM_CLASSES, NUM_IMAGES)
    shape = (NUM_IMAGES, NUM_CLASSES)
    cells = {"clean": [4 * rng.standard_normal(shape, dtype=np.float32)]}
    cells |= {name: [(k + 1) * rng.standard_normal(shape, dtype=np.float32) for k in range(5)] for name in names}
    cells["clean"][0][0, 2] = 1000.0  # a confidence of exactly 1
    with write_logits(folder, labels) as writer:
        for name, logits in cells.items():
            for severity, cell in enumerate(logits, start=name != "clean"):
                writer.write(name, severity, cell)
    return labels, cells


def plain(logits: np.ndarray, label: int) -> tuple[bool, float, float, float]:
    """(right, confidence, negative log-likelihood, Brier score) of one row."""
    row = [float(value) for value in logits]
    top = max(row)
    total = sum(math.exp(value - top) for value in row)
    probs = [math.exp(value - top) / total for value in row]
    nll = math.log(total) - (row[label] - top)
    brier = sum((p - (k == label)) ** 2 for k, p in enumerate(probs))
    return row.index(top) == label, max(probs), nll, brier


def plain_bins(outcomes: list[tuple]) -> list[list[tuple]]:
    return [[o for o in outcomes if min(int(o[1] * NUM_BINS), NUM_BINS - 1) == b] for b in range(NUM_BINS)]


def gap(members: list[tuple]) -> float:
    return abs(sum(o[0] for o in members) - sum(o[1] for o in members)) / len(members)


@pytest.mark.parametrize("pooling", ["pooled", "per_corruption"])
def test_stored_logits_give_the_definitions(tmp_path, pooling):
    labels, cells = store(tmp_path / "logits", CORRUPTION_SETS["c19"])
    config = EvalConfig(num_bins=NUM_BINS, pooling=pooling)
    measured = summarise_logits(tmp_path / "logits", config)
    outcomes = {
        name: [[plain(row, label) for row, label in zip(cell, labels, strict=True)] for cell in logits]
        for name, logits in cells.items()
    }
    accuracy = {name: [sum(o[0] for o in cell) / NUM_IMAGES for cell in group] for name, group in outcomes.items()}
    assert measured["clean_accuracy"] == pytest.approx(accuracy.pop("clean")[0], abs=1e-9)
    for name, values in accuracy.items():
        assert measured["corruption_accuracy"][name] == pytest.approx(values, abs=1e-9)
    for name, members in CORRUPTION_SETS.items():
        expected = sum(sum(accuracy[member]) for member in members) / (5 * len(members))
        assert measured["mca"][name] == pytest.approx(expected, abs=1e-9)
        assert measured["mean_corruption_error"][name] == pytest.approx(1 - expected, abs=1e-9)
    clean = outcomes["clean"][0]
    corrupt = [o for name in CORRUPTION_SETS["c18"] for cell in outcomes[name] for o in cell]
    for name, group in (("clean", clean), ("corrupt", corrupt)):
        filled = [members for members in plain_bins(group) if members]
        calibration = measured["calibration"][name]
        ece = sum(len(members) / len(group) * gap(members) for members in filled)
        assert calibration["ece"] == pytest.approx(ece, abs=1e-9)
        assert calibration["adaptive_ece"] == pytest.approx(plain_adaptive_ece(group), abs=1e-9)
        selective = measured["selective_prediction"]
        assert selective["corruption_set"] == "c18"
        assert selective[name] == pytest.approx(plain_selective(group), abs=1e-9)
        assert calibration["nll"] == pytest.approx(sum(o[2] for o in group) / len(group), abs=1e-9)
        assert calibration["brier"] == pytest.approx(sum(o[3] for o in group) / len(group), abs=1e-9)
        diagram = measured["reliability"][name]
        assert diagram["count"] == [len(members) for members in plain_bins(group)]
        for i, members in enumerate(plain_bins(group)):
            if members:
                assert diagram["accuracy"][i] == pytest.approx(sum(o[0] for o in members) / len(members), abs=1e-9)
                assert diagram["confidence"][i] == pytest.approx(sum(o[1] for o in members) / len(members), abs=1e-9)
            else:
                assert diagram["accuracy"][i] is diagram["confidence"][i] is None
    groups = [corrupt]
    if pooling == "per_corruption":
        groups = [[o for cell in outcomes[name] for o in cell] for name in CORRUPTION_SETS["c18"]]
    rms = measured["rms_calibration_error"]
    assert rms["clean"] == pytest.approx(plain_rms(clean), abs=1e-9)
    assert rms["corrupt"] == pytest.approx(sum(map(plain_rms, groups)) / len(groups), abs=1e-9)
    settings = {"corruption_set": "c18", "num_bins": NUM_BINS, "binning": "width", "pooling": pooling}
    assert settings.items() <= rms.items()


def plain_adaptive_ece(group: list[tuple]) -> float:
    """Of confidences of which no two are equal: bins of equal numbers, the larger ones first."""
    ordered = sorted(group, key=lambda outcome: outcome[1])
    total, start = 0.0, 0
    for i in range(NUM_BINS):
        size = len(ordered) // NUM_BINS + (i < len(ordered) % NUM_BINS)
        members = ordered[start : start + size]
        total += abs(sum(o[0] for o in members) - sum(o[1] for o in members))
        start += size
    return total / len(group)


def plain_selective(group: list[tuple]) -> dict[str, float]:
    ordered = sorted(group, key=lambda outcome: -outcome[1])
    risks, errors = [], 0
    for k, outcome in enumerate(ordered, start=1):
        errors += not outcome[0]
        risks.append(errors / k)
    return {"aurc": sum(risks) / len(risks), "risk_at_80_coverage": risks[math.ceil(0.8 * len(risks)) - 1]}


def plain_rms(group: list[tuple]) -> float:
    filled = [members for members in plain_bins(group) if members]
    return math.sqrt(sum(len(members) / len(group) * gap(members) ** 2 for members in filled))


def test_a_part_of_the_set_says_so(tmp_path):
    store(tmp_path / "logits", ("fog", "contrast"))
    measured = summarise_logits(tmp_path / "logits", EvalConfig())
    mean = sum(sum(values) / 5 for values in measured["corruption_accuracy"].values()) / 2
    assert measured["mca"] == {"c15": None, "c18": None, "c19": None, "measured": pytest.approx(mean)}
    assert measured["rms_calibration_error"]["corruption_set"] == "fog+contrast"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "labels.npy").unlink(), "labels.npy: no such file"),
        (lambda folder: (folder / "clean.npy").unlink(), "clean.npy: no such file"),
        (lambda folder: (folder / "fog.npy").write_bytes(b"x" * 99), "fog.npy: not a whole .npy array"),
        (lambda folder: np.save(folder / "fog.npy", np.zeros((5, 3, 6), np.float32)), "expected float32 [5, 37, 6]"),
        (lambda folder: np.save(folder / "fog.npy", np.zeros((5, 37, 6))), "got float64"),
        (lambda folder: np.save(folder / "labels.npy", np.full(37, 6)), "expected int64 labels 0..5"),
        (lambda folder: [path.unlink() for path in folder.glob("[fg]*.npy")], "holds no corruption's logits"),
    ],
)
def test_damaged_logits_are_one_clear_line(damage, message, tmp_path):
    store(tmp_path / "logits", ("fog",))
    damage(tmp_path / "logits")
    with pytest.raises(InputError) as error:
        summarise_logits(tmp_path / "logits", EvalConfig())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_logits_stored_again_replace_the_older_ones(tmp_path):
    store(tmp_path / "logits", ("fog", "snow"))
    store(tmp_path / "logits", ("fog",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logits"]
    assert not (tmp_path / "logits" / "snow.npy").exists()
