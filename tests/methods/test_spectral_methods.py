"""APR and HybridAugment++ against loops over images in float64 and Pillow, with the draws in plain integers."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.plain_spectra import augmix_operation
from fastmagn.config.schema import LossConfig
from fastmagn.methods.apr import apr_pair, apr_single
from fastmagn.methods.context import StepContext
from fastmagn.methods.hybridaugment import hybrid_pair, hybrid_single
from fastmagn.methods.method import LogitViews
from fastmagn.methods.table import get_method
from fastmagn.training.step import make_pieces, prepared
from fastmagn_kernels.random.rng import STREAM_OPERATIONS, STREAM_SPECTRA
from tests.helpers.plain_losses import LABELS, softmax_row
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import make_context, reference_words, start_run, take_steps

INDICES = [5, 0, 49_999, 17, 3, 2**32 - 1, *range(100, 130)]
BLUR = np.exp(-((np.arange(-1, 2) / 0.5) ** 2) / 2)
TRANSLATIONS = (7, 8)


def smooth_images(batch: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    """Images of few frequencies in whole 255ths, as photographs are, channels last."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    return ((fine.clamp(0, 1) * 255).round() / 255).contiguous(memory_format=torch.channels_last)


def chances(context: StepContext, slot: int, index: int) -> list[float]:
    return [word / 2**32 for word in reference_words(context, slot, STREAM_SPECTRA, index)]


