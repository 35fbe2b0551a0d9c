"""Spoilt files of every format, through every reader: an array or a reason, and never an exception."""

import io
import pickle
import struct
import tokenize
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.config.schema import DataConfig
from fastmagn.data import load_data, load_folder_images
from fastmagn.data.arrays import open_array
from fastmagn.data.files import decoding
from fastmagn.data.files.crops import fill_crop, has_dali
from fastmagn.data.files.decoding import Unreadable, decode_square, open_image, tried, upright_rgb
from fastmagn.data.files.headers import Header, read_header
from fastmagn.data.folder_source import choose_decoder
from fastmagn.data.plain_pickle import read_plain_pickle
from fastmagn.errors import InputError
from tests.helpers.spoilt_files import spoilt_files

SIDE = 16
SIGNS = b"()[]{}'\",:0123456789OVuifL<>|\\\n\0"
COUNTS = [(0, 240), pytest.param(1, 20_000, marks=pytest.mark.slow)]


def decoded_size(path: Path) -> tuple[int, int]:
    with open_image(path) as image:
        width, height = upright_rgb(image).size
    return height, width


@pytest.mark.parametrize(("seed", "count"), COUNTS)
def test_every_file_is_an_image_or_has_a_reason(tmp_path, seed, count):
    read = failed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (kind, content) in enumerate(spoilt_files(seed, count)):
            path = tmp_path / "file"
            path.write_bytes(content)
            header, square = tried(read_header, str(path)), tried(decode_square, path, SIDE, SIDE + 3)
            for found in (header, square):
                if isinstance(found, Unreadable):
                    assert found.reason, (number, kind)
                    assert str(path) not in found.reason, (number, kind, found.reason)
                    assert "<_io" not in found.reason, (number, kind, found.reason)
            if isinstance(square, Unreadable):
                failed += 1
                continue
            read += 1
            assert (square.shape, square.dtype) == ((SIDE, SIDE, 3), np.uint8)
            if isinstance(header, Header):
                assert decoded_size(path) == (header.height, header.width), (number, kind)
                out = np.zeros((SIDE, SIDE, 3), np.uint8)
                assert fill_crop(str(path), (0, 0, header.height, header.width), out) is None
    assert min(read, failed) > count / 10


@pytest.mark.parametrize(
    "source", ["pillow", pytest.param("dali", marks=pytest.mark.skipif(not has_dali(), reason=""))]
)
def test_a_folder_of_spoilt_files_is_loaded_scanned_and_cropped(tmp_path, source):
    """Whatever passes the scan is then decoded, or grey."""
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (20, 20), "red").save(tmp_path / part / name / "whole.jpg")
        for number, (kind, content) in enumerate(spoilt_files(7, 80)):
            suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
            (tmp_path / part / "ab"[number % 2] / f"{number}.{suffix}").write_bytes(content)
    config = DataConfig(name="folder", dir=tmp_path, image_size=SIDE, source=source, num_workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image_set = load_data(config)
        pixels = np.asarray(image_set.test_images_u8)
        alone, labels, _ = load_folder_images(tmp_path, SIDE)
        files = image_set.train_images_u8.files
        boxes = np.concatenate([np.zeros((len(files), 2), np.int64), files.sizes], axis=1)
        crops, _ = choose_decoder(files, config, torch.device("cpu")).start(np.arange(len(files)), boxes).finish()
    assert len(pixels) == len(image_set.test_labels) >= len(alone) == len(labels) > 20
    assert len(crops) == len(files) > 20


def test_a_decoder_may_raise_anything_but_an_interruption():
    for error in (RecursionError(), MemoryError("out"), tokenize.TokenError("x"), AssertionError(), KeyError(282)):

        def fail(path, error=error):
            raise error

        found = tried(fail, "a.jpg")
        assert found.reason == f"its decoder fails with {type(error).__name__}" or isinstance(error, LookupError)
    with pytest.raises(KeyboardInterrupt):
        tried(lambda path: (_ for _ in ()).throw(KeyboardInterrupt()), "a.jpg")


def test_a_photograph_with_an_odd_maker_is_read_and_turned(tmp_path):
    """Its EXIF data cannot be written again, which Pillow's exif_transpose does; they need not be."""
    stored = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    exif = b"MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x05\0\0\0\x01\0\0\0\x26\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif += b"\0\0\0\x03\0\0\0\x04"
    (tmp_path / "a").mkdir()
    Image.fromarray(stored).save(tmp_path / "a" / "1.png", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images_u8, _, _ = load_folder_images(tmp_path, 16)
    expected = Image.fromarray(np.rot90(stored, -1).copy()).crop((4, 0, 20, 16))
    np.testing.assert_array_equal(images_u8[0], np.asarray(expected))


def test_pixels_of_floats_are_refused(tmp_path):
    path = tmp_path / "1.tif"
    Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)).save(path)
    found = tried(decode_square, path, 16, 16)
    assert found.reason == "its pixels are floats; expected integers of 1, 8 or 16 bits"


