"""AFA against a loop over pixels in float64, with the draws in plain integers, and its losses against loops."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.plain_afa import MEAN_STRENGTH, NUM_DIRECTIONS, with_waves
from fastmagn.config.schema import AugmentConfig, LossConfig
from fastmagn.methods.afa import add_waves, append_waved_view, draw_waves
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import LogitViews
from fastmagn.methods.table import get_method
from fastmagn_kernels.random.rng import STREAM_AFA
from tests.helpers.plain_losses import LABELS as LOSS_LABELS
from tests.helpers.plain_losses import kl_row, softmax_row
from tests.helpers.steps import make_context, random_images, reference_words

INDICES = [5, 0, 49_999, 17, 3, 2**32 - 1]
LABELS = torch.tensor([0, 3, 9, 1, 3, 2])


def plain_wave(frequency: float, direction: float, height: int, width: int) -> np.ndarray:
    """sin(2 pi f / n (y cos t + x sin t) - pi / 4) of l_2 norm sqrt(H W) / 32, pixel by pixel."""
    wave = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            y = -height / 2 + height * row / (height - 1)
            x = -width / 2 + width * column / (width - 1)
            along = y * math.cos(direction) + x * math.sin(direction)
            wave[row, column] = math.sin(2 * math.pi * frequency / max(height, width) * along - math.pi / 4)
    return wave * math.sqrt(height * width) / 32 / math.sqrt((wave**2).sum())


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (6, 9)])
def test_waves_equal_a_loop_over_pixels(height, width):
    generator = np.random.default_rng(0)
    images = torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    waves = np.stack(
        [generator.integers(1, 33, (4, 3)), generator.uniform(-math.pi, 0, (4, 3)), generator.exponential(10, (4, 3))]
    )
    waves[:, 0, 0] = (height - 1, 0, 7)  # a wave that is constant: only the phase makes its norm other than 0
    waved = add_waves(images, torch.from_numpy(waves))
    assert waved.dtype == torch.float32
    assert waved.is_contiguous(memory_format=torch.channels_last)
    for i in range(4):
        for c in range(3):
            frequency, direction, strength = waves[:, i, c]
            added = images[i, c].double().numpy() + strength * plain_wave(frequency, direction, height, width)
            np.testing.assert_allclose(waved[i, c].numpy(), added.clip(0, 1), rtol=0, atol=2e-6)


def test_the_plain_code_of_the_benchmark_makes_the_same_view():
    images_u8 = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(1)
    plain = with_waves(images_u8.float() / 255)
    torch.manual_seed(1)
    frequency = torch.randint(1, 33, (4, 3)).double()
    direction = -math.pi * torch.randint(0, NUM_DIRECTIONS, (4, 3)).double() / (NUM_DIRECTIONS - 1)
    strength = torch.empty(4, 3).exponential_(1 / MEAN_STRENGTH).double()
    waved = add_waves(images_u8.float() / 255, torch.stack([frequency, direction, strength]))
    torch.testing.assert_close(plain, waved, rtol=0, atol=1e-4)


@pytest.mark.parametrize("highest", [0, 5])
def test_the_draws_are_the_samples_own(highest):
    context = make_context("--afa.max_frequency", str(highest), "--afa.min_strength", "2", indices=INDICES)
    waves = draw_waves(context, 3, 32)
    for i, index in enumerate(INDICES):
        for channel in range(3):
            words = reference_words(context, channel, STREAM_AFA, index)
            frequency = 1 + (words[0] * (highest or 32) >> 32)
            strength = 2 - 10 * math.log((words[2] + 0.5) / 2**32)
            expected = (frequency, -math.pi * words[1] / 2**32, strength)
            assert waves[:, i, channel] == pytest.approx(expected, rel=1e-12)


def test_the_draws_have_their_distributions():
    context = make_context("--afa.mean_strength", "6", indices=np.arange(4_000))
    frequency, direction, strength = draw_waves(context, 3, 32).reshape(3, -1)
    counts = np.bincount(frequency.astype(int), minlength=33)
    assert counts[0] == 0
    assert len(counts) == 33
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    assert stats.kstest(direction, stats.uniform(-math.pi, math.pi).cdf).pvalue > 1e-3
    assert stats.kstest(strength, stats.expon(scale=6).cdf).pvalue > 1e-3
    assert abs(np.corrcoef([frequency, direction, strength]) - np.eye(3)).max() < 0.04


def test_the_view_does_not_depend_on_the_batch():
    context = make_context(indices=INDICES)
    images = random_images(len(INDICES))
    views, labels = append_waved_view(images, LABELS, context)
    assert labels is LABELS
    assert torch.equal(views[: len(images)], images)
    waved = views[len(images) :]
    assert waved.min() >= 0
    assert waved.max() <= 1
    for i in range(len(INDICES)):
        alone = StepContext(**{**vars(context), "indices": context.indices[i : i + 1]})
        one, _ = append_waved_view(images[i : i + 1], LABELS[i : i + 1], alone)
        assert torch.equal(one[1], waved[i])
    later = StepContext(**{**vars(context), "epoch": context.epoch + 1})
    assert not torch.equal(append_waved_view(images, LABELS, later)[0], views)


def test_beside_augmix_the_waves_are_added_to_the_clean_view():
    context = make_context(indices=INDICES)
    clean, augmix = random_images(len(INDICES)), random_images(len(INDICES), seed=1)
    views, _ = append_waved_view(torch.cat([clean, augmix]), LABELS, context)
    alone, _ = append_waved_view(clean, LABELS, context)
    assert torch.equal(views, torch.cat([clean, augmix, alone[len(INDICES) :]]))


def random_logits(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [3 * torch.randn(len(LOSS_LABELS), 10, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_of_two_cross_entropies(smoothing):
    views, means = random_logits(2), []
    for view in views:
        total = 0.0
        for row, label in zip(view.tolist(), LOSS_LABELS.tolist(), strict=True):
            logs = [math.log(p) for p in softmax_row(row)]
            total -= (1 - smoothing) * logs[label] + smoothing * sum(logs) / 10
        means.append(total / len(LOSS_LABELS))
    weights = LossConfig(label_smoothing=smoothing)
    loss, parts = get_method("afa").loss(LogitViews(views[0], augmented=(views[1],)), LOSS_LABELS, weights)
    assert loss.item() == pytest.approx(sum(means) / 2, rel=1e-5)
    assert parts["cross_entropy"].item() == pytest.approx(means[0], rel=1e-5)
    assert parts["augmented_cross_entropy"].item() == pytest.approx(means[1], rel=1e-5)


@pytest.mark.parametrize("method", ["afa_jsd", "afa_augmix"])
def test_the_divergence_is_of_three_views(method):
    clean, waved, *augmix = random_logits(3 if method == "afa_augmix" else 2)
    cross_entropy = divergence = 0.0
    for i, label in enumerate(LOSS_LABELS.tolist()):
        views = [softmax_row(view[i].tolist()) for view in (clean, *(augmix or (clean,)), waved)]
        mixture = [sum(column) / 3 for column in zip(*views, strict=True)]
        cross_entropy -= math.log(views[0][label]) / len(LOSS_LABELS)
        divergence += sum(kl_row(view, mixture) for view in views) / 3 / len(LOSS_LABELS)
    logits = LogitViews(clean, augmix=tuple(augmix), augmented=(waved,))
    loss, parts = get_method(method).loss(logits, LOSS_LABELS, LossConfig(jsd_weight=10))
    assert loss.item() == pytest.approx(cross_entropy + 10 * divergence, rel=1e-5)
    assert parts["jensen_shannon"].item() == pytest.approx(divergence, rel=1e-5)


def test_titles_and_views():
    titles = {name: get_method(name).view_titles(AugmentConfig()) for name in ("afa", "afa_jsd", "afa_augmix")}
    assert titles["afa"] == titles["afa_jsd"] == ["clean", "AFA"]
    assert titles["afa_augmix"] == ["clean", "AugMix", "AFA"]
    assert get_method("afa_augmix+magn").view_titles(AugmentConfig()) == ["clean", "AugMix", "noisy", "AFA"]
