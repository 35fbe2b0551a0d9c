"""The small networks that differ in one part, and the held-out images that they are compared on."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.data import load_images
from fastmagn.models import MODELS
from fastmagn.models.resnet import resnet_small_deep
from tests.helpers.own_code import loaded_anew


@pytest.fixture(scope="module")
def parts() -> Iterator[ModuleType]:
    with loaded_anew("small_networks") as module:
        yield module


def sides(network: nn.Module) -> list[int]:
    """The side, px, of the maps of every 3x3 and 4x4 convolution for an image of 32 px."""
    found = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(lambda _module, _given, maps: found.append(maps.shape[-1]))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    return found


def test_each_part_is_where_its_name_says(parts):
    assert sides(parts.wide(7)) == [16, 8, 8, 8, 8, 4, 4]
    assert sides(resnet_small_deep(7)) == [16, 8, 8, 8, 8, 4, 4, 4, 4]
    assert sides(parts.PARTS["pooled_stem"](7)) == [32, 8, 8, 8, 8, 4, 4]
    gelu = parts.PARTS["gelu"](7)
    assert not any(isinstance(module, nn.ReLU) for module in gelu.modules())
    assert sum(isinstance(module, nn.GELU) for module in gelu.modules()) == 4
    pooled = parts.PARTS["max"](7).eval()
    images = torch.rand(2, 3, 32, 32)
    maps = pooled.blocks(pooled.stem(images))
    torch.testing.assert_close(pooled(images), pooled.head(maps.flatten(2).max(dim=2).values))


def test_the_networks_have_names(parts):
    assert {"resnet_small_wide", *(f"wide_{name}" for name in parts.PARTS)} <= set(MODELS)


def test_held_out_images_are_training_images_that_are_not_trained_on(parts, data_dir):
    held = parts.held_out(data_dir, False)
    whole = load_images("cifar10", data_dir)
    assert (len(held.train_images_u8), len(held.test_images_u8)) == (45_000, 2_500)
    rows = {images.tobytes() for images in np.asarray(whole.train_images_u8)}
    test = {images.tobytes() for images in np.asarray(held.test_images_u8)}
    assert test <= rows
    assert not test & {images.tobytes() for images in np.asarray(held.train_images_u8)}
    assert np.bincount(held.test_labels).min() > 200


def test_the_whitened_stem_gives_uncorrelated_maps_of_about_unit_variance(parts, data_dir, monkeypatch):
    monkeypatch.setattr(parts, "_DATA_DIR", [data_dir])
    network = parts.PARTS["whitened_stem"](7)
    assert sides(network) == [16, 8, 8, 8, 8, 4, 4]
    filters = network.stem[0].weight
    assert not filters.requires_grad
    assert torch.equal(filters[:16], -filters[16:])
    images = torch.from_numpy(np.asarray(load_images("cifar10", data_dir).train_images_u8[:2000]))
    images = images.permute(0, 3, 1, 2).double() / 255
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)
    maps = nn.functional.conv2d(images, parts.principal_components(4, 16).double(), stride=2)
    correlations = maps.transpose(0, 1).flatten(1).numpy()
    covariance = correlations @ correlations.T / correlations.shape[1]
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-4)
    assert ((np.diag(covariance) > 0.5) & (np.diag(covariance) <= 1.001)).all()
