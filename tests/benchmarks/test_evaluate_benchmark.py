"""The evaluation benchmark runs, its JSON holds what it says, and the loops beside it compute accuracies."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.evaluate import NUM_CELLS, OURS, main
from benchmarks.evaluate_rivals import RIVALS, StoredImages, largest_difference
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import InputError


class Colour(nn.Module):
    """The class is the channel with the highest mean."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.mean(dim=(2, 3)) * self.scale


@pytest.fixture
def stored(tmp_path) -> StoredImages:
    """Eight images, the first six of which are measured, and a -C set of them."""
    draws = np.random.default_rng(0)
    for name in CORRUPTION_SETS["c19"]:
        np.save(tmp_path / f"{name}.npy", draws.integers(0, 256, (5 * 8, 8, 8, 3), np.uint8))
    return StoredImages(draws.integers(0, 256, (6, 8, 8, 3), np.uint8), draws.integers(0, 3, 6), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats: got 0; expected 1 or more."),
        (["--batch_size", "0"], "batch_size: got 0; expected 1 or more."),
        (["--num_images", "-1"], "num_images: got -1; expected 0 (all) or more."),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    with pytest.raises(InputError) as error:
        main(arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("name", RIVALS)
def test_loops_are_right(stored, name):
    def accuracy(images: np.ndarray) -> float:
        means = images.astype(np.float64).mean(axis=(1, 2))
        return sum(mean.argmax() == label for mean, label in zip(means, stored.labels, strict=True)) / 6

    found = RIVALS[name](stored, Colour(), 4)
    expected = {"clean": [accuracy(stored.images_u8)]}
    for corruption in CORRUPTION_SETS["c19"]:
        images = np.load(stored.folder / f"{corruption}.npy")
        expected[corruption] = [accuracy(images[8 * severity : 8 * severity + 6]) for severity in range(5)]
    assert sum(map(len, found.values())) == NUM_CELLS
    assert largest_difference(found, expected) < 1e-6


def test_the_largest_difference_is_that_of_a_cell():
    assert largest_difference({"a": [0.5, 0.25]}, {"a": [0.5, 0.75]}) == 0.5


@pytest.mark.slow
def test_result_has_its_schema(tmp_path, capsys):
    out = tmp_path / "result.json"
    main(["--num_images", "6", "--repeats", "1", "--device", "cpu", "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["benchmark"] == "evaluate"
    assert result["settings"]["num_cells"] == 96
    assert result["settings"]["num_images"] == 6
    spreads = [result["overhead_pct"], result["outside_model_pct"]]
    assert result["contenders"].keys() == OURS.keys() | RIVALS.keys()
    for name, contender in result["contenders"].items():
        spreads += [contender["s"], contender["times_of_evaluate"]]
        assert contender["images_per_s"] == pytest.approx(96 * 6 / contender["s"]["median"])
        assert name not in RIVALS or contender["largest_accuracy_difference"] <= 1.01 / 6
    assert all(found["lowest"] <= found["median"] <= found["highest"] for found in spreads)
    assert result["contenders"]["evaluate"]["times_of_evaluate"]["median"] == 1
    assert result["outside_model_pct"]["lowest"] > 0  # the model's time is part of the evaluation's
    assert "overhead" in capsys.readouterr().out
