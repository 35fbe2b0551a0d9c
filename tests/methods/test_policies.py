"""AutoAugment and TrivialAugment against torchvision's own call with the same seed."""

import pytest
import torch
from torchvision.transforms import v2

from fastmagn.methods.policies import autoaugment, trivialaugment
from fastmagn_kernels.random.rng import STREAM_POLICY
from tests.helpers.steps import make_context, random_images, reference_words

INDICES = [*range(20), 2**32 - 1]
LABELS = torch.arange(len(INDICES)) % 10
PREPARES = {
    autoaugment: lambda image: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)(image),
    trivialaugment: lambda image: v2.TrivialAugmentWide()(image),
}


@pytest.mark.parametrize("prepare", PREPARES)
def test_policies_equal_torchvision_with_the_samples_seed(prepare):
    context = make_context(indices=INDICES)
    images = random_images(len(INDICES))
    state = torch.random.get_rng_state()
    out, labels = prepare(images, LABELS, context)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(labels, LABELS)
    assert not torch.equal(out, images)
    for i, index in enumerate(INDICES):
        low, high, _, _ = reference_words(context, 0, STREAM_POLICY, index)
        torch.manual_seed(high * 2**32 + low)
        expected = PREPARES[prepare]((images[i] * 255).round().to(torch.uint8))
        assert torch.equal((out[i] * 255).round().to(torch.uint8), expected)
        assert torch.equal(out[i], expected / 255)


@pytest.mark.parametrize("prepare", PREPARES)
def test_policies_depend_on_the_sample_and_the_epoch_alone(prepare):
    images = random_images(1).expand(len(INDICES), -1, -1, -1)
    whole, _ = prepare(images, LABELS, make_context(indices=INDICES))
    assert len({image.numpy().tobytes() for image in whole}) > len(INDICES) // 2
    for i, index in enumerate(INDICES):
        one, _ = prepare(images[:1], LABELS[:1], make_context(indices=[index]))
        assert torch.equal(one[0], whole[i])
    other, _ = prepare(images, LABELS, make_context(indices=INDICES, epoch=4))
    assert not torch.equal(other, whole)
