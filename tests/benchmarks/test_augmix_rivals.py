"""The rivals of benchmarks.augment make what AugMix is: its operations, its mixtures, in every width and depth."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.augmix_rivals import (
    NORMALISED,
    OPENCV,
    RIVALS,
    Mixture,
    RivalBatches,
    available_rivals,
    draw_mixtures,
    fill_view,
)
from fastmagn.augment.engines import pil
from fastmagn.augment.operations import NUM_AUGMIX_OPERATIONS, OPERATIONS
from fastmagn.config.schema import AugmentConfig

HEIGHT, WIDTH = 24, 33
INSTALLED = list(available_rivals())


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Smooth and coloured, so that interpolation in other numbers changes little: uint8 [24, 33, 3]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / 5 + y / 7), np.cos(x / 6 - y / 9), np.sin((x + y) / 8)]
    return (120 + 90 * np.stack(waves, -1)).astype(np.uint8)


def by_pillow(picture: np.ndarray, mixture: Mixture) -> np.ndarray:
    """The mixture of Pillow's own functions, float64 in [0, 1]."""
    clean = picture / 255
    total = np.zeros_like(clean)
    for chain, weight in zip(mixture.chains, mixture.weights, strict=True):
        image = Image.fromarray(picture)
        for op, magnitude in chain:
            image = pil.apply_operation(image, op, magnitude)
        total += weight * np.asarray(image) / 255
    return (1 - mixture.mix_weight) * clean + mixture.mix_weight * total


def equalized(picture: np.ndarray) -> np.ndarray:
    """The definition: the share of pixels up to a value, without those of the lowest, times 255; float64."""
    made = np.empty(picture.shape)
    for channel in range(3):
        plane = picture[..., channel]
        lowest = np.count_nonzero(plane == plane.min())
        up_to = np.array([np.count_nonzero(plane <= value) for value in range(256)])
        made[..., channel] = (255 * (up_to - lowest) / (plane.size - lowest))[plane]
    return made


def made_by(name: str, picture: np.ndarray, mixture: Mixture) -> np.ndarray:
    rival, out = RIVALS[name](HEIGHT, WIDTH), np.full(picture.shape, np.nan, np.float32)
    fill_view(rival, rival.load(picture), mixture, out)
    return (out + 1) / 2 if name == NORMALISED else out


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("op", range(NUM_AUGMIX_OPERATIONS))
def test_operations_are_pillows_or_near_them(name, op, picture):
    """Pillow's own to the bit, OpenCV's within 3 levels but for the border, where it blends with black.

    Pillow's equalize has whole steps of pixels, which are coarse in small images; OpenCV's is the definition.
    """
    for level in (0.1, 2.9, 9.9):
        magnitude = OPERATIONS[op].magnitude(level, HEIGHT, WIDTH)
        for signed in (magnitude, -magnitude) if OPERATIONS[op].signed else (magnitude,):
            mixture = Mixture([[(op, signed)]], [1.0], 1.0)
            is_defined = name == OPENCV and OPERATIONS[op].name == "equalize"
            expected = equalized(picture) / 255 if is_defined else by_pillow(picture, mixture)
            difference = 255 * np.abs(made_by(name, picture, mixture) - expected).max(axis=2)
            if name == OPENCV:
                assert np.mean(difference > 3) < 0.12, (level, signed)
                assert np.median(difference) <= 1.01, (level, signed)
            else:
                # A rotation's matrix is rounded at the 15th place by Image.rotate alone.
                assert np.mean(difference > 1e-3) < 0.002, (level, signed)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize(("width", "depth"), [(1, 1), (2, 3), (3, -1), (4, 2), (8, -1)])
def test_mixtures_are_weighted_sums_of_the_chains(name, width, depth, picture):
    augment = AugmentConfig(mixture_width=width, mixture_depth=depth)
    for drawn in draw_mixtures(np.random.default_rng(width), 6, augment, (HEIGHT, WIDTH)):
        # Tables alone: every engine's are the same.
        tables = Mixture([[(2, 4), (4, 200)][: len(chain)] for chain in drawn.chains], drawn.weights, drawn.mix_weight)
        np.testing.assert_allclose(made_by(name, picture, tables), by_pillow(picture, tables), rtol=0, atol=2e-6)


def test_draws_are_augmixs():
    augment = AugmentConfig(aug_severity=10, mixture_width=3, mixture_depth=-1)
    drawn = draw_mixtures(np.random.default_rng(0), 4000, augment, (HEIGHT, WIDTH))
    chains = [chain for mixture in drawn for chain in mixture.chains]
    depths = np.bincount([len(chain) for chain in chains], minlength=4)[1:] / len(chains)
    np.testing.assert_allclose(depths, 1 / 3, atol=0.02)
    ops = np.bincount([op for chain in chains for op, _ in chain]) / sum(map(len, chains))
    np.testing.assert_allclose(ops, 1 / 9, atol=0.01)
    rotations = np.array([magnitude for chain in chains for op, magnitude in chain if op == 3])
    assert (rotations.min(), rotations.max()) == (-29, 29)
    assert abs(rotations.mean()) < 1
    np.testing.assert_allclose([sum(mixture.weights) for mixture in drawn], 1)
    assert np.mean([mixture.mix_weight for mixture in drawn]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_batch_has_two_views_of_each_image(name, picture):
    images = np.repeat(picture[None], 5, 0)
    batches = RivalBatches(name, images, AugmentConfig(), 3)
    first, last = batches[0], batches[1]
    assert len(batches) == 2
    assert (first.shape, last.shape) == ((3, 2, HEIGHT, WIDTH, 3), (2, 2, HEIGHT, WIDTH, 3))
    views = first.flatten(0, 1)
    assert len({view.numpy().tobytes() for view in views}) == 6
