"""Batches from folders of photographs: which image, which crop, which pixels, by Pillow and by DALI."""

import sys
import threading
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from fastmagn.config.schema import DataConfig
from fastmagn.data import FolderSource, folder_source, load_data, make_source, split_validation
from fastmagn.data.files import crops
from fastmagn.data.files.crops import has_dali
from fastmagn.errors import InputError
from fastmagn_kernels.random import rng
from tests.helpers.photo_folders import SIZES, enlarged, small_pictures

SIDE, BATCH, SEED = 48, 12, 7
needs_dali = pytest.mark.skipif(not has_dali(), reason="NVIDIA DALI is not installed")
SOURCES = ["pillow", pytest.param("dali", marks=needs_dali)]
# Levels, of DALI's crops against Pillow's: on the CPU both decode by libjpeg-turbo, and are equal for all samplings.
CPU_TOLERANCE = 0
# On a GPU another decoder and another resize: a bound on the mean that tells a wrong box or colour, not a measurement.
GPU_MEAN_TOLERANCE = 2.0


def make(
    folder: Path, source: str = "pillow", share: slice | None = None, batch: int = BATCH, device: str = "cpu"
) -> FolderSource:
    image_set = load_data(DataConfig(name="folder", dir=folder, image_size=SIDE, source=source, num_workers=2))
    part, _ = split_validation(image_set, 0, SEED)
    share = share or slice(0, batch)
    return make_source(part, batch_size=batch, seed=SEED, device=torch.device(device), share=share)


def collected(batches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, labels and images of all batches."""
    parts = [(batch.indices, batch.labels.numpy(), batch.images.numpy()) for batch in batches]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("source", SOURCES)
def test_pixels_are_torchvisions_of_the_same_boxes(photo_folder, source):
    """Independent: decoded by Pillow, cropped and resized by torchvision's resized_crop."""
    batches = make(photo_folder, source)
    files = batches._files
    largest = 0
    for batch in batches.batches(epoch=1):
        assert batch.images.shape == (BATCH, 3, SIDE, SIDE)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        boxes = batches.boxes(batch.indices, 1).tolist()
        for index, box, label, pixels in zip(batch.indices, boxes, batch.labels, batch.images, strict=True):
            with Image.open(files.item(index)) as image:
                expected = functional.resized_crop(image.convert("RGB"), *box, [SIDE, SIDE])
            assert Path(files.item(index)).parent.name == ("ape", "bee", "cat")[label]
            difference = np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected))
            largest = max(largest, difference.max())
    assert largest <= (CPU_TOLERANCE if source == "dali" else 0)


@needs_dali
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_decodes_the_same_crops(photo_folder):
    on_gpu, on_cpu = (make(photo_folder, "dali", device=device).batches(0) for device in ("cuda", "cpu"))
    for made, expected in zip(on_gpu, on_cpu, strict=True):
        assert made.images.device.type == made.labels.device.type == "cuda"
        np.testing.assert_array_equal(made.indices, expected.indices)
        difference = (made.images.cpu().int() - expected.images.int()).abs().float()
        assert difference.mean(dim=(1, 2, 3)).max() <= GPU_MEAN_TOLERANCE


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_each_index_once_an_epoch_whatever_the_shards(photo_folder, source, num_shards):
    whole = make(photo_folder, source)
    indices, labels, images = collected(whole.batches(0))
    assert indices.tolist() == rng.permutation(104, SEED, 0)[:96].tolist()  # the last 8 are no full batch
    assert len(set(indices)) == 96
    size = BATCH // num_shards
    shards = [make(photo_folder, source, slice(i * size, (i + 1) * size)) for i in range(num_shards)]
    for together in zip(*(shard.batches(0) for shard in shards), strict=True):
        here, indices = indices[:BATCH], indices[BATCH:]
        part_indices, part_labels, part_images = collected(together)
        np.testing.assert_array_equal(part_indices, here)
        np.testing.assert_array_equal(part_labels, labels[:BATCH])
        np.testing.assert_array_equal(part_images, images[:BATCH])
        labels, images = labels[BATCH:], images[BATCH:]
    assert len(indices) == 0


