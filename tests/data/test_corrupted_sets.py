"""Reading -C sets: the rows' order, partial sets, and files that are not what they should be."""

import io
import os
import pickle

import numpy as np
import pytest

from fastmagn.data import open_corrupted
from fastmagn.errors import InputError

SHAPE = (32, 32, 3)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6])


def images(num_images: int = len(LABELS)) -> np.ndarray:
    """Published layout by hand: every pixel of image i at severity s is 20 s + i."""
    rows = [np.full(SHAPE, 20 * severity + i, np.uint8) for severity in range(1, 6) for i in range(num_images)]
    return np.stack(rows)


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "fog.npy", images())
    np.save(tmp_path / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    "labels", [LABELS, np.tile(LABELS, 5), LABELS.astype(np.uint8), np.tile(LABELS, 5).astype("u1")]
)
def test_severities_come_in_the_published_order(folder, labels):
    np.save(folder / "labels.npy", labels)
    fog = open_corrupted(folder, "fog", LABELS, SHAPE)
    assert fog.shape == (5, 8, *SHAPE)
    assert fog.dtype == np.uint8
    for severity in range(1, 6):
        for i in range(8):
            assert np.all(fog[severity - 1, i] == 20 * severity + i)
    assert isinstance(fog, np.memmap)
    assert not fog.flags.writeable


@pytest.mark.parametrize("tiled", [1, 5])
def test_fewer_images_than_the_set_holds(folder, tiled):
    np.save(folder / "labels.npy", np.tile(LABELS, tiled))
    fog = open_corrupted(folder, "fog", LABELS[:3], SHAPE)
    assert fog.shape == (5, 3, *SHAPE)
    assert fog[:, :, 0, 0, 0].tolist() == [[20 * severity + i for i in range(3)] for severity in range(1, 6)]


def test_missing_files(folder):
    with pytest.raises(InputError, match=r"snow\.npy: no such file; a -C set holds <corruption>\.npy"):
        open_corrupted(folder, "snow", LABELS, SHAPE)
    (folder / "labels.npy").unlink()
    with pytest.raises(InputError, match=r"labels\.npy: no such file"):
        open_corrupted(folder, "fog", LABELS, SHAPE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images().astype(np.float32), r"got float32 \[40, 32, 32, 3\]; expected uint8 \[5\*N, 32, 32, 3\]"),
        (images()[:, :, :16], r"got uint8 \[40, 32, 16, 3\]"),
        (images()[..., 0], r"got uint8 \[40, 32, 32\]"),
        (np.asfortranarray(images()), "in C order"),
        (np.zeros((), np.uint8), r"got uint8 \[\]"),
        (images()[:-1], "holds 39 images; expected 5 severities of 8 or more"),
        (images(7), "holds 35 images; expected 5 severities of 8 or more.*--eval.num_images"),
        (images()[:0], "holds 0 images; expected 5 severities of 8"),
    ],
)
def test_foreign_arrays(folder, array, message):
    np.save(folder / "fog.npy", array)
    with pytest.raises(InputError, match=message):
        open_corrupted(folder, "fog", LABELS, SHAPE)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.tile(LABELS[::-1], 5), "40 labels differ from the test set's"),
        (np.tile(LABELS, 5) + (np.arange(40) == 39), "1 label differs"),
        (np.repeat(LABELS, 5), "labels differ"),
        (LABELS[:-1], r"got int64 \[7\]; expected integers \[8\] or \[40\]"),
        (np.tile(LABELS, 4), r"got int64 \[32\]"),
        (LABELS[None], r"got int64 \[1, 8\]"),
        (LABELS.astype(np.float64), r"got float64 \[8\]"),
        (np.array(8), r"got int64 \[\]"),
    ],
)
def test_labels_that_do_not_match(folder, labels, message):
    np.save(folder / "labels.npy", labels)
    with pytest.raises(InputError, match=r"labels\.npy: ") as caught:
        open_corrupted(folder, "fog", LABELS, SHAPE)
    caught.match(message)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("file", ["fog.npy", "labels.npy"])
@pytest.mark.parametrize("kind", ["object array", "pickle", "archive", "text", "empty", "image", "huge", "bad header"])
def test_files_of_another_kind_are_refused_and_not_run(folder, file, kind):
    marker = folder / "ran"
    evil = np.array([Evil(marker)], object)
    buffer = io.BytesIO()
    if kind == "object array":
        np.save(buffer, evil, allow_pickle=True)
    elif kind == "archive":
        np.savez(buffer, images=images())
    elif kind == "huge":
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**40, 32, 32, 3)}
        np.lib.format.write_array_header_1_0(buffer, header)
    elif kind == "bad header":
        header = b"{'descr': __import__('os').system('touch ran'), 'fortran_order': False, 'shape': (1,)}\n"
        buffer.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    else:
        buffer.write({"pickle": pickle.dumps(evil), "text": b"hello\n", "empty": b"", "image": b"\x89PNG\r\n"}[kind])
    (folder / file).write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=rf"{file}: not a whole \.npy array of plain numbers") as caught:
        open_corrupted(folder, "fog", LABELS, SHAPE)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("file", ["fog.npy", "labels.npy"])
def test_truncated_files_never_open(folder, file):
    whole = (folder / file).read_bytes()
    for length in {*range(0, 130, 7), *np.linspace(128, len(whole) - 1, 30, dtype=int).tolist()}:
        (folder / file).write_bytes(whole[:length])
        with pytest.raises(InputError, match=rf"{file}: not a whole \.npy array"):
            open_corrupted(folder, "fog", LABELS, SHAPE)
