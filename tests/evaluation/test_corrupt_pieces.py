"""A -C set is made piece by piece: the same files whatever the pieces, and no more memory for more images."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmagn.corruptions import corrupt
from fastmagn.corruptions.sets import CIFAR_CBAR
from fastmagn.data import load_folder_images
from fastmagn.data.files import decoded_once
from fastmagn.evaluation import corrupted_set
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import make_corrupted_set, verify_corrupted_set
from tests.helpers.photo_folders import make_photo_folder

SIDE = 32


def in_pieces(monkeypatch: pytest.MonkeyPatch, num_images: int) -> None:
    """Decode and corrupt so many images at a time."""
    monkeypatch.setattr(decoded_once, "rows_within", lambda images: num_images)
    monkeypatch.setattr(corrupted_set, "_CHUNK_BYTES", num_images * SIDE * SIDE * 3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def arrays(folder: Path) -> Path:
    """9 grey images of 28 px, which are padded and repeated when they are read."""
    generator = np.random.default_rng(0)
    parts = {f"{split}_images": generator.integers(0, 256, (9, 28, 28), np.uint8) for split in ("train", "test")}
    np.savez(folder / "arrays.npz", **parts, train_labels=np.arange(9) % 3, test_labels=np.arange(9) % 3)
    return folder / "arrays.npz"


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_pieces_of_any_size_give_the_same_files(tmp_path, monkeypatch, name):
    made_of = make_photo_folder(tmp_path / "photos", 3, 9) if name == "folder" else arrays(tmp_path)
    size = {"image_size": SIDE} if name == "folder" else {}
    sets = []
    for pieces in (1, 4, 100):
        in_pieces(monkeypatch, pieces)
        out = tmp_path / f"c{pieces}"
        config = CorruptConfig(out=out, dataset=name, data_dir=made_of, num_images=7, corruption_set="cbar", **size)
        make_corrupted_set(config)
        assert verify_corrupted_set(config) == []
        sets.append(contents(out))
    assert sets[0] == sets[1] == sets[2]
    assert "manifest.json" in sets[0]
    if name == "folder":
        images_u8, labels, _ = load_folder_images(made_of, SIDE, num_images=7, resize_px=37)
        stored = np.load(tmp_path / "c4" / f"{CIFAR_CBAR[0]}.npy")[7:14]
        each = [corrupt(images_u8[[i]], CIFAR_CBAR[0], 2, indices=np.array([k]))[0] for i in range(7) for k in range(9)]
        assert all(any(np.array_equal(image, one) for one in each) for image in stored)
        assert np.load(tmp_path / "c4" / "labels.npy")[:7].tolist() == labels.tolist()


def peak_bytes(tmp_path: Path, count: int) -> int:
    """What making a set of `count` files takes in memory at most, corruptions apart."""
    folder = tmp_path / f"photos{count}" / "a"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for row in range(count):
        Image.fromarray(pixels).save(folder / f"{row}.png")
    options = {"dataset": "folder", "data_dir": folder.parent, "image_size": SIDE, "corruption_set": "cbar"}
    config = CorruptConfig(out=tmp_path / f"c{count}", **options)
    source = corrupted_set.load_source_images(config)
    tracemalloc.start()
    make_corrupted_set(config, source=source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    """160 images more are 480 KB decoded; their names, labels and chunks' bookkeeping take a few dozen."""
    in_pieces(monkeypatch, 4)
    monkeypatch.setattr(corrupted_set, "corrupt", lambda images_u8, name, severity, **options: images_u8.copy())
    peak_bytes(tmp_path, 5)
    few, many = peak_bytes(tmp_path, 40), peak_bytes(tmp_path, 200)
    assert many - few < 160 * SIDE * SIDE * 3 / 3


def test_a_broken_image_is_grey_and_counted_once(tmp_path, monkeypatch):
    photos = make_photo_folder(tmp_path / "photos", 3, 9)
    in_pieces(monkeypatch, 2)
    config = CorruptConfig(
        out=tmp_path / "c", dataset="folder", data_dir=photos, image_size=SIDE, corruption_set="cbar"
    )
    source = corrupted_set.load_source_images(config)
    for path in sorted((photos / "val").rglob("*.jpg"))[2:8:5]:
        path.write_bytes(path.read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"2 images cannot be decoded, .* mid-grey stands in for them") as told:
        make_corrupted_set(config, source=source)
    assert sum("cannot be decoded" in str(each.message) for each in told) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "photos"]
