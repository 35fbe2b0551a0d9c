"""Arrays in .npz and .npy files, against numpy.load and numpy.pad; and what is said of files that cannot be used."""

import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmagn.data import DeviceSource, ImagePart, load_images, make_source, split_validation
from fastmagn.data.array_images import ArrayImages
from fastmagn.data.array_source import ArraySource
from fastmagn.errors import InputError
from tests.hostile.files import npy_header


def medmnist(side: int = 28, channels: tuple[int, ...] = (), count: int = 24) -> dict[str, np.ndarray]:
    """Arrays as in MedMNIST's files: random images, labels [N, 1] of four classes."""
    generator, arrays = np.random.default_rng(side), {}
    for split, size in (("train", count), ("val", 5), ("test", 9)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (size, side, side, *channels), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(size) * 3 % 4).astype(np.uint8)[:, None]
    return arrays


def expected(images: np.ndarray) -> np.ndarray:
    images = images.reshape(*images.shape[:3], -1)
    if images.shape[1] == 28:
        images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    return np.concatenate([images] * 3, axis=3) if images.shape[3] == 1 else images


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("side", [28, 32, 50])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_medmnists_layout(tmp_path, side, channels, save):
    arrays = medmnist(side, channels)
    save(tmp_path / "pathmnist.npz", **arrays)
    image_set = load_images("npz", tmp_path)
    for images_u8, labels, split in (
        (image_set.train_images_u8, image_set.train_labels, "train"),
        (image_set.test_images_u8, image_set.test_labels, "test"),
    ):
        np.testing.assert_array_equal(np.asarray(images_u8), expected(arrays[f"{split}_images"]))
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"][:, 0])
        assert labels.dtype == np.int64
        assert isinstance(images_u8.stored_u8, np.memmap) == (save is np.savez)
    assert image_set.class_names == ("0", "1", "2", "3")


def test_a_line_says_how_images_become_squares(tmp_path, capsys):
    np.savez(tmp_path / "m.npz", **medmnist())
    load_images("npz", tmp_path / "m.npz")
    assert capsys.readouterr().out == (
        f"{tmp_path}/m.npz: 24 training and 9 test images of grey 28x28 px, padded to 32x32 px by their edges; val is"
        " not used\n"
    )


def test_every_layout_gives_the_same_images(tmp_path):
    arrays = medmnist(32, (3,))
    del arrays["val_images"], arrays["val_labels"]
    keras = {
        f"{kind}_{split}": arrays[f"{split}_{name}"]
        for split in ("train", "test")
        for kind, name in (("x", "images"), ("y", "labels"))
    }
    folders = [tmp_path / name for name in ("medmnist", "keras", "splits", "npy", "val")]
    for folder in folders:
        folder.mkdir()
    np.savez(folders[0] / "any.npz", **arrays)
    np.savez(folders[1] / "mnist.npz", **keras)
    for split in ("train", "test"):
        np.savez(folders[2] / f"{split}.npz", images=arrays[f"{split}_images"], labels=arrays[f"{split}_labels"][:, 0])
    for name, array in arrays.items():
        np.save(folders[3] / f"{name}.npy", array)
    np.savez(folders[4] / "any.npz", **{name.replace("test", "val"): array for name, array in arrays.items()})
    sets = [load_images("npz", folder) for folder in folders]
    assert len({image_set.fingerprint for image_set in sets}) == 1
    for image_set in sets:
        np.testing.assert_array_equal(np.asarray(image_set.test_images_u8), arrays["test_images"])
        assert image_set.test_labels.tolist() == arrays["test_labels"][:, 0].tolist()


def test_class_names_lie_beside_the_arrays(tmp_path):
    names = np.array(["ape", "bee", "cat", "dog"])
    np.savez(tmp_path / "m.npz", **medmnist(), class_names=names)
    assert load_images("npz", tmp_path).class_names == tuple(names)
    npy = tmp_path / "npy"
    npy.mkdir()
    for name, array in medmnist().items():
        np.save(npy / f"{name}.npy", array)
    (npy / "class_names.txt").write_text("ape\nbee\ncat\ndog\n", "utf-8-sig")  # as Windows' editors write it
    assert load_images("npz", npy).class_names == tuple(names)


