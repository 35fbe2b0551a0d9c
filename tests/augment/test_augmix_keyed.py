"""AugMix's keyed form: views by sample and epoch, whoever computes them."""

import numpy as np
import pytest
import torch

from fastmagn import AugMix
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn_kernels.augmix_cpu.images import change_images
from tests.helpers.views import as_tensor

INDICES = np.array([7, 0, 1, 2, 3, 49_999, 2**32 - 1, 4, 5, 6, 8, 9, 10, 11])


def test_keyed_views_are_the_trainers(pictures):
    """The first AugMix view of a run, by Pillow, without the base transforms."""
    images = as_tensor(pictures(20, 33))
    augment = AugmentConfig(aug_severity=10, random_aug_severity=True)
    spec = ViewSpec(num_augmix_views=2, num_noise_views=1)
    params = identity_base(sample_view_params(2**63 + 5, 7, INDICES, spec, augment, (20, 33)))
    _, expected, second, _ = make_views(images, params, "pil").chunk(4)
    augmix = AugMix(aug_severity=10, random_aug_severity=True, seed=2**63 + 5)
    made = augmix(images / 255, indices=INDICES, epoch=7)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    assert not torch.equal(made, second)


def test_read_only_indices_compile_nothing_anew(pictures):
    """As those of a mapped file."""
    images, read_only = as_tensor(pictures(20, 33)), INDICES.copy()
    read_only.flags.writeable = False
    augmix = AugMix(seed=3)
    expected = augmix(images, indices=INDICES, epoch=1)
    compiled_for = list(change_images.signatures)
    assert torch.equal(augmix(images, indices=read_only, epoch=1), expected)
    assert change_images.signatures == compiled_for


def test_batches_order_and_calls_before_do_not_matter(pictures):
    images = as_tensor(pictures(20, 33))
    augmix = AugMix(seed=3)
    whole = augmix(images, indices=INDICES, epoch=1)
    augmix(images)
    assert torch.equal(augmix(images, indices=torch.from_numpy(INDICES), epoch=1), whole)
    order = np.random.default_rng(0).permutation(14)
    assert torch.equal(augmix(images[order], indices=INDICES[order].tolist(), epoch=1), whole[order])
    for row in range(14):
        assert torch.equal(augmix(images[row], indices=INDICES[row], epoch=1), whole[row])
        assert torch.equal(augmix(images[row : row + 1], indices=[INDICES[row]], epoch=1), whole[row : row + 1])
    assert not torch.equal(augmix(images, indices=INDICES, epoch=2), whole)
    assert not torch.equal(AugMix(seed=4)(images, indices=INDICES, epoch=1), whole)


def test_keyed_calls_take_nothing_from_the_generator(pictures):
    images = as_tensor(pictures(20, 33))
    generator = torch.Generator().manual_seed(5)
    augmix = AugMix(seed=generator)
    state = generator.get_state()
    keyed = augmix(images, indices=INDICES, epoch=1)
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(AugMix(seed=5)(images, indices=INDICES, epoch=1), keyed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": [0, 1]}, "epoch: got None; expected indices and epoch, both or neither."),
        ({"epoch": 3}, "epoch: got 3; expected indices and epoch, both or neither."),
        ({"indices": [0, 1, 2], "epoch": 0}, "indices: got '3 integers'; expected 2, one for each image."),
        ({"indices": 7, "epoch": 0}, "indices: got '1 integers'; expected 2, one for each image."),
        (
            {"indices": ["a", "b"], "epoch": 0},
            "indices: got '<U1 [2]'; expected integers [B], the sample's number each.",
        ),
        (
            {"indices": [1, [2]], "epoch": 0},
            "indices: got a list that is not an array (setting an array element with a sequence. The requested array"
            " has an inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous part.).",
        ),
        (
            {"indices": torch.ones(2, dtype=torch.bfloat16), "epoch": 0},
            "indices: got a Tensor that is not an array (Got unsupported ScalarType BFloat16).",
        ),
        (
            {"indices": torch.ones(2, requires_grad=True), "epoch": 0},
            "indices: got 'float32 [2]'; expected integers [B], the sample's number each.",
        ),
        (
            {"indices": [None, 1], "epoch": 0},
            "indices: got 'object [2]'; expected integers [B], the sample's number each.",
        ),
        ({"indices": [0, 1], "epoch": 1.5}, "epoch: got 1.5; expected an integer in 0..2^32 - 1."),
        ({"indices": [0, 1], "epoch": "1"}, "epoch: got '1'; expected an integer in 0..2^32 - 1."),
        ({"indices": [0, 1], "epoch": True}, "epoch: got True; expected an integer in 0..2^32 - 1."),
        (
            {"indices": [0.0, 1.0], "epoch": 0},
            "indices: got 'float64 [2]'; expected integers [B], the sample's number each.",
        ),
        ({"indices": [0, -1], "epoch": 0}, "indices: got '-1..0'; expected 0..2^32 - 1."),
        ({"indices": [0, 1], "epoch": -1}, "epoch: got -1; expected an integer in 0..2^32 - 1."),
    ],
)
def test_other_keys_are_refused(arguments, message):
    with pytest.raises(InputError) as error:
        AugMix()(torch.zeros(2, 3, 8, 8), **arguments)
    assert str(error.value) == message


def test_keys_are_integers_of_any_kind(pictures):
    images = as_tensor(pictures(20, 33))[:4]
    augmix = AugMix(seed=3)
    expected = augmix(images, indices=[9, 8, 7, 6], epoch=1)
    kinds = [
        torch.tensor([9, 8, 7, 6], dtype=torch.uint8),
        torch.tensor([[9], [8], [7], [6]]),
        np.array([6, 7, 8, 9], np.uint64)[::-1],
        range(9, 5, -1),
        tuple(np.arange(9, 5, -1, dtype=np.int16)),
    ]
    for indices in kinds:
        for epoch in (1, np.uint8(1), torch.tensor(1)):
            assert torch.equal(augmix(images, indices=indices, epoch=epoch), expected)
    assert torch.equal(AugMix(seed=torch.tensor(3))(images, indices=kinds[0], epoch=1), expected)
    assert augmix(images[:0], indices=[], epoch=1).shape == (0, 3, 20, 33)