def tiff_of_12_bits(path: Path) -> None:
    """20 x 20 white pixels; Pillow writes no such file."""
    strip = b"\xff" * 600
    tags = {256: 20, 257: 20, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 20, 279: len(strip)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    head = struct.pack("<4sI", b"II*\0", 8 + len(strip))
    path.write_bytes(head + strip + struct.pack("<H", len(tags)) + entries + bytes(4))


def test_integers_whose_range_is_unknown_are_refused(tmp_path):
    """A folder leaves such TIFFs out; they were black, or dark."""
    levels, folder = np.linspace(0, 1, 400).reshape(20, 20), tmp_path / "a"
    folder.mkdir()
    Image.fromarray((levels * (2**31 - 1)).astype(np.int32)).save(folder / "32.tif")
    Image.fromarray((levels * 255).astype(np.int32)).save(folder / "32_small.tif")
    tiff_of_12_bits(folder / "12.tif")
    Image.fromarray((levels * 65535).astype(np.uint16)).save(folder / "16.tif")
    for name, kind in (("32", "32-bit or signed"), ("32_small", "32-bit or signed"), ("12", "12-bit")):
        reason = f"its pixels are {kind} integers; expected integers of 1, 8 or 16 bits"
        for read in (lambda path: decode_square(path, 16, 16), read_header):
            assert tried(read, folder / f"{name}.tif").reason == reason
    with pytest.warns(UserWarning, match=r"3 of 4 image files cannot be read: .*They are left out\."):
        images_u8, _, _ = load_folder_images(tmp_path, 20, resize_px=20)
    np.testing.assert_array_equal(images_u8[0][..., 0], (levels * 65535).astype(np.uint16) // 256)


def grey_tiff(path: Path, levels: np.ndarray, white_is_zero: bool, order: str = "<") -> Path:
    """An uncompressed TIFF of uint8 or uint16 [H, W], little (<) or big (>) endian. Pillow writes no negatives."""
    strip = levels.astype(levels.dtype.newbyteorder(order)).tobytes()
    (height, width), bits, photometric = levels.shape, 8 * levels.itemsize, int(not white_is_zero)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(strip))
    path.write_bytes(head + strip + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
    return path


def test_white_is_zero_is_the_same_picture_in_8_and_16_bits(tmp_path):
    """Pillow inverts the first alone. It does not take 16-bit files of the other byte order, which are left out."""
    levels = np.random.default_rng(0).integers(0, 65536, (20, 20), np.uint16)
    eight = (levels >> 8).astype(np.uint8)
    for order in "<>":
        for pixels, white_is_zero in ((eight, False), (eight, True), (levels, False), (levels, True)):
            stored = np.iinfo(pixels.dtype).max - pixels if white_is_zero else pixels
            path = grey_tiff(tmp_path / "1.tif", stored, white_is_zero, order)
            found = tried(decode_square, path, 20, 20)
            if order == ">" and white_is_zero and pixels is levels:
                assert found.reason == "cannot identify image file"
            else:
                np.testing.assert_array_equal(found, np.stack([eight] * 3, axis=2))


def test_16_bits_of_png_and_ppm_are_scaled(tmp_path, monkeypatch):
    """Pillow opens PGM as 32-bit integers, and so did older ones PNG."""
    deep = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    expected = np.repeat((deep // 256)[..., None], 3, 2)
    Image.fromarray(deep).save(tmp_path / "1.png")
    (tmp_path / "1.pgm").write_bytes(b"P5 20 20 65535\n" + deep.astype(">u2").tobytes())
    with Image.open(tmp_path / "1.pgm") as opened:
        assert opened.mode == "I"
    for name in ("1.png", "1.pgm"):
        assert isinstance(read_header(tmp_path / name), Header)
        np.testing.assert_array_equal(decode_square(tmp_path / name, 20, 20), expected)
    in_memory = Image.fromarray(deep.astype(np.int32))  # as Pillow leaves a PGM that it has turned
    assert (in_memory.mode, in_memory.format) == ("I", None)
    np.testing.assert_array_equal(np.asarray(upright_rgb(in_memory)), expected)


def test_pillows_limit_on_pixels_may_be_another_or_none(tmp_path, monkeypatch):
    path = tmp_path / "1.png"
    Image.new("RGB", (30, 20), (10, 20, 30)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    assert "exceeds limit of 599 pixels" in tried(decode_square, path, 16, 16).reason
    for limit in (600, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(tried(decode_square, path, 16, 16), np.full((16, 16, 3), (10, 20, 30)))


def test_few_large_images_are_in_memory_at_a_time(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Lock

    monkeypatch.setattr(decoding, "_LARGE_PIXELS", 99)
    Image.new("L", (10, 10)).save(tmp_path / "1.png")
    lock, inside, most = Lock(), [], []

    def read(_: int) -> None:
        with open_image(tmp_path / "1.png") as image:
            with lock:
                inside.append(image)
                most.append(len(inside))
            image.load()
            with lock:
                inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(200)))
    assert max(most) <= 2


@pytest.mark.parametrize(("seed", "count"), [(0, 1500), pytest.param(1, 20_000, marks=pytest.mark.slow)])
def test_a_spoilt_array_is_one_line(tmp_path, seed, count):
    rng, path = np.random.default_rng(seed), tmp_path / "1.npy"
    file = io.BytesIO()
    np.save(file, np.arange(12, dtype=np.int64).reshape(3, 4))
    for number in range(count):
        content = bytearray(file.getvalue())
        for _ in range(rng.integers(1, 6)):
            place = rng.integers(0, 70 if rng.random() < 0.9 else len(content))
            content[place] = (
                rng.choice(list(b"()[]{}'\",:0123456789OVuifL<>|\\\n\0")) if number % 2 else rng.integers(256)
            )
        path.write_bytes(content)
        try:
            array = open_array(path, "missing.", "Make it again.")
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert array.dtype.kind in "biuf"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i8', 'fortran_order': False, 'shape': (3, [4), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807), }",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (" + "(" * 300,
    ],
)
def test_an_array_whose_header_no_parser_takes_is_one_line(tmp_path, header):
    path = tmp_path / "1.npy"
    text = header.encode().ljust(373) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(96))
    with pytest.raises(InputError, match=r"1\.npy: not a whole \.npy array of plain numbers \("):
        open_array(path, "missing.", "Make it again.")


@pytest.mark.parametrize(("seed", "count"), [(0, 1500), pytest.param(1, 20_000, marks=pytest.mark.slow)])
def test_a_spoilt_pickle_is_one_line(tmp_path, seed, count):
    rng, path = np.random.default_rng(seed), tmp_path / "batch"
    batch = {"data": np.arange(24, dtype=np.uint8).reshape(2, 12), "labels": [3, 250], "names": ["a", "b"], b"n": (1,)}
    wholes = [pickle.dumps(batch, protocol) for protocol in (2, 4)]
    for number in range(count):
        content = bytearray(wholes[number % 2])
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(0, len(content))] = rng.integers(256)
        path.write_bytes(content[: rng.integers(1, len(content))] if rng.random() < 0.2 else content)
        try:
            assert isinstance(read_plain_pickle(path, 10_000), dict)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
