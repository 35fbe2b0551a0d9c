"""PRIME's views against loops over pixels, frequencies and modes, with the draws in plain integers; what it draws."""

import math

import numpy as np
import pytest
import torch

from fastmagn.config.schema import LossConfig
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import LogitViews
from fastmagn.methods.prime import add_prime_views, draw_settings, prime_views, replace_by_prime_view, views_in_torch
from fastmagn.methods.table import get_method
from fastmagn_kernels import threads
from fastmagn_kernels.random import rng
from fastmagn_kernels.random.rng import STREAM_PRIME
from tests.helpers.plain_losses import LABELS, kl_row, softmax_row
from tests.helpers.prime_draws import plain_variances, plan_of
from tests.helpers.steps import make_context, random_images, reference_words

INDICES = [5, 0, 49_999, 2**32 - 1]
SIZE = (7, 9)
Image = list[list[list[float]]]  # channels, rows, columns


def small_images(in_levels: bool = True, size: tuple[int, int] = SIZE) -> torch.Tensor:
    images = random_images(len(INDICES), max(size))[..., : size[0], : size[1]]
    return images if in_levels else images * 0.9 + 0.0371


def normals_of(context: StepContext, index: int, view: int, count: int) -> list[float]:
    out = np.empty(count, np.float32)
    rng.standard_normal(out, STREAM_PRIME, view, index, context.epoch, *rng.key_words(context.config.train.seed))
    return out.tolist()


def arcsine(uniform: float) -> float:
    return math.sin(math.pi / 2 * uniform) ** 2


def clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


