"""The methods of benchmarks/training_parts.py that differ in one part of training."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

from fastmagn.config.schema import Config, TrainConfig
from fastmagn.methods.context import StepContext
from fastmagn.methods.table import METHODS
from tests.helpers.own_code import loaded_anew

INDICES = np.arange(400, dtype=np.int64)


@pytest.fixture(scope="module")
def parts() -> Iterator[ModuleType]:
    with loaded_anew("training_parts") as module:
        yield module


def in_epoch(epoch: int, indices: np.ndarray = INDICES) -> StepContext:
    config = Config(train=TrainConfig(epochs=8))
    return StepContext(config=config, model=None, num_classes=10, epoch=epoch, indices=indices)


def test_an_image_is_mirrored_in_every_second_epoch(parts):
    images = torch.rand(len(INDICES), 3, 8, 8)
    mirrored = []
    for epoch in range(4):
        views, _ = parts.alternate_flips(images, torch.zeros(len(INDICES)), in_epoch(epoch))
        is_mirrored = (views == torch.from_numpy(images.numpy()[..., ::-1].copy())).flatten(1).all(dim=1)
        is_itself = (views == images).flatten(1).all(dim=1)
        assert (is_mirrored ^ is_itself).all()
        mirrored.append(is_mirrored)
    assert 150 < int(mirrored[0].sum()) < 250
    assert torch.equal(mirrored[0], mirrored[2])
    assert torch.equal(mirrored[1], mirrored[3])
    assert torch.equal(mirrored[0], ~mirrored[1])


def test_an_image_is_mirrored_alike_in_any_batch(parts):
    images, order = torch.rand(len(INDICES), 3, 8, 8), np.random.default_rng(0).permutation(len(INDICES))
    views, _ = parts.alternate_flips(images, torch.zeros(len(INDICES)), in_epoch(1))
    shuffled, _ = parts.alternate_flips(images[order], torch.zeros(len(INDICES)), in_epoch(1, INDICES[order]))
    assert torch.equal(views[order], shuffled)


@pytest.mark.parametrize(("epoch", "side"), [(0, 24), (3, 24), (4, 32), (7, 32)])
def test_images_grow_and_half_of_them_have_noise(parts, epoch, side):
    grey = torch.full((len(INDICES), 3, 32, 32), 0.5)
    views, _ = parts.grow(grey, torch.zeros(len(INDICES)), in_epoch(epoch))
    assert views.shape == (len(INDICES), 3, side, side)
    sds = views.flatten(1).std(dim=1)
    noisy = sds[sds > 0]
    assert 150 < len(noisy) < 250
    assert 0.08 < float(noisy.mean()) < 0.12  # of a uniform standard deviation up to 0.2
    assert 0.18 < float(noisy.max()) < 0.21


def test_the_methods_have_names(parts):
    assert {"alternating_flips", "growing_images"} <= set(METHODS)
