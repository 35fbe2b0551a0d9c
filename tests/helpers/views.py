"""Views for the tests of engines: the usual settings, and parameters for a batch of pictures."""

import numpy as np
import pytest
import torch

from fastmagn.augment.params import ViewParams, ViewSpec, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn_kernels import threads

SPEC = ViewSpec(num_augmix_views=2, num_noise_views=1)
CLEAN_ONLY = ViewSpec(num_augmix_views=0, num_noise_views=0)
PAPER = AugmentConfig(aug_severity=10, random_aug_severity=True, horizontal_flip=True, color_jitter=0.25)


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, C] -> [B, C, H, W], channels last in memory."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)


def params_for(images: np.ndarray, spec: ViewSpec = SPEC, augment: AugmentConfig = PAPER, seed: int = 0) -> ViewParams:
    return sample_view_params(seed, 0, np.arange(len(images)), spec, augment, images.shape[1:3])


def clean_views(fill_views, images: np.ndarray, params: ViewParams) -> np.ndarray:
    out = torch.full(images.shape, torch.nan)
    fill_views(torch.from_numpy(images.copy()), params, out)
    return out.numpy()


def assert_equal_on_threads(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The views are the same on one, two and three threads."""
    images = np.random.default_rng(0).integers(0, 256, (97, 32, 32, 3), dtype=np.uint8)
    made = []
    for num_threads in (1, 2, 3):
        monkeypatch.setattr(threads, "num_threads", lambda number=num_threads: number)
        made.append(make_views(as_tensor(images), params_for(images), backend))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