class PlainPrime:
    """The views of one sample in Python's floats; `first` is the batch's first sample."""

    def __init__(self, context: StepContext, index: int, first: int, j: int) -> None:
        self.context, self.index, self.first, self.j = context, index, first, j
        self.options = context.config.prime

    def words(self, slot: int, index: int) -> list[float]:
        return [word / 2**32 for word in reference_words(self.context, slot, STREAM_PRIME, index, self.j)]

    def scalars(self, primitive: int, chain: int, step: int) -> list[float]:
        chain, index = (0, self.first) if self.options.official else (chain, self.index)
        return self.words(128 + 24 * chain + 3 * step + primitive, index)

    def normals(self, chain: int, step: int, count: int, shared: bool = False) -> list[float]:
        chain, index = (0, self.first) if shared else (chain, self.index)
        return normals_of(self.context, index, 2**16 + 64 * self.j + 8 * chain + step, count)

    def filtered(self, image: Image, chain: int, step: int) -> Image:
        sigma = self.options.filter_std * self.scalars(2, chain, step)[0]
        weights = [sigma * z for z in self.normals(chain, step, 9)]
        weights[8 if self.options.official else 4] += 1
        height, width = len(image[0]), len(image[0][0])
        return [
            [
                [
                    clip(
                        sum(
                            weights[3 * (v + 1) + u + 1] * plane[y + v][x + u]
                            for v in (-1, 0, 1)
                            for u in (-1, 0, 1)
                            if 0 <= y + v < height and 0 <= x + u < width
                        )
                    )
                    for x in range(width)
                ]
                for y in range(height)
            ]
            for plane in image
        ]

    def recolored(self, image: Image, chain: int, step: int) -> Image:
        first, second, *_ = self.scalars(1, chain, step)
        count = 1 + math.floor(first * self.options.color_frequencies)
        scale = math.sqrt(second * self.options.color_variance)
        normals = self.normals(chain, step, 3 * count)

        def curve(channel: int, c: float) -> float:
            terms = normals[channel * count : (channel + 1) * count]
            return clip(c + sum(scale * z * math.sin(math.pi * (k + 1) * c) for k, z in enumerate(terms)))

        return [[[curve(channel, c) for c in row] for row in plane] for channel, plane in enumerate(image)]

    def displaced(self, image: Image, chain: int, step: int) -> Image:
        height, width = len(image[0]), len(image[0][0])
        first, second, third, _ = self.scalars(0, chain, step)
        bound = 3 + math.floor(first * (self.options.displacement_cut - 2))
        cut = min(bound, 2 + math.floor((bound - 1) * arcsine(second)))
        c = cut + 1e-6
        low = 1 / (math.pi * width**2 * math.log(c))
        temperature = low + (max(low, 4 / (math.pi**3 * c**2 * math.log(c))) - low) * arcsine(third)
        rows, columns = min(cut, height - 2), min(cut, width - 2)
        variances = plain_variances(cut, height, width)
        normals = self.normals(chain, step, 2 * rows * columns, self.options.official)

        def field(n: int, y: int, x: int) -> float:
            return sum(
                normals[(n * rows + p - 1) * columns + q - 1]
                * math.sqrt(variance * temperature)
                * math.sin(p * math.pi * y / (height - 1))
                * math.sin(q * math.pi * x / (width - 1))
                for (p, q), variance in variances.items()
            )

        def sample(plane: list[list[float]], y: int, x: int, dy: float, dx: float) -> float:
            from_x, from_y = min(max(x - dx, 0), width - 1), min(max(y - dy, 0), height - 1)
            left, top, right, bottom = math.floor(from_x), math.floor(from_y), math.ceil(from_x), math.ceil(from_y)
            u, v = from_x - left, from_y - top
            upper = (1 - u) * plane[top][left] + u * plane[top][right]
            return (1 - v) * upper + v * ((1 - u) * plane[bottom][left] + u * plane[bottom][right])

        moves = [[(height * field(1, y, x), width * field(0, y, x)) for x in range(width)] for y in range(height)]
        return [[[sample(plane, y, x, *moves[y][x]) for x in range(width)] for y in range(height)] for plane in image]

    def chain(self, image: Image, chain: int) -> Image:
        for step in range(1 + math.floor(3 * self.words(1 + chain, self.index)[1])):
            primitive = math.floor(3 * self.words(16 + 8 * chain + step, self.index)[0])
            image = (self.displaced, self.recolored, self.filtered)[primitive](image, chain, step)
        return image

    def view(self, image: torch.Tensor) -> torch.Tensor:
        pixels = image.double().tolist()
        first = [reference_words(self.context, 1 + w, STREAM_PRIME, self.index, self.j)[0] >> 8 for w in range(3)]
        exponentials = [-math.log((word + 0.5) / 2**24) for word in first]
        share = self.words(0, self.index)[0]
        total = (1 - share) * image.double()
        for w in range(3):
            weight = share * exponentials[w] / sum(exponentials)
            total += weight * torch.tensor(self.chain(pixels, w), dtype=torch.float64)
        return total


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("official", ["false", "true"])
@pytest.mark.parametrize("in_levels", [True, False])
def test_views_equal_a_loop_over_pixels(in_levels, official, engine):
    context, images = make_context("--prime.official", official, indices=INDICES), small_images(in_levels)
    if engine == "numba":
        views = prime_views(images, 2, context, with_clean=False)
    else:
        views = views_in_torch(images, 2, context.indices, draw_settings(context, *SIZE))
    for j in range(2):
        for i, index in enumerate(INDICES):
            expected = PlainPrime(context, index, INDICES[0], j).view(images[i])
            torch.testing.assert_close(views[j * len(INDICES) + i].double(), expected, atol=1e-6, rtol=0)
    assert views.shape == (8, 3, *SIZE)
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= views.min() < views.max() <= 1


@pytest.mark.parametrize("official", ["false", "true"])
def test_the_two_engines_agree(official):
    context = make_context("--prime.official", official, indices=np.arange(64) * 31)
    images = random_images(64)
    expected = prime_views(images, 2, context, with_clean=False)
    views = views_in_torch(images, 2, context.indices, draw_settings(context, 32, 32))
    torch.testing.assert_close(views, expected, atol=1e-5, rtol=0)
    assert (views - images.repeat(2, 1, 1, 1)).abs().mean() > 0.05


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 33)])
def test_any_size_of_images(size):
    context, images = make_context(indices=INDICES), small_images(size=size)
    views = prime_views(images, 1, context, with_clean=True)
    expected = views_in_torch(images, 1, context.indices, draw_settings(context, *size))
    assert torch.equal(views[: len(INDICES)], images)
    torch.testing.assert_close(views[len(INDICES) :], expected, atol=1e-5, rtol=0)


def test_views_do_not_depend_on_the_batch():
    images = small_images()
    whole, labels = add_prime_views(images, LABELS, make_context(indices=INDICES))
    assert labels is LABELS
    for i, index in enumerate(INDICES):
        one, _ = add_prime_views(images[i : i + 1], LABELS[:1], make_context(indices=[index]))
        assert torch.equal(one, whole[i :: len(INDICES)])
    assert torch.equal(whole[: len(INDICES)], images)