def operated(image: Image.Image, context: StepContext, index: int, number: int) -> Image.Image:
    """AugMix's operation of step 60 + `number`: 128 levels with two signs for each operation."""
    word, *_ = reference_words(context, 1 + 60 + number, STREAM_OPERATIONS, index)
    operation, place = divmod(9 * 256 * word >> 32, 256)
    level = 0.1 + (context.config.augment.aug_severity - 0.1) * (place // 2 + 0.5) / 128
    positive = (place % 2 == 0) != (operation in TRANSLATIONS)
    return augmix_operation(image, operation, level, 1 if positive else -1)


def to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


def blurred(pixels: np.ndarray) -> np.ndarray:
    weights = np.outer(BLUR, BLUR) / BLUR.sum() ** 2
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    height, width, _ = pixels.shape
    return sum(weights[y, x] * padded[y : y + height, x : x + width] for y in range(3) for x in range(3))


def recombined(phase_of: np.ndarray, amplitude_of: np.ndarray) -> np.ndarray:
    spectrum = np.fft.fftn(phase_of)
    phase = np.where(abs(spectrum) < 1e-5, 0, np.angle(spectrum))
    return np.fft.ifftn(abs(np.fft.fftn(amplitude_of)) * np.exp(1j * phase)).real


def plain_copies(
    image: Image.Image, context: StepContext, index: int, number: int
) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether two copies are mixed; the one that gives phase or low frequencies (or is alone); the other."""
    gate, swap = chances(context, 1, index)[number : number + 2]
    first = operated(image, context, index, number)
    second = operated(first, context, index, number + 1)
    first, second = np.asarray(first) / 255, np.asarray(second) / 255
    mixed = gate < context.config.spectra.single_probability
    return (mixed, second, first) if mixed and swap < 0.5 else (mixed, first, second)


def plain_apr_single(image: Image.Image, context: StepContext, index: int, number: int = 0) -> np.ndarray:
    mixed, first, second = plain_copies(image, context, index, number)
    return np.clip(recombined(first, second), 0, 1) if mixed else first


def plain_hybrid_single(image: Image.Image, context: StepContext, index: int) -> np.ndarray:
    mixed, first, second = plain_copies(image, context, index, 0)
    if not mixed:
        return first
    low = plain_apr_single(to_image(blurred(first)), context, index, 2)
    return np.clip(low + second - blurred(second), 0, 1)


def as_arrays(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).double().numpy()


@pytest.mark.parametrize("probability", ["0.5", "0", "1"])
@pytest.mark.parametrize(("single", "plain"), [(apr_single, plain_apr_single), (hybrid_single, plain_hybrid_single)])
def test_single_equals_a_loop_over_images(single, plain, probability):
    context = make_context("--spectra.single_probability", probability, indices=INDICES)
    images = smooth_images(len(INDICES))
    made = as_arrays(single(images, context))
    for i, index in enumerate(INDICES):
        expected = plain(to_image(as_arrays(images)[i]), context, index)
        np.testing.assert_allclose(made[i], expected, atol=1e-5, err_msg=str(index))


def plain_apr_pair(images: np.ndarray, context: StepContext, index: int) -> np.ndarray:
    image, partner, _ = images
    applied = chances(context, 0, index)[0] < context.config.spectra.pair_probability
    return np.clip(recombined(image, partner), 0, 1) if applied else image


def plain_hybrid_pair(images: np.ndarray, context: StepContext, index: int) -> np.ndarray:
    image, partner, other = images
    gate, of_amplitude, *_ = chances(context, 0, index)
    if gate >= context.config.spectra.pair_probability:
        return image
    low = blurred(image)
    if of_amplitude < context.config.spectra.pair_probability:
        low = recombined(low, blurred(other))
    return np.clip(low + partner - blurred(partner), 0, 1)


@pytest.mark.parametrize("probability", ["0.6", "0", "1"])
@pytest.mark.parametrize(("pair", "plain"), [(apr_pair, plain_apr_pair), (hybrid_pair, plain_hybrid_pair)])
def test_pair_equals_a_loop_over_images(pair, plain, probability):
    context = make_context("--spectra.pair_probability", probability, indices=INDICES)
    images = [smooth_images(len(INDICES), seed) for seed in range(3)]
    made = as_arrays(pair(images[0], lambda k, rows: images[1 + k][rows], context))
    for i, index in enumerate(INDICES):
        expected = plain([as_arrays(one)[i] for one in images], context, index)
        np.testing.assert_allclose(made[i], expected, atol=1e-5, err_msg=str(index))


def with_partners(context: StepContext, num_partners: int) -> StepContext:
    """The step with other images, of other samples."""
    count = num_partners * len(context.indices)
    partners = smooth_images(count, seed=1)
    return dataclasses.replace(context, partners=partners, partner_indices=np.arange(count) * 7 + 1)


@pytest.mark.parametrize(("name", "single"), [("apr", apr_single), ("hybridaugment", hybrid_single)])
@pytest.mark.parametrize("variant", ["p", "ps"])
def test_a_partner_is_as_it_is_at_its_own_turn(name, single, variant):
    """Mixing all: the second view is made of the first one and of the partners' first views."""
    arguments = ("--method", name, "--spectra.variant", variant, "--spectra.pair_probability", "1")
    context = with_partners(make_context(*arguments, indices=INDICES), 2)
    images = smooth_images(len(INDICES))
    views, _ = get_method(name).prepare(images, torch.zeros(len(INDICES), dtype=torch.int64), context)
    firsts, partners = images, context.partners
    if variant == "ps":
        firsts, partners = single(images, context), single(partners, context.of(context.partner_indices))
    torch.testing.assert_close(views[: len(INDICES)], firsts, atol=1e-6, rtol=0)
    plain = plain_apr_pair if name == "apr" else plain_hybrid_pair
    three = [as_arrays(part) for part in (firsts, *partners.chunk(2))]
    made = as_arrays(views[len(INDICES) :])
    for i, index in enumerate(INDICES):
        np.testing.assert_allclose(made[i], plain([part[i] for part in three], context, index), atol=1e-5)


@pytest.mark.parametrize("name", ["apr", "hybridaugment"])
@pytest.mark.parametrize("variant", ["p", "s", "ps"])
def test_views_are_in_range_and_do_not_depend_on_the_batch(name, variant):
    """One image alone has the views that it has in a batch, and every draw is its own."""
    context = make_context("--method", name, "--spectra.variant", variant, indices=INDICES)
    images, labels, batch = smooth_images(len(INDICES)), torch.arange(len(INDICES)) % 10, len(INDICES)
    context = with_partners(context, 2)
    views, targets = get_method(name).prepare(images, labels, context)
    assert torch.equal(targets, labels)
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert views.min() >= 0
    assert views.max() <= 1
    num_views = 1 if variant == "s" else 2
    assert views.shape == (num_views * len(INDICES), 3, 32, 32)
    whole = views.view(num_views, len(INDICES), 3, 32, 32)
    for i in (0, 3, len(INDICES) - 1):
        alone = dataclasses.replace(
            context,
            indices=context.indices[[i]],
            partners=context.partners[[i, batch + i]],
            partner_indices=context.partner_indices[[i, batch + i]],
        )
        one, _ = get_method(name).prepare(images[[i]], labels[[i]], alone)
        torch.testing.assert_close(one, whole[:, i], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["apr", "hybridaugment"])
def test_the_mixed_share_is_the_probability(name):
    indices = np.arange(400)
    context = with_partners(make_context("--method", name, "--spectra.variant", "p", indices=indices), 2)
    images = smooth_images(400)
    views, _ = get_method(name).prepare(images, torch.zeros(400, dtype=torch.int64), context)
    mixed = (views[:400] != views[400:]).flatten(1).any(dim=1)
    assert mixed.float().mean() == pytest.approx(0.6, abs=0.08)
    assert torch.equal(views[:400], images)


def test_the_loss_is_the_sum_of_both_cross_entropies():
    generator = torch.Generator().manual_seed(0)
    clean, mixed = (3 * torch.randn(len(LABELS), 10, generator=generator) for _ in range(2))
    expected = []
    for view in (clean, mixed):
        rows = zip(view.tolist(), LABELS.tolist(), strict=True)
        expected.append(-sum(math.log(softmax_row(row)[label]) for row, label in rows) / len(LABELS))
    loss, parts = get_method("apr").loss(LogitViews(clean, augmented=(mixed,)), LABELS, LossConfig())
    assert loss.item() == pytest.approx(sum(expected), rel=1e-6)
    assert [part.item() for part in parts.values()] == pytest.approx(expected, rel=1e-6)
    alone, parts = get_method("apr").loss(LogitViews(clean), LABELS, LossConfig())
    assert alone.item() == pytest.approx(expected[0], rel=1e-6)
    assert parts.keys() == {"cross_entropy"}


def test_the_official_form_draws_once_for_a_batch_and_leaves_the_range():
    """Partners are in the batch; whether a batch is mixed is the same for all of its images."""
    images, labels = smooth_images(len(INDICES)), torch.zeros(len(INDICES), dtype=torch.int64)
    arguments = ("--method", "apr", "--spectra.variant", "p", "--spectra.official", "true")
    first_context, mixed = make_context(*arguments, indices=INDICES), []
    for epoch in range(30):
        context = dataclasses.replace(first_context, epoch=epoch)
        views, _ = get_method("apr").prepare(images, labels, context)
        clean, other = views.chunk(2)
        changed = (clean != other).flatten(1).any(dim=1)
        words = [reference_words(context, 2, STREAM_SPECTRA, index) for index in INDICES]
        partners = sorted(range(len(INDICES)), key=lambda i, words=words: words[i][0] * 2**32 + words[i][1])
        assert changed.all() or not changed.any()
        mixed.append(bool(changed[0]))
        if mixed[-1]:
            expected = recombined(as_arrays(images)[0], as_arrays(images)[partners[0]])
            np.testing.assert_allclose(as_arrays(other)[0], expected, atol=1e-5)
            assert other.min() < 0
    assert 9 <= sum(mixed) <= 26


def test_the_official_single_form_cuts_to_bytes_that_wrap_around():
    context = make_context("--spectra.official", "true", "--spectra.single_probability", "1", indices=INDICES)
    images, wrapped = smooth_images(len(INDICES)), 0
    made = as_arrays(apr_single(images, context)) * 255
    for i, index in enumerate(INDICES):
        _, first, second = plain_copies(to_image(as_arrays(images)[i]), context, index, 0)
        exact = recombined(first, second) * 255
        certain = abs(exact - np.rint(exact)) > 1e-4  # what is whole falls to either side
        expected = np.trunc(exact) % 256
        np.testing.assert_allclose(made[i][certain], expected[certain], atol=1e-3)
        wrapped += ((exact < -1) | (exact >= 256)).sum()
    assert wrapped > 0


@pytest.mark.parametrize("name", ["apr", "hybridaugment", "hybridaugment+magn"])
@pytest.mark.parametrize(("variant", "official"), [("p", "false"), ("s", "false"), ("ps", "true"), ("s", "true")])
def test_every_form_trains(name, variant, official, tmp_path):
    """The model is given one view for s, else two; only those with partners from outside the batch load them."""
    arguments = ["--method", name, "--spectra.variant", variant, "--spectra.official", official]
    arguments += ["--train.batch_size", "16", "--train.accumulation_steps", "2", "--train.amp", "float32"]
    run = start_run(small(tmp_path, *arguments))
    method = run.main_stage.method
    uses_partners = variant != "s" and official == "false"
    assert bool(method.num_partners) == uses_partners
    assert (next(run.source.batches(0)).partners is not None) == uses_partners
    assert run.main_stage.forward_loss.layout.augmented == (variant != "s")
    (parts,) = take_steps(run, 1)
    assert ("mixed_cross_entropy" in parts) == (variant != "s")
    assert all(math.isfinite(part) for part in parts.values())


def test_the_draws_of_accumulated_pieces_are_those_of_the_whole_batch(tmp_path):
    views = []
    for pieces in ("1", "2"):
        arguments = ["--method", "hybridaugment", "--train.batch_size", "16", "--train.accumulation_steps", pieces]
        run = start_run(small(tmp_path, *arguments, "--train.amp", "float32"))
        made = [prepared(run, piece)[0] for piece in make_pieces(run, next(run.source.batches(0)), epoch=0)]
        halves = [part.chunk(2) for part in made]
        views.append(torch.cat([first for first, _ in halves] + [second for _, second in halves]))
    torch.testing.assert_close(views[0], views[1], atol=1e-6, rtol=0)
