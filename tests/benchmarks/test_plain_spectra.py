"""The plain views of APR and HybridAugment++ are images and mixtures of them, which the generator decides."""

import numpy as np
import pytest
import torch

from benchmarks.plain_spectra import apr_views, hybridaugment_views
from tests.helpers.steps import random_images


@pytest.mark.parametrize("make", [apr_views, hybridaugment_views])
def test_the_second_half_is_mixed_with_the_first(make):
    images_u8 = (random_images(8) * 255).round().to(torch.uint8)
    mixed = []
    for seed in range(12):
        views = make(images_u8, np.random.default_rng(seed))
        assert torch.equal(views, make(images_u8, np.random.default_rng(seed)))
        assert views.shape == (16, 3, 32, 32)
        clean, other = views.chunk(2)
        assert 0 <= clean.min() <= clean.max() <= 1
        torch.testing.assert_close(clean * 255, (clean * 255).round(), atol=1e-3, rtol=0)
        mixed.append(not torch.equal(clean, other))
        assert abs(other.mean() - clean.mean()) < 0.02
    assert 3 <= sum(mixed) <= 11