def test_views_do_not_depend_on_the_number_of_threads(monkeypatch):
    images, context = random_images(40), make_context(indices=np.arange(40))
    views = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "num_threads", lambda count=count: count)
        views.append(prime_views(images, 2, context, with_clean=True))
    assert torch.equal(*views)


def test_one_view_is_the_first_of_two():
    images, context = small_images(), make_context(indices=INDICES)
    pair, _ = add_prime_views(images, LABELS, context)
    one, _ = replace_by_prime_view(images, LABELS, context)
    assert torch.equal(one, pair.chunk(3)[1])


def test_the_epoch_changes_the_draws_and_the_seed_too_but_no_generator_does():
    images, state = small_images(), torch.get_rng_state()
    first, _ = add_prime_views(images, LABELS, make_context(indices=INDICES, epoch=0))
    torch.set_rng_state(torch.Generator().manual_seed(7).get_state())
    assert torch.equal(first, add_prime_views(images, LABELS, make_context(indices=INDICES, epoch=0))[0])
    torch.set_rng_state(state)
    for other in (make_context(indices=INDICES, epoch=1), make_context("--train.seed", "1", indices=INDICES, epoch=0)):
        views, _ = add_prime_views(images, LABELS, other)
        assert not any(torch.equal(a, b) for a, b in zip(views[4:], first[4:], strict=True))


def test_a_value_outside_0_to_1_is_clipped_first():
    images, context = small_images() * 1.5 - 0.25, make_context(indices=INDICES)
    clipped = images.clamp(0, 1)
    assert torch.equal(
        prime_views(images, 1, context, with_clean=False), prime_views(clipped, 1, context, with_clean=False)
    )
    settings = draw_settings(context, *SIZE)
    expected = views_in_torch(clipped, 1, context.indices, settings)
    assert torch.equal(views_in_torch(images, 1, context.indices, settings), expected)


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("official", [False, True])
def test_only_the_official_form_shares_displacements_and_moves_by_a_pixel(official, engine):
    """The same image 40 times; chains of one primitive, filters of the delta alone, and curves that bend nothing."""
    images = random_images(1).repeat(40, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    options = ["--prime.filter_std", "0", "--prime.color_variance", "0", "--prime.official", str(official).lower()]
    options += ["--augment.mixture_depth", "1", "--augment.mixture_width", "1"]
    context = make_context(*options, indices=np.arange(40))
    plan, settings = plan_of(context)
    if engine == "torch":
        views = views_in_torch(images, 1, context.indices, settings)
    else:
        views = prime_views(images, 1, context, with_clean=False)
    changes = (views - images).double() / torch.from_numpy(plan.mix_weight[0])[:, None, None, None]
    displaced, filtered = (changes[plan.primitives[0].ravel() == primitive] for primitive in (0, 2))
    assert min(len(displaced), len(filtered)) > 5
    assert all(torch.allclose(change, displaced[0], atol=1e-4) for change in displaced[1:]) == official
    moved = torch.zeros_like(images[0])
    moved[:, :-1, :-1] = images[0, :, 1:, 1:]
    expected = moved - images[0] if official else torch.zeros_like(moved)
    assert all(torch.allclose(change, expected.double(), atol=1e-4) for change in filtered)


@pytest.mark.parametrize("seed", range(3))
def test_prime_is_cross_entropy_and_the_divergence_of_three_views(seed):
    generator = torch.Generator().manual_seed(seed)
    views = [3 * torch.randn(len(LABELS), 10, generator=generator) for _ in range(3)]
    cross_entropy = divergence = 0.0
    for i, label in enumerate(LABELS.tolist()):
        rows = [softmax_row(view[i].tolist()) for view in views]
        mixture = [sum(column) / 3 for column in zip(*rows, strict=True)]
        cross_entropy -= math.log(rows[0][label]) / len(LABELS)
        divergence += sum(kl_row(row, mixture) for row in rows) / 3 / len(LABELS)
    clean, *augmented = views
    loss, parts = get_method("prime").loss(
        LogitViews(clean, augmented=tuple(augmented)), LABELS, LossConfig(jsd_weight=5)
    )
    assert loss.item() == pytest.approx(cross_entropy + 5 * divergence, rel=1e-5)
    assert parts["jensen_shannon"].item() == pytest.approx(divergence, rel=1e-5)
    loss, _ = get_method("prime_no_jsd").loss(LogitViews(clean), LABELS, LossConfig())
    assert loss.item() == pytest.approx(cross_entropy, rel=1e-5)
