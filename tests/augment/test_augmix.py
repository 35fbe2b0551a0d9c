"""AugMix as others call it: any dtype and layout, seeds and generators, and Pillow's pixels."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fastmagn import AugMix, AutoAugment, RandAugment, TrivialAugment
from fastmagn.augment.engines import pil
from fastmagn.augment.operations import OPERATIONS


def batch_of(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)


def test_uint8_views_are_pillows(pictures):
    images = batch_of(pictures(20, 33))
    expected = AugMix(aug_severity=10, all_operations=True, seed=3, backend="pil")(images)
    made = AugMix(aug_severity=10, all_operations=True, seed=3)(images)
    difference = (made.int() - expected.int()).abs()
    assert difference.max() <= 1  # a mixture within 1e-6 of k + 1/2 may round either way
    assert (difference > 0).float().mean() < 1e-4
    assert (made != images).flatten(1).any(dim=1).float().mean() > 0.5


def test_a_single_chain_is_a_mix_of_the_image_and_one_of_pillows_results(pictures):
    picture = pictures(32, 32)[8]
    images = batch_of(np.repeat(picture[None], 200, 0)).float() / 255
    mixed = AugMix(mixture_width=1, mixture_depth=1, aug_severity=1, seed=1)(images).permute(0, 2, 3, 1).numpy()
    still = picture.astype(np.float64) / 255
    without_levels = [(op.id, op.magnitude(1 - 1e-9, 32, 32)) for op in OPERATIONS[:3]]
    results = [np.asarray(pil.apply_operation(Image.fromarray(picture), *chosen)) / 255 for chosen in without_levels]
    explained = 0
    for image in mixed:
        for result in (still, *results):
            direction = result - still
            weight = (direction * (image - still)).sum() / max((direction**2).sum(), 1e-12)
            if np.abs(still + weight * direction - image).max() < 2e-6:
                explained += 1
                break
    # autocontrast, equalize and posterize (4 bits up to level 1) always are; rotations and shifts by 0 are too.
    assert explained >= 200 * 3 / 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_floats_are_the_uint8_views_unrounded(dtype, pictures):
    images = batch_of(pictures(32, 32))
    expected = AugMix(seed=5)(images / 255.0)
    made = AugMix(seed=5)((images / 255.0).to(dtype))
    assert made.dtype == dtype
    if dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(made.float(), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(AugMix(seed=5)(images) / 255.0, expected, rtol=0, atol=0.5 / 255 + 1e-6)


def test_grey_images_are_one_channel_of_their_rgb_copies(pictures):
    grey = batch_of(pictures(20, 33))[:, :1]
    made = AugMix(seed=2, all_operations=True)(grey)
    expected = AugMix(seed=2, all_operations=True)(grey.expand(-1, 3, -1, -1))
    assert made.shape == grey.shape
    for channel in range(3):
        assert torch.equal(made, expected[:, channel : channel + 1])


def test_a_generator_is_the_state_of_the_draws(pictures):
    images = batch_of(pictures(32, 32))
    generator = torch.Generator().manual_seed(7)
    augmix = AugMix(seed=generator)
    augmix(images)
    state = generator.get_state()
    second = augmix(images)
    generator.set_state(state)
    assert torch.equal(augmix(images), second)
    assert torch.equal(AugMix(seed=7)(images), AugMix(seed=torch.Generator().manual_seed(7))(images))


@pytest.mark.parametrize("make", [AugMix, TrivialAugment, RandAugment, AutoAugment])
def test_every_bit_of_a_seed_counts(make, pictures):
    """PyTorch's generators on the CPU take the low 32 bits alone, which are the same in each group here."""
    images = batch_of(pictures(32, 32))
    groups = [[42, *((rank << 32) | 42 for rank in (1, 2, 2**31))], [2**32 - 1, 2**33 - 1, 2**64 - 1]]
    for seeds in groups:
        made = [make(seed=seed) for seed in seeds]
        drawn = [(one(images), one(images)) for one in made]
        assert len({views.numpy().tobytes() for pair in drawn for views in pair}) == 2 * len(seeds)
        again = make(seed=seeds[-1])
        assert torch.equal(again(images), drawn[-1][0])
        assert torch.equal(copy.deepcopy(again)(images), drawn[-1][1])
        assert torch.equal(pickle.loads(pickle.dumps(again))(images), drawn[-1][1])
    own = [make(seed=torch.Generator().manual_seed(seed))(images) for seed in groups[0]]
    assert all(torch.equal(views, make(seed=42)(images)) for views in own)  # a generator's draws are its own


def test_it_stands_in_a_torchvision_pipeline(pictures):
    pipeline = v2.Compose([AugMix(seed=0), v2.ToDtype(torch.float32, scale=True)])
    made = pipeline(batch_of(pictures(32, 32)))
    assert made.dtype == torch.float32
    assert made.max() <= 1
