"""Partners: another training image for each image, drawn from all of them, whatever the batch."""

import dataclasses

import numpy as np
import pytest
import torch

from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import DataConfig
from fastmagn.data import ImagePart, load_data, load_images, split_validation
from fastmagn.data.array_source import ArraySource
from fastmagn.data.folder_source import FolderSource
from fastmagn.data.source import Batch, DeviceSource
from fastmagn.training.step import make_pieces
from tests.helpers.philox import philox_reference
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import start_run

SEED, EPOCH, STREAM_PARTNER = 2**40 + 3, 2, 14


@pytest.fixture(scope="module")
def part() -> ImagePart:
    return split_validation(load_images("digits", "."), 300, SEED)[0]


def expected_row(index: int, num_images: int, k: int = 0) -> int:
    word = philox_reference([0, STREAM_PARTNER << 24, index, EPOCH], [SEED & 0xFFFFFFFF, SEED >> 32])[k]
    return word * num_images // 2**32


def batches(
    part: ImagePart,
    kind: type = DeviceSource,
    batch_size: int = 64,
    share: slice | None = None,
    num_partners: int = 1,
) -> list[Batch]:
    source = kind(part, batch_size=batch_size, seed=SEED, device="cpu", share=share, num_partners=num_partners)
    return list(source.batches(EPOCH))


def test_a_partner_is_the_image_that_the_sample_draws(part):
    rows_of = {int(index): row for row, index in enumerate(part.indices)}
    for batch in batches(part)[:3]:
        rows = [expected_row(int(index), len(part.indices)) for index in batch.indices]
        assert batch.partners.indices.tolist() == part.indices[rows].tolist()
        for image, row in zip(batch.partners.images, rows, strict=True):
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), part.images_u8[row])
        assert all(rows_of[int(index)] == row for index, row in zip(batch.partners.indices, rows, strict=True))


@pytest.mark.parametrize("kind", [DeviceSource, ArraySource])
def test_the_second_partner_has_the_next_word(part, kind):
    """The first ones are those of a batch with one partner; they come first, also in pieces of the batch."""
    for batch, with_one in list(zip(batches(part, kind, num_partners=2), batches(part, kind), strict=True))[:3]:
        firsts, seconds = np.split(batch.partners.indices, 2)
        rows = [expected_row(int(index), len(part.indices), 1) for index in batch.indices]
        assert firsts.tolist() == with_one.partners.indices.tolist()
        assert seconds.tolist() == part.indices[rows].tolist()
        for image, row in zip(batch.partners.images[64:], rows, strict=True):
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), part.images_u8[row])
        pieces = [piece.partners for piece in batch.pieces(4)]
        for k, all_indices in enumerate((firsts, seconds)):
            assert np.concatenate([piece.indices[16 * k : 16 * (k + 1)] for piece in pieces]).tolist() == (
                all_indices.tolist()
            )
            images = torch.cat([piece.images[16 * k : 16 * (k + 1)] for piece in pieces])
            assert torch.equal(images, batch.partners.images[64 * k : 64 * (k + 1)])


def partners_of(found: list[Batch]) -> dict[int, int]:
    return {
        int(index): int(partner)
        for batch in found
        for index, partner in zip(batch.indices, batch.partners.indices, strict=True)
    }


def test_neither_the_batch_nor_the_share_changes_a_partner(part):
    whole = partners_of(batches(part))
    halves = [partners_of(batches(part, share=share)) for share in (slice(0, 32), slice(32, 64))]
    assert halves[0] | halves[1] == whole
    small_batches = partners_of(batches(part, batch_size=16))
    assert all(small_batches[index] == partner for index, partner in whole.items())


def test_images_and_labels_are_those_without_partners(part):
    plain = DeviceSource(part, batch_size=64, seed=SEED, device="cpu")
    for batch, alone in zip(batches(part), plain.batches(EPOCH), strict=True):
        assert torch.equal(batch.images, alone.images)
        assert torch.equal(batch.labels, alone.labels)
        assert alone.partners is None


def test_every_source_gives_the_same_partners(part):
    for batch, other in zip(batches(part), batches(part, ArraySource), strict=True):
        assert torch.equal(batch.partners.images, other.partners.images)
        assert batch.partners.indices.tolist() == other.partners.indices.tolist()


def test_pieces_keep_their_partners(part):
    batch = batches(part)[0]
    pieces = batch.pieces(4)
    assert torch.equal(torch.cat([piece.partners.images for piece in pieces]), batch.partners.images)
    assert np.concatenate([piece.partners.indices for piece in pieces]).tolist() == batch.partners.indices.tolist()


def test_all_images_are_drawn_alike(part):
    drawn = [partner for epoch in range(40) for partner in _partners_of_epoch(part, epoch)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == len(part.indices)
    mean = len(drawn) / len(part.indices)
    assert abs(counts.var() / mean - 1) < 0.2  # a multinomial's: nearly Poisson's


def _partners_of_epoch(part: ImagePart, epoch: int) -> list[int]:
    source = DeviceSource(part, batch_size=64, seed=SEED, device="cpu", num_partners=1)
    return [int(index) for batch in source.batches(epoch) for index in batch.partners.indices]


def test_a_method_gets_the_partner_as_it_is_at_its_own_turn(tmp_path):
    """The partner's view is the clean view of its own index in this epoch."""
    run = start_run(small(tmp_path, "--method", "standard", "--train.batch_size", "16"))
    method = dataclasses.replace(run.main_stage.method, num_partners=1)
    run = dataclasses.replace(
        run,
        main_stage=dataclasses.replace(run.main_stage, method=method),
        source=DeviceSource(
            split_validation(run.image_set, 0, 0)[0], batch_size=16, seed=0, device="cpu", num_partners=1
        ),
    )
    batch = next(run.source.batches(1))
    (piece,) = make_pieces(run, batch, 1)
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    for n, index in enumerate(batch.partners.indices):
        image = torch.from_numpy(np.array(run.image_set.train_images_u8[index])).permute(2, 0, 1)[None]
        params = sample_view_params(0, 1, np.array([index]), spec, run.config.augment, run.image_size)
        assert torch.equal(piece.partners[n], make_views(image, params)[0])
    assert any(piece.partners is tensor for tensor in piece.tensors())


def test_partners_of_files_are_the_crops_of_their_own_turn(photo_folder):
    data = DataConfig(name="folder", dir=photo_folder, image_size=48, source="pillow", num_workers=2)
    photo_part = split_validation(load_data(data), 0, SEED)[0]
    source = FolderSource(photo_part, batch_size=8, seed=SEED, device="cpu", num_partners=1)
    plain = FolderSource(photo_part, batch_size=1, seed=SEED, device="cpu")
    crops = {int(batch.indices[0]): batch.images[0] for batch in plain.batches(EPOCH)}
    for batch in source.batches(EPOCH):
        assert len(batch.labels) == len(batch.images) == len(batch.partners.images) == 8
        for image, index in zip(batch.images, batch.indices, strict=True):
            assert torch.equal(image, crops[int(index)])
        for image, index in zip(batch.partners.images, batch.partners.indices, strict=True):
            assert torch.equal(image, crops[int(index)])
