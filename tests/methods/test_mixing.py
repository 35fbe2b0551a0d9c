"""Cutout, mixup and CutMix against loops over images, boxes and classes, with the draws in plain integers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastmagn.methods.context import StepContext
from fastmagn.methods.mixing import cutmix, cutout, draw_boxes, draw_lambda, draw_partners, mixup
from fastmagn_kernels.random.rng import STREAM_MIXING
from tests.helpers.processes import ROOT
from tests.helpers.steps import MEAN, make_context, random_images, reference_words

INDICES = [5, 0, 49_999, 17, 3, 2**32 - 1]
LABELS = torch.tensor([0, 3, 9, 1, 3, 2])


def uniforms_of(context: StepContext, index: int) -> list[float]:
    return [word / 2**32 for word in reference_words(context, 0, STREAM_MIXING, index)]


def partners_of(context: StepContext) -> list[int]:
    """Positions in the batch, in the order of each sample's 64-bit key."""
    words = [reference_words(context, 1, STREAM_MIXING, index) for index in context.indices]
    return sorted(range(len(words)), key=lambda i: words[i][0] * 2**32 + words[i][1])


def soft(label: int, partner_label: int, share: float, num_classes: int = 10) -> list[float]:
    target = [0.0] * num_classes
    target[label] += share
    target[partner_label] += 1 - share
    return target


@pytest.mark.parametrize("size", [32, 9])
@pytest.mark.parametrize("side", [16, 8, 2])
def test_cutout_equals_a_loop_over_pixels(size, side):
    context = make_context("--mixing.cutout_px", str(side), indices=INDICES)
    images = random_images(len(INDICES), size)
    out, labels = cutout(images, LABELS, context)
    assert torch.equal(labels, LABELS)
    expected = images.clone()
    for i, index in enumerate(INDICES):
        _, x, y, _ = uniforms_of(context, index)
        centre_x, centre_y = math.floor(x * size), math.floor(y * size)
        for row in range(centre_y - side // 2, centre_y + side // 2):
            for column in range(centre_x - side // 2, centre_x + side // 2):
                if 0 <= row < size and 0 <= column < size:
                    expected[i, :, row, column] = torch.tensor(MEAN)
    assert torch.equal(out, expected)
    assert not torch.equal(out, images)


def test_partners_depend_on_the_share_of_a_process_and_the_page_says_so():
    context = make_context(indices=INDICES)
    images = np.array(INDICES)
    halves = [images[part][draw_partners(context.of(images[part]))] for part in (slice(0, 3), slice(3, 6))]
    assert not np.array_equal(images[draw_partners(context)], np.concatenate(halves))
    page = (ROOT / "docs" / "several_gpus.md").read_text()
    methods = ("mixup", "cutmix", "noisymix", "prime", "prime_no_jsd", "apr", "hybridaugment")
    assert all(f"`{name}`" in page for name in methods)
    assert "`afa`" not in page


@pytest.mark.parametrize("alpha", [1.0, 0.2])
def test_mixup_equals_a_loop_over_images(alpha):
    context = make_context("--mixing.mixup_alpha", str(alpha), indices=INDICES)
    images = random_images(len(INDICES))
    mixed, targets = mixup(images, LABELS, context)
    for i, (index, j) in enumerate(zip(INDICES, partners_of(context), strict=True)):
        share = float(stats.beta.ppf(uniforms_of(context, index)[0], alpha, alpha))
        expected = share * images[i].double() + (1 - share) * images[j].double()
        torch.testing.assert_close(mixed[i], expected.float(), atol=1e-6, rtol=0)
        torch.testing.assert_close(targets[i], torch.tensor(soft(LABELS[i], LABELS[j], share)), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("alpha", "probability"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (1.0, 0.0)])
def test_cutmix_equals_a_loop_over_pixels(alpha, probability):
    context = make_context(
        *("--mixing.cutmix_alpha", str(alpha), "--mixing.cutmix_probability", str(probability)), indices=INDICES
    )
    images = random_images(len(INDICES))
    mixed, targets = cutmix(images, LABELS, context)
    expected = images.clone()
    for i, (index, j) in enumerate(zip(INDICES, partners_of(context), strict=True)):
        first, x, y, chance = uniforms_of(context, index)
        side = int(32 * math.sqrt(1 - stats.beta.ppf(first, alpha, alpha))) if chance < probability else 0
        centre_x, centre_y, area = math.floor(x * 32), math.floor(y * 32), 0
        for row in range(centre_y - side // 2, centre_y + side // 2):
            for column in range(centre_x - side // 2, centre_x + side // 2):
                if 0 <= row < 32 and 0 <= column < 32:
                    expected[i, :, row, column] = images[j, :, row, column]
                    area += 1
        torch.testing.assert_close(targets[i], torch.tensor(soft(LABELS[i], LABELS[j], 1 - area / 1024)))
    assert torch.equal(mixed, expected)
    assert torch.equal(mixed, images) == (probability == 0)


@pytest.mark.parametrize("prepare", [mixup, cutmix])
def test_soft_targets_are_probabilities_of_at_most_two_classes(prepare):
    context = make_context(indices=np.arange(100), num_classes=100)
    labels = torch.arange(100) % 7
    _, targets = prepare(random_images(100, 4), labels, context)
    assert targets.dtype == torch.float32
    assert targets.shape == (100, 100)
    assert targets.min() >= 0
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(100))
    assert ((targets > 0).sum(dim=1) <= 2).all()


@pytest.mark.parametrize("prepare", [cutout, mixup, cutmix])
def test_the_epoch_changes_the_draws_and_the_seed_too(prepare):
    images = random_images(len(INDICES))
    first = prepare(images, LABELS, make_context(indices=INDICES, epoch=0))[0]
    assert torch.equal(first, prepare(images, LABELS, make_context(indices=INDICES, epoch=0))[0])
    assert not torch.equal(first, prepare(images, LABELS, make_context(indices=INDICES, epoch=1))[0])
    assert not torch.equal(
        first, prepare(images, LABELS, make_context("--train.seed", "1", indices=INDICES, epoch=0))[0]
    )


def test_cutout_does_not_depend_on_the_batch():
    images = random_images(len(INDICES))
    whole, _ = cutout(images, LABELS, make_context(indices=INDICES))
    for i, index in enumerate(INDICES):
        one, _ = cutout(images[i : i + 1], LABELS[i : i + 1], make_context(indices=[index]))
        assert torch.equal(one[0], whole[i])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lambda_has_its_beta_distribution(alpha):
    words = make_context(indices=np.arange(4000)).words(0, STREAM_MIXING)
    assert stats.kstest(draw_lambda(words, alpha), stats.beta(alpha, alpha).cdf).pvalue > 0.01


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_boxes_lie_within_the_image(height, width, side, seed):
    words = np.random.default_rng(seed).integers(0, 2**32, (20, 4), dtype=np.uint32)
    sides = np.full(20, side)
    left, right, top, bottom = draw_boxes(words, sides, sides, (height, width)).T
    assert ((left >= 0) & (left <= right) & (right <= width)).all()
    assert ((top >= 0) & (top <= bottom) & (bottom <= height)).all()
    assert (right - left).max() <= side
