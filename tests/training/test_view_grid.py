"""RUN/views.png: the views that the trainer makes, and no effect on the run."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from fastmagn.config.schema import Config
from fastmagn.methods.table import METHODS, get_method
from fastmagn.training import loop
from fastmagn.training.run import train
from fastmagn.training.step import make_pieces
from fastmagn.training.view_grid import draw_grid
from tests.helpers.small_runs import assert_same_weights, config_for, weights
from tests.helpers.steps import start_run

GAP_PX, TITLE_PX = 4, 18


SMALL = ["--train.batch_size", "32", "--train.max_steps", "2", "--device", "cpu", "--train.amp", "float32"]
SMALL += ["--eval.num_images", "4", "--eval.corruption_set", "c15"]
small = partial(config_for, SMALL)


def cell(grid: np.ndarray, row: int, column: int, side_px: int) -> np.ndarray:
    top, left = TITLE_PX + row * (side_px + GAP_PX), GAP_PX + column * (side_px + GAP_PX)
    return grid[top : top + side_px, left : left + side_px]


@pytest.mark.parametrize("accumulation", ["1", "2"])
def test_the_picture_shows_the_first_steps_views(accumulation, tmp_path):
    """Each cell is the view's pixel, clipped, three times enlarged without smoothing."""
    config = small(tmp_path / "run", "--train.accumulation_steps", accumulation)
    train(config)
    run = start_run(config)
    views = make_pieces(run, next(run.source.batches(0)), 0)[0].views.reshape(4, -1, 3, 32, 32)
    assert views[3].min() < 0, "noise leaves [0, 1], the picture does not"
    grid = np.asarray(Image.open(tmp_path / "run" / "views.png"))
    assert grid.shape == (TITLE_PX + 8 * 100, GAP_PX + 4 * 100, 3)
    for column in range(4):
        for row in range(8):
            expected = np.rint(np.clip(views[column, row].numpy().transpose(1, 2, 0), 0, 1) * 255)
            np.testing.assert_array_equal(cell(grid, row, column, 96), expected.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("method", ["magn_augmix", "at", "mixup"])
def test_the_picture_changes_no_weight(method, tmp_path, monkeypatch):
    train(small(tmp_path / "with", "--method", method))
    monkeypatch.setattr(loop, "show_views", lambda *arguments: None)
    train(small(tmp_path / "without", "--method", method))
    assert (tmp_path / "with" / "views.png").exists()
    assert not (tmp_path / "without" / "views.png").exists()
    assert_same_weights(weights(tmp_path / "with"), weights(tmp_path / "without"))


def test_a_resumed_run_keeps_its_picture(tmp_path):
    train(small(tmp_path / "run"))
    picture = tmp_path / "run" / "views.png"
    before = picture.read_bytes()
    train(small(tmp_path / "run", "--train.max_steps", "3"))
    assert picture.read_bytes() == before
    assert not list((tmp_path / "run").glob("*.partial*"))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("magn_augmix", ["clean", "AugMix 1", "AugMix 2", "noisy"]),
        ("trades", ["clean", "adversarial"]),
        ("at", ["adversarial"]),
        ("rse", ["noisy"]),
        ("cutmix", ["CutMix"]),
        ("standard", ["clean"]),
    ],
)
def test_titles(method, expected):
    assert get_method(method).view_titles(Config().augment) == expected


@pytest.mark.parametrize("method", METHODS)
def test_every_view_has_a_title(method):
    chosen = get_method(method)
    assert len(chosen.view_titles(Config().augment)) == chosen.layout(Config().augment).num_views


def test_large_images_are_not_enlarged():
    photographs = np.full((2, 224, 200, 3), 7, np.uint8)
    grid = draw_grid([photographs, photographs], ["clean", "noisy"])
    assert grid.size == (GAP_PX + 2 * (200 + GAP_PX), TITLE_PX + 2 * (224 + GAP_PX))


def test_tensorboard_has_the_picture_the_rows_and_the_results(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    arguments = ["--train.batch_size", "512", "--train.max_steps", "3", "--data.num_validation_images", "10"]
    results = train(small(tmp_path / "run", *arguments))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert tags["images"] == ["views"]
    rows = {"loss", "cross_entropy", "consistency", "jensen_shannon", "lr", "images_per_s", "train_accuracy"}
    assert {*rows, "validation_accuracy", "results/clean_accuracy", "results/mca_c15"} <= set(tags["scalars"])
    assert {"results/rms_calibration_error_clean", "results/rms_calibration_error_corrupt"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [0, 1]
    (measured,) = events.Scalars("results/mca_c15")
    assert measured.step == 2
    assert measured.value == pytest.approx(results["mca"]["c15"])
