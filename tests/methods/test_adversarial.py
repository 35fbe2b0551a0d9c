"""PGD against a plain loop in float64, its constraints, and what it must leave alone."""

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastmagn.config.schema import AttackConfig
from fastmagn.methods.adversarial import attack_labels, attack_predictions, pgd
from fastmagn.methods.context import StepContext
from fastmagn_kernels.random.rng import STREAM_ATTACK
from tests.helpers.steps import make_context, random_images, reference_words

LABELS = torch.tensor([0, 3, 9, 1])
INDICES = [5, 0, 49_999, 17]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10)
    )


def double_context(*arguments: str) -> StepContext:
    """A step whose model is float64, so that no gradient's sign hangs on rounding."""
    context = make_context(*arguments, indices=INDICES, network=small_network())
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    context.model(images)  # running statistics other than 0 and 1
    context.model.double()
    return context


def plain_pgd(model: nn.Module, images: Tensor, delta: Tensor, epsilon: float, steps: int, distance) -> Tensor:
    """The textbook's loop over delta, projected onto the ball and then onto the pixels' range."""
    model = copy.deepcopy(model).eval()
    delta = delta.clamp(-epsilon, epsilon)
    delta = (images + delta).clamp(0, 1) - images
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        distance(model(images + delta)).backward()
        delta = (delta + 2.5 * epsilon / steps * delta.grad.sign()).detach()
        delta = delta.clamp(-epsilon, epsilon)
        delta = (images + delta).clamp(0, 1) - images
    return images + delta


@pytest.mark.parametrize("random_start", [True, False])
def test_at_equals_a_plain_loop(random_start):
    context = double_context("--method", "at", "--attack.random_start", str(random_start))
    images = random_images(4, 8).double()
    epsilon = 8 / 255
    adversarial, labels = attack_labels(images, LABELS, context)
    assert torch.equal(labels, LABELS)
    start = torch.zeros_like(images)
    if random_start:
        start = epsilon * (2 * context.uniforms_like(images, STREAM_ATTACK) - 1)
    expected = plain_pgd(
        context.model, images, start, epsilon, 7, lambda z: -z.log_softmax(1)[torch.arange(4), LABELS].sum()
    )
    torch.testing.assert_close(adversarial, expected, atol=1e-5, rtol=0)
    assert (adversarial - images).abs().amax(dim=(1, 2, 3)).min() > 0.99 * epsilon


def test_trades_equals_a_plain_loop():
    context = double_context("--method", "trades", "--attack.epsilon", "0.05", "--attack.steps", "4")
    images = random_images(4, 8).double()
    both, labels = attack_predictions(images, LABELS, context)
    assert torch.equal(labels, LABELS)
    assert torch.equal(both[:4], images)
    p = copy.deepcopy(context.model).eval()(images).softmax(1).detach()
    expected = plain_pgd(
        context.model,
        images,
        1e-3 * context.normals_like(images, STREAM_ATTACK),
        0.05,
        4,
        lambda z: (p * (p.log() - z.log_softmax(1))).sum(),
    )
    torch.testing.assert_close(both[4:], expected, atol=1e-5, rtol=0)


def test_the_starting_point_is_the_samples_own():
    context = make_context(indices=INDICES, network=small_network(), epoch=2)
    images = random_images(4, 2)
    uniforms = context.uniforms_like(images, STREAM_ATTACK)
    for row, index in zip(uniforms, INDICES, strict=True):
        words = itertools.chain(*(reference_words(context, block, STREAM_ATTACK, index) for block in range(3)))
        expected = np.array([(word >> 8) / 2**24 for word in words], np.float32).reshape(2, 2, 3)
        np.testing.assert_array_equal(row.permute(1, 2, 0).numpy(), expected)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(1, 5), st.floats(0.1, 20), st.integers(0, 2**32 - 1))
def test_every_adversarial_image_is_near_and_valid(epsilon, steps, step_scale, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 8, 8, generator=generator).round(decimals=1)
    start = images + torch.randn(2, 3, 8, 8, generator=generator)
    network = small_network().eval()
    attack = AttackConfig(epsilon=epsilon, steps=steps, step_scale=step_scale)
    adversarial = pgd(network, lambda logits: logits[:, 0].sum(), images, start, attack)
    assert not adversarial.requires_grad
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (adversarial - images).abs().max() <= epsilon + 1e-6


@pytest.mark.parametrize(("method", "prepare"), [("at", attack_labels), ("trades", attack_predictions)])
@pytest.mark.parametrize("amp", ["float32", "bf16"])
def test_the_attack_leaves_model_and_generators_alone(method, prepare, amp):
    context = make_context("--method", method, "--train.amp", amp, indices=INDICES)
    model, images = context.model, random_images(4)
    before = copy.deepcopy(model.state_dict())
    gradient = torch.full_like(model.network.head.weight, 7.0)
    model.network.head.weight.grad = gradient.clone()
    generator = torch.random.get_rng_state()
    views, _ = prepare(images, LABELS, context)
    assert views.dtype == torch.float32
    assert (views[-4:] - images).abs().max() <= 8 / 255 + 1e-6
    assert (views[-4:] != images).any()
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(model.network.head.weight.grad, gradient)
    assert all(parameter.grad is None for parameter in model.network.blocks.parameters())
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_the_attack_raises_the_loss_it_attacks():
    context = double_context("--method", "at")
    images = random_images(4, 8).double()
    model = copy.deepcopy(context.model).eval()
    losses = [
        nn.functional.cross_entropy(model(x), LABELS, reduction="none")
        for x in (images, attack_labels(images, LABELS, context)[0])
    ]
    assert (losses[1] > losses[0]).all()


@pytest.mark.parametrize("prepare", [attack_labels, attack_predictions])
def test_an_attack_does_not_depend_on_the_batch(prepare):
    context = double_context()
    images = random_images(4, 8).double()
    whole, _ = prepare(images, LABELS, context)
    for i in range(4):
        alone = StepContext(**{**vars(context), "indices": context.indices[i : i + 1]})
        one, _ = prepare(images[i : i + 1], LABELS[i : i + 1], alone)
        torch.testing.assert_close(one[-1], whole[-4:][i], atol=1e-9, rtol=0)


@pytest.mark.parametrize("margin", [8.0, 14.0])
def test_an_attack_in_float16_moves_images_that_the_model_is_sure_of(margin):
    """The probability is about 1 - 9 exp(-margin). The gradient of its logarithm underflows in float16."""
    network, images, labels = small_network().eval(), random_images(8, 8), torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        network[-1].bias[0] += margin
    start, attack = images.clamp(0.1, 0.9), AttackConfig(steps=1)
    loss = functools.partial(nn.functional.cross_entropy, target=labels, reduction="sum")
    moved = []
    for dtype in (torch.float32, torch.float16):

        def logits_of(batch, dtype=dtype):
            with torch.autocast("cpu", torch.float16, enabled=dtype == torch.float16):
                return network(batch)

        moved.append(pgd(logits_of, loss, start, start, attack, in_float16=dtype == torch.float16) - start)
    assert (moved[1] != 0).float().mean() > 0.99
    assert (moved[0].sign() == moved[1].sign()).float().mean() > 0.97