@pytest.mark.parametrize("source", SOURCES)
def test_an_epoch_goes_on_anywhere_and_epochs_differ(photo_folder, source):
    batches = make(photo_folder, source)
    assert batches.steps_per_epoch == 8
    first = collected(batches.batches(2))
    for whole, tail in zip(first, collected(batches.batches(2, start_step=5)), strict=True):
        np.testing.assert_array_equal(tail, whole[5 * BATCH :])
    assert list(batches.batches(2, start_step=8)) == []
    other = make(photo_folder, source, batch=8)
    rows = {index: image for index, _, image in zip(*collected(other.batches(2)), strict=True)}
    for index, _, image in zip(*first, strict=True):  # neither does a crop depend on the batch
        np.testing.assert_array_equal(image, rows[index])
    indices, _, images = collected(batches.batches(3))
    assert indices.tolist() != first[0].tolist()
    again = {index: image for index, _, image in zip(*first, strict=True)}
    same = [np.array_equal(image, again[index]) for index, image in zip(indices, images, strict=True) if index in again]
    assert not any(same)


@pytest.mark.parametrize("source", SOURCES)
def test_leaving_an_epoch_early_leaves_nothing_behind(photo_folder, source):
    batches = make(photo_folder, source)
    for epoch in range(3):
        next(batches.batches(epoch))
    assert collected(batches.batches(0))[0].tolist() == rng.permutation(104, SEED, 0)[:96].tolist()


def mixed_folder(root: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """One image of each kind found on disks; each but the huge one as what it shows, uint8 [H, W, 3]."""
    kind = root / "train" / "kinds"
    kind.mkdir(parents=True)
    (root / "val" / "kinds").mkdir(parents=True)
    height, width = 60, 84
    rgb = enlarged(small_pictures(1)[0], height, width)
    image = Image.fromarray(rgb)
    image.save(root / "val" / "kinds" / "plain.jpg")
    image.save(kind / "plain.jpg", quality=95)
    image.convert("L").save(kind / "grey.jpg", quality=95)
    image.convert("CMYK").save(kind / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned a quarter to the left: to be turned right
    image.transpose(Image.Transpose.ROTATE_90).save(kind / "turned.jpg", quality=95, exif=exif)
    image.quantize(64).save(kind / "palette.png")
    deep = (rgb[..., 0].astype(np.uint16) << 8) | 77
    Image.fromarray(deep).save(kind / "deep.png")
    image.save(kind / "plain.webp", lossless=True)
    image.save(kind / "rgb.jpg", quality=95, keep_rgb=True)
    Image.fromarray(np.repeat(np.repeat(rgb, 40, 0), 40, 1)).save(kind / "huge.jpg", quality=80)
    (root / "train" / "others").mkdir()
    (root / "train" / "others" / "trailing.jpg").write_bytes((kind / "plain.jpg").read_bytes() + b"more bytes")
    grey = np.asarray(image.convert("L"))
    shown = dict.fromkeys(("plain.jpg", "cmyk.jpg", "turned.jpg", "plain.webp", "rgb.jpg", "trailing.jpg"), rgb)
    shown |= {"grey.jpg": np.dstack([grey] * 3), "deep.png": np.dstack([rgb[..., 0]] * 3)}
    return root, shown | {"palette.png": np.asarray(image.quantize(64).convert("RGB"))}


@needs_dali
def test_mixed_kinds_are_decoded_alike_by_both(tmp_path):
    folder, shown = mixed_folder(tmp_path)
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in ("pillow", "dali"):
            batches = make(folder, source, batch=10)
            (batch,) = batches.batches(0)
            made[source] = dict(zip(batch.indices.tolist(), batch.images.permute(0, 2, 3, 1).numpy(), strict=True))
    files = batches._files
    plain = {Path(name).name for name, is_plain in zip(files.names, files.is_plain, strict=True) if is_plain}
    assert plain == {"plain.jpg", "grey.jpg", "huge.jpg"}
    for index, pixels in made["dali"].items():
        name = Path(files.names[index]).name
        assert np.abs(pixels.astype(int) - made["pillow"][index]).max() <= CPU_TOLERANCE, name
        if name in shown:
            assert files.sizes[index].tolist() == [60, 84], name
            top, left, height, width = batches.boxes(np.array([index]), 0)[0]
            crop = Image.fromarray(shown[name][top : top + height, left : left + width])
            expected = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).astype(int)
            assert np.abs(pixels - expected).mean() < 4, name  # JPEG and CMYK lose some


@pytest.mark.parametrize("source", SOURCES)
def test_files_that_break_during_a_run_are_grey_and_counted(tmp_path, source):
    folder = tmp_path / "photos"
    for part in ("train", "val"):
        for i, picture in enumerate(small_pictures(12)):
            path = folder / part / "ab"[i // 6] / f"{i:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(enlarged(picture, *SIZES[0])).save(path)
    batches = make(folder, source, batch=6)
    whole = (folder / "train" / "a" / "03.jpg").read_bytes()
    (folder / "train" / "a" / "03.jpg").write_bytes(whole[:300])
    (folder / "train" / "a" / "05.jpg").unlink()
    (folder / "train" / "b" / "08.jpg").write_text("no picture")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        indices, _, images = collected(batches.batches(0))
    told = [str(warning.message) for warning in caught if "DALI cannot" not in str(warning.message)]
    assert len(told) == 1
    assert "3 images cannot be decoded, although their headers can be read; mid-grey stands in for them: " in told[0]
    assert sorted(indices) == list(range(12))
    is_grey = {index: bool((image == 128).all()) for index, image in zip(indices.tolist(), images, strict=True)}
    assert [index for index in range(12) if is_grey[index]] == [3, 5, 8]
    for path in (folder / "train").rglob("*.jpg"):
        path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=r"train: none of the 6 images of a batch can be read: .*No such file"):
            list(batches.batches(1))


@pytest.mark.parametrize("source", SOURCES)
def test_a_disk_that_does_not_answer_is_named(photo_folder, source, monkeypatch):
    release = threading.Event()
    batches = make(photo_folder, source)

    def hangs(*_):
        release.wait(20)

    monkeypatch.setattr(folder_source, "STALL_S", 0.2)
    monkeypatch.setattr(crops, "fill_crop", hangs)
    if source == "dali":
        from fastmagn.data.files import dali_crops

        monkeypatch.setattr(dali_crops, "_read", hangs)
    expected = r"train: no image for 0 s, waiting for .*\.jpg; expected a disk that answers\. The same command resumes"
    with pytest.raises(InputError, match=expected):
        next(batches.batches(0))
    release.set()


def test_decoding_goes_on_while_the_step_works(photo_folder, monkeypatch):
    decoded = []
    monkeypatch.setattr(crops, "fill_crop", lambda path, box, out: decoded.append(path))
    batches = make(photo_folder).batches(0)
    next(batches)
    deadline = time.monotonic() + 20
    while len(decoded) < 3 * BATCH and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(decoded) == 3 * BATCH  # the one that was asked for, and two more; no further


def test_without_dali(photo_folder, monkeypatch):
    monkeypatch.setattr(folder_source, "has_dali", lambda: False)
    monkeypatch.setattr(crops, "has_dali", lambda: False)
    assert make(photo_folder, "auto").description == "Pillow on 2 threads; DALI, which is faster, is not installed"
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "fastmagn.data.files.dali_crops", raising=False)
    with pytest.raises(InputError) as error:
        make(photo_folder, "dali")
    assert str(error.value) == (
        "data.source: got dali, which needs NVIDIA DALI; install 'fastmagn[dali]', or use auto or pillow."
    )