def test_images_that_are_not_square_are_padded(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 40, 51, 3), np.uint8)
    padded = np.pad(images, ((0, 0), (5, 6), (0, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(np.asarray(ArrayImages(images)), padded)
    np.testing.assert_array_equal(np.asarray(ArrayImages(images)[np.array([3, 1])][1:]), padded[[1]])
    np.testing.assert_array_equal(np.asarray(ArrayImages(images)[1:3][np.array([1])]), padded[[2]])


def test_mean_and_deviation_are_those_of_the_training_images(tmp_path):
    arrays = medmnist(28, (3,))
    np.savez(tmp_path / "m.npz", **arrays)
    image_set = load_images("npz", tmp_path)
    pixels = arrays["train_images"].reshape(-1, 3) / 255
    np.testing.assert_allclose(image_set.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(image_set.std, pixels.std(axis=0), rtol=1e-9)


def part_of(images_u8, labels) -> ImagePart:
    return ImagePart(images_u8, labels, np.arange(len(labels)))


def test_batches_are_those_of_the_same_images_in_memory(tmp_path):
    """Also of the part that is left of a split, of half of each batch, and from any step on."""
    np.savez(tmp_path / "m.npz", **medmnist())
    image_set = load_images("npz", tmp_path)
    part, held_out = split_validation(image_set, 5, seed=2)
    options = {"batch_size": 6, "seed": 3, "device": torch.device("cpu")}
    mapped = make_source(part, share=slice(0, 6), **options)
    assert isinstance(mapped, ArraySource)
    assert isinstance(part.images_u8.stored_u8, np.memmap)  # split without a copy
    in_memory = DeviceSource(part._replace(images_u8=np.asarray(part.images_u8)), **options)
    halves = [make_source(part, share=share, **options) for share in (slice(0, 3), slice(3, 6))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in (0, 5):
            whole = list(in_memory.batches(epoch))
            assert len(whole) == mapped.steps_per_epoch == 3
            for batch, same, *shared in zip(
                whole, mapped.batches(epoch), *(h.batches(epoch) for h in halves), strict=True
            ):
                joined = [torch.cat([half.images for half in shared]), torch.cat([half.labels for half in shared])]
                for images, labels in ((same.images, same.labels), joined):
                    assert torch.equal(images, batch.images)
                    assert torch.equal(labels, batch.labels)
                assert same.images.is_contiguous(memory_format=torch.channels_last)
                np.testing.assert_array_equal(same.indices, batch.indices)
                np.testing.assert_array_equal(np.concatenate([half.indices for half in shared]), batch.indices)
            for late, batch in zip(mapped.batches(epoch, start_step=2), whole[2:], strict=True):
                assert torch.equal(late.images, batch.images)
    assert len(held_out.labels) == 5


def test_a_changed_pixel_changes_the_fingerprint(tmp_path):
    arrays = medmnist()
    np.savez(tmp_path / "m.npz", **arrays)
    before = load_images("npz", tmp_path).fingerprint
    arrays["train_images"][7, 3, 5] ^= 1
    np.savez(tmp_path / "m.npz", **arrays)
    assert load_images("npz", tmp_path).fingerprint != before


def refused(place: Path) -> str:
    with pytest.raises(InputError) as error:
        load_images("npz", place)
    assert "\n" not in str(error.value)
    return str(error.value)


IMAGES = "expected uint8 [N, H, W] (grey), [N, H, W, 1] or [N, H, W, 3] (RGB), H and W 8..4096."
LABELS = "expected integers [24] or [24, 1], one for each image, 0..K-1."
CHANGES = {
    "float images": (
        {"train_images": np.zeros((24, 28, 28), np.float32)},
        f"got float32 [24, 28, 28]; {IMAGES} For floats in",
    ),
    "int64 images": ({"train_images": np.zeros((24, 28, 28), int)}, f"got int64 [24, 28, 28]; {IMAGES}"),
    "channels first": (
        {"train_images": np.zeros((24, 3, 28, 28), np.uint8)},
        "transpose(0, 2, 3, 1) puts the channels last",
    ),
    "volumes": ({"train_images": np.zeros((24, 28, 28, 28), np.uint8)}, f"got uint8 [24, 28, 28, 28]; {IMAGES}"),
    "tiny images": ({"train_images": np.zeros((24, 4, 4), np.uint8)}, f"got uint8 [24, 4, 4]; {IMAGES}"),
    "a number": ({"train_images": np.uint8(3)}, f"got uint8 []; {IMAGES}"),
    "no images": (
        {"train_images": np.zeros((0, 28, 28), np.uint8)},
        "got uint8 [0, 28, 28]; expected one image or more.",
    ),
    "other sizes": (
        {"test_images": np.zeros((9, 40, 40), np.uint8)},
        "got training images of grey 28x28 px, padded to 32x32",
    ),
    "other sizes that are padded alike": (
        {"test_images": np.zeros((9, 24, 24), np.uint8)},
        "by their edges and test images of grey 24x24 px, padded to 32x32 px by their edges; expected one size.",
    ),
    "fewer labels": ({"train_labels": np.zeros(23, int)}, f"got int64 [23]; {LABELS}"),
    "float labels": ({"train_labels": np.zeros(24)}, f"got float64 [24]; {LABELS}"),
    "multi-label": (
        {"train_labels": np.zeros((24, 14), int)},
        f"got int64 [24, 14]; {LABELS} numpy.argmax(labels, axis=1)",
    ),
    "negative": ({"train_labels": np.arange(24) - 1}, f"got labels -1..22; {LABELS}"),
    "from 1": (
        {"train_labels": np.arange(24) % 4 + 1},
        "got training labels of 4 classes numbered 1..4; expected classes 0..K-1",
    ),
    "a gap": (
        {"train_labels": np.arange(24) % 4 * 2},
        "got training labels of 4 classes numbered 0..6; expected classes 0..K-1",
    ),
    "an unknown class": (
        {"test_labels": np.arange(9)},
        "got a test label 8; expected 0..3, the classes with training images.",
    ),
    "texts as labels": ({"train_labels": np.array(["ape"] * 24)}, f"got <U3 [24]; {LABELS}"),
    "class names": (
        {"class_names": np.array(["a", "a", "b", "c"])},
        "got <U1 [4]; expected 4 different strings, one for each",
    ),
    "objects": (
        {"train_labels": np.array([1, "x", None] * 8, object)},
        "its values are objects, which only running code",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_used_is_one_line(tmp_path, name):
    change, says = CHANGES[name]
    np.savez(tmp_path / "m.npz", **(medmnist() | change))
    line = refused(tmp_path / "m.npz")
    assert says in line
    assert str(tmp_path / "m.npz") in line


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pickled_objects_are_never_run(tmp_path, save):
    marker = tmp_path / "marker"
    evil = np.empty(24, object)
    evil[:] = [Touches(marker)] * 24
    save(tmp_path / "m.npz", **(medmnist() | {"train_labels": evil}))
    assert "nothing was run" in refused(tmp_path / "m.npz")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Touches(marker)))
    assert marker.exists()


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_truncated_file_is_one_line(tmp_path, kept):
    np.savez(tmp_path / "m.npz", **medmnist())
    content = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "m.npz").write_bytes(content[: int(len(content) * kept)])
    for place in (tmp_path, tmp_path / "m.npz"):
        assert f"{tmp_path}/m.npz: cannot be read as an .npz file (" in refused(place)


def test_a_truncated_npy_file_is_one_line(tmp_path):
    for name, array in medmnist().items():
        np.save(tmp_path / f"{name}.npy", array)
    content = (tmp_path / "train_images.npy").read_bytes()
    (tmp_path / "train_images.npy").write_bytes(content[:-100])
    assert "train_images.npy: not a whole .npy array of plain numbers (" in refused(tmp_path)


def bomb(path: Path, member: bytes, compression: int) -> None:
    arrays = medmnist()
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("train_images.npy", member)
        for name in ("train_labels", "test_images", "test_labels"):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, arrays[name])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", ["(1000000, 1000, 1000)", "(-1, 28, 28)", f"({2**40}, {2**40}, 3)"])
def test_a_header_that_claims_more_than_there_is(tmp_path, shape, compression):
    bomb(tmp_path / "m.npz", npy_header(shape, "'|u1'") + b"\0" * 99, compression)
    line = refused(tmp_path / "m.npz")
    assert "m.npz: train_images: cannot be read as an .npz file (" in line


def test_a_zip_that_claims_more_than_there_is(tmp_path):
    """The header and the zip agree on 4 GB, of which some hundred bytes are there."""
    path, claimed = tmp_path / "m.npz", 2**32 - 2
    header = npy_header(f"({claimed - 61}, 1, 1)", "'|u1'")[:-3]
    header = npy_header(f"({claimed - len(header)}, 1, 1)", "'|u1'")[:-3]
    bomb(path, header + b"\0" * 99, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"train_images.npy"))
    real = (len(header) + 99).to_bytes(4, "little")
    path.write_bytes(content[:entry] + content[entry:].replace(real, claimed.to_bytes(4, "little"), 1))
    assert f"compressed bytes cannot hold the {claimed} that it claims" in refused(path)


def test_a_compressed_array_beyond_memory_says_how_to_save_it(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "m.npz", **medmnist())
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert "numpy.savez, which does not compress, makes a file that need not be in memory." in refused(tmp_path)


def test_a_damaged_compressed_array_is_one_line(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", **medmnist())
    content = bytearray((tmp_path / "m.npz").read_bytes())
    content[len(content) // 4] ^= 255
    (tmp_path / "m.npz").write_bytes(content)
    assert "cannot be read as an .npz file (" in refused(tmp_path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "found nothing; expected DIR/NAME.npz"),
        (lambda folder: np.savez(folder / "a.npz", pixels=np.zeros(3)), "found a.npz; expected DIR/NAME.npz"),
        (lambda folder: np.savez(folder / "train.npz", images=np.zeros(3)), "found train.npz; expected DIR/NAME.npz"),
        (
            lambda folder: [np.savez(folder / name, **medmnist()) for name in ("a.npz", "b.npz")],
            "has 2 image sets, a.npz, b.npz; expected one. Name it: --data.dir",
        ),
        (
            lambda folder: [
                np.save(folder / f"{name}_images.npy", medmnist()["val_images"]) for name in ("train", "val")
            ],
            "has no train_labels for train; expected DIR/NAME.npz",
        ),
    ],
)
def test_a_folder_without_arrays_says_what_a_right_one_looks_like(tmp_path, make, says):
    make(tmp_path)
    line = refused(tmp_path)
    assert line.startswith("data.dir: ")
    assert str(tmp_path) in line
    assert says in line


def test_a_place_that_does_not_exist(tmp_path):
    assert f"data.dir: {tmp_path}/none: no such file or folder; expected DIR/NAME.npz" in refused(tmp_path / "none")
