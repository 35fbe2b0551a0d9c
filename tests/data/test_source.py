"""The device source: order, coverage, resuming, layout; and the validation split."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastmagn.data import DeviceSource, ImagePart, ImageSet, split_validation
from fastmagn.errors import InputError
from fastmagn_kernels.random import rng

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def small_set(num_images: int) -> ImageSet:
    generator = np.random.default_rng(num_images)
    return ImageSet(
        name="small",
        class_names=("a", "b", "c"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        train_images_u8=generator.integers(0, 256, (num_images, 6, 5, 3), dtype=np.uint8),
        train_labels=generator.integers(0, 3, num_images),
        test_images_u8=np.zeros((1, 6, 5, 3), np.uint8),
        test_labels=np.zeros(1, np.int64),
    )


def whole(image_set: ImageSet) -> ImagePart:
    return split_validation(image_set, 0, seed=0)[0]


@pytest.mark.parametrize("device", DEVICES)
def test_batches_hold_the_images_that_their_indices_name(device):
    image_set = small_set(23)
    source = DeviceSource(whole(image_set), batch_size=5, seed=1, device=device)
    assert source.steps_per_epoch == 4
    batches = list(source.batches(epoch=2))
    assert len(batches) == 4
    for batch in batches:
        assert batch.images.shape == (5, 3, 6, 5)
        assert batch.images.dtype == torch.uint8
        assert batch.images.device.type == batch.labels.device.type == device
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert isinstance(batch.indices, np.ndarray)
        assert batch.indices.dtype == np.int64
        for i, index in enumerate(batch.indices.tolist()):
            expected = np.moveaxis(image_set.train_images_u8[index], 2, 0)
            np.testing.assert_array_equal(batch.images[i].cpu().numpy(), expected)
            assert int(batch.labels[i]) == image_set.train_labels[index]


@given(
    num_images=st.integers(1, 60),
    batch_size=st.integers(1, 60),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 2),
    data=st.data(),
)
def test_an_epoch_follows_the_permutation_and_resumes_at_any_step(num_images, batch_size, seed, epoch, data):
    batch_size = min(batch_size, num_images)
    source = DeviceSource(whole(small_set(num_images)), batch_size=batch_size, seed=seed, device="cpu")
    indices = [batch.indices.tolist() for batch in source.batches(epoch)]
    flat = sum(indices, [])  # noqa: RUF017
    kept = num_images // batch_size * batch_size
    assert flat == rng.permutation(num_images, seed, epoch)[:kept].tolist()
    assert len(set(flat)) == kept
    start_step = data.draw(st.integers(0, source.steps_per_epoch))
    assert [batch.indices.tolist() for batch in source.batches(epoch, start_step)] == indices[start_step:]


def test_every_image_comes_once_an_epoch_and_epochs_differ():
    source = DeviceSource(whole(small_set(48)), batch_size=8, seed=3, device="cpu")
    orders = [np.concatenate([batch.indices for batch in source.batches(epoch)]).tolist() for epoch in range(4)]
    assert all(sorted(order) == list(range(48)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_resumed_images_and_labels_are_the_same():
    source = DeviceSource(whole(small_set(40)), batch_size=8, seed=3, device="cpu")
    tail = list(source.batches(epoch=1))[3:]
    for batch, again in zip(tail, source.batches(epoch=1, start_step=3), strict=True):
        assert torch.equal(batch.images, again.images)
        assert torch.equal(batch.labels, again.labels)


def test_writing_to_a_batch_leaves_the_set_alone():
    image_set = small_set(16)
    before = image_set.train_images_u8.copy()
    source = DeviceSource(whole(image_set), batch_size=16, seed=0, device="cpu")
    next(source.batches(0)).images.zero_()
    np.testing.assert_array_equal(image_set.train_images_u8, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_batch_waits_for_the_device():
    source = DeviceSource(whole(small_set(64)), batch_size=8, seed=0, device="cuda")
    batches = source.batches(0)
    next(batches)  # moves the epoch's order
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(batches)) == 7
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_batch_larger_than_the_set_names_the_field():
    with pytest.raises(
        InputError, match=r"train\.batch_size: got 17; the training set has 16 images, .* expected 1\.\.16\."
    ):
        DeviceSource(whole(small_set(16)), batch_size=17, seed=0, device="cpu")
    with pytest.raises(InputError, match=r"train\.batch_size: got 0; expected 1 or more"):
        DeviceSource(whole(small_set(16)), batch_size=0, seed=0, device="cpu")


@given(num_images=st.integers(2, 50), seed=st.integers(0, 2**64 - 1), data=st.data())
def test_validation_split_parts_the_set_and_keeps_indices(num_images, seed, data):
    image_set = small_set(num_images)
    held_out = data.draw(st.integers(0, num_images - 1))
    train, validation = split_validation(image_set, held_out, seed)
    assert len(validation.labels) == held_out
    assert sorted([*train.indices, *validation.indices]) == list(range(num_images))
    assert set(validation.indices) == set(rng.permutation(num_images, seed, 2**32 - 1)[:held_out])
    for part in (train, validation):
        np.testing.assert_array_equal(part.images_u8, image_set.train_images_u8[part.indices])
        np.testing.assert_array_equal(part.labels, image_set.train_labels[part.indices])
        assert part.images_u8.flags.c_contiguous


def test_batches_of_a_split_name_samples_of_the_full_set():
    image_set = small_set(30)
    train, validation = split_validation(image_set, 10, seed=4)
    source = DeviceSource(train, batch_size=4, seed=4, device="cpu")
    seen = []
    for batch in source.batches(0):
        np.testing.assert_array_equal(batch.labels.numpy(), image_set.train_labels[batch.indices])
        images = np.moveaxis(image_set.train_images_u8[batch.indices], 3, 1)
        np.testing.assert_array_equal(batch.images.numpy(), images)
        seen += batch.indices.tolist()
    assert sorted(seen) == sorted(train.indices)
    assert not set(seen) & set(validation.indices)


@pytest.mark.parametrize("num_images", [-1, 30, 31])
def test_validation_must_leave_images_to_train_on(num_images):
    with pytest.raises(InputError, match=rf"data\.num_validation_images: got {num_images}; expected 0\.\.29\."):
        split_validation(small_set(30), num_images, seed=0)