def test_a_dali_that_cannot_be_imported_is_a_warning_with_auto(photo_folder, monkeypatch):
    """As one that is installed, and whose libraries do not fit; where it is asked for, that is said too."""
    monkeypatch.setattr(folder_source, "has_dali", lambda: True)
    monkeypatch.setattr(crops, "has_dali", lambda: True)
    monkeypatch.setitem(sys.modules, "nvidia.dali", ModuleType("nvidia.dali"))
    monkeypatch.delitem(sys.modules, "fastmagn.data.files.dali_crops", raising=False)
    with pytest.warns(UserWarning, match="NVIDIA DALI cannot be used") as shown:
        assert make(photo_folder, "auto").description.startswith("Pillow on 2 threads")
    assert len(shown) == 1
    with pytest.raises(
        InputError, match=r"^data\.source: nvidia\.dali is installed, but cannot be used \(cannot import name"
    ):
        make(photo_folder, "dali")


def test_the_older_name_of_pillow_is_still_taken(photo_folder):
    old, new = (make(photo_folder, source) for source in ("torchvision", "pillow"))
    assert old.description == new.description == "Pillow on 2 threads"
    np.testing.assert_array_equal(next(old.batches(0)).images, next(new.batches(0)).images)


def test_auto_takes_dali_where_it_is(photo_folder):
    expected = "DALI on 2 threads" if find_spec("nvidia.dali") else "Pillow on 2 threads; DALI"
    assert make(photo_folder, "auto").description.startswith(expected)


def test_a_batch_larger_than_the_set_names_the_field(photo_folder):
    with pytest.raises(InputError, match=r"train\.batch_size: got 105; the training set has 104 images"):
        make(photo_folder, batch=105)


@pytest.mark.parametrize("source", SOURCES)
def test_memory_is_flat(photo_folder, source):
    batches = make(photo_folder, source)

    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    for epoch in range(6):
        collected(batches.batches(epoch))
    before = resident_mib()
    for epoch in range(25):  # 200 batches of 0.08 MiB; kept, they would be 16 MiB, as decoded files 40
        collected(batches.batches(epoch))
    assert resident_mib() - before < 6
