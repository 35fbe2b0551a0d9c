"""The strongest hand-written loop makes the views it claims: crops, flips, jitter and AugMix views of its images."""

import numpy as np
import pytest
import torch

from benchmarks.tight import OpenCVBatches, base_transform, tight_step
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import AugmentConfig
from fastmagn.machine.hardware import settle_hardware
from fastmagn.models import build_model

pytest.importorskip("cv2")
SIDE, PAD = 12, 3
PLAIN = AugmentConfig(crop_padding_px=PAD, horizontal_flip=True, rotation_deg=0.0, color_jitter=0.0)


def some_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def test_a_base_view_is_a_crop_of_the_padded_image_or_of_its_mirror_image():
    image, rng = some_images(1)[0], np.random.default_rng(1)
    base = base_transform(PLAIN, SIDE, SIDE)
    crops = {}
    for mirrored, pixels in ((False, image), (True, image[:, ::-1])):
        padded = np.pad(pixels, ((PAD, PAD), (PAD, PAD), (0, 0)))
        for top in range(2 * PAD + 1):
            for left in range(2 * PAD + 1):
                crops[padded[top : top + SIDE, left : left + SIDE].tobytes()] = mirrored, top, left
    seen = {crops[base(image, rng).tobytes()] for _ in range(300)}
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    assert {top for _, top, _ in seen} == {left for _, _, left in seen} == set(range(2 * PAD + 1))


def test_jitter_of_brightness_contrast_and_saturation_keeps_a_grey_image_grey():
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    augment = AugmentConfig(crop_padding_px=0, horizontal_flip=False, rotation_deg=0.0, color_jitter=0.25)
    base, rng = base_transform(augment, SIDE, SIDE), np.random.default_rng(2)
    values = np.array([base(grey, rng) for _ in range(200)])
    assert (values == values[:, :1, :1, :1]).all()
    assert 74 <= values.min() < 85  # brightness alone changes it, by a factor in 0.75..1.25
    assert 115 < values.max() <= 126


def test_batches_hold_the_clean_views_and_then_those_of_augmix():
    images, labels = some_images(6), np.arange(6)
    still = AugmentConfig(crop_padding_px=0, horizontal_flip=False, rotation_deg=0.0, color_jitter=0.0)
    views, made_labels = OpenCVBatches(images, labels, still, 2)[[4, 1, 5]]
    assert views.shape == (3, 3, SIDE, SIDE, 3)
    assert made_labels.tolist() == [4, 1, 5]
    np.testing.assert_allclose(views[0].numpy(), images[[4, 1, 5]] / 255, atol=1e-6)
    for view in views[1:]:
        assert 0 <= view.min() <= view.max() <= 1 + 1e-6
        assert not torch.allclose(view, views[0], atol=1e-2)


@pytest.mark.slow
@pytest.mark.process
def test_its_steps_train():
    arguments = ["--method", "magn_augmix", "--train.batch_size", "8", "--device", "cpu", "--train.amp", "float32"]
    config = settle_hardware(parse_config(arguments, "test", "A test."))
    model = build_model("resnet_small", num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3).train()
    before = [parameter.clone() for parameter in model.parameters()]
    step = tight_step(config, model, some_images(24), np.arange(24) % 10, 1)
    for _ in range(4):  # longer than an epoch
        step()
    after = [*model.parameters()]
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(after) / 2
