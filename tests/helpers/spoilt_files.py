"""Small image files of every format, spoilt at random by a seed: odd EXIF, bytes changed, cut, or exchanged."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "PPM")
WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
# Orientation, Make, Model, resolutions, times, pointers to further directories, maker's note, and a tag of nobody.
_TAGS = (0x0112, 0x010F, 0x0110, 0x011A, 0x011B, 0x0132, 0x8769, 0x8825, 0xA005, 0x927C, 0x0100, 0x0102, 0x0103, 0xC0DE)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def random_exif(rng: np.random.Generator) -> bytes:
    """A TIFF directory of random entries; often with an orientation, and mostly with values that are there."""
    order = rng.choice(["<", ">"])
    entries, beyond = [], bytearray()
    tags = [0x0112] * int(rng.random() < 0.7) + list(rng.choice(_TAGS, rng.integers(0, 6)))
    start = 8 + 2 + 12 * len(tags) + 4
    for tag in tags:
        kind = int(rng.integers(0, 16)) if rng.random() < 0.6 else 3
        count = int(rng.choice([0, 1, 1, 1, 2, 3, 5, 200, 2**31]))
        size = _SIZES.get(kind, 1) * count
        if tag == 0x0112 and rng.random() < 0.7:
            kind, count, value = 3, 1, struct.pack(order + "HH", rng.integers(0, 10), 0)
        elif size <= 4 or size > 4096 or rng.random() < 0.2:
            value = rng.bytes(4) if rng.random() < 0.5 else struct.pack(order + "I", rng.integers(0, start + 40))
        else:
            value = struct.pack(order + "I", start + len(beyond))
            beyond += rng.bytes(size) if rng.random() < 0.5 else bytes(size)
        entries.append(struct.pack(order + "HHI", int(tag), kind, count) + value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    following = struct.pack(order + "I", int(rng.choice([0, 0, 0, 8, start, 2**31])))
    return head + struct.pack(order + "H", len(tags)) + b"".join(entries) + following + bytes(beyond)


def spoilt_files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` files, (format, content); some of them are whole."""
    rng = np.random.default_rng(seed)
    pictures = [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for shape in ((18, 26, 3), (25, 11, 3))]
    whole: dict[tuple[str, int], list[bytes]] = {}
    for number in range(count):
        kind = FORMATS[number % len(FORMATS)]
        key = (kind, int(rng.integers(0, 4)))
        if key not in whole:
            whole[key] = [_encoded(picture, *key) for picture in pictures]
        content = whole[key][int(rng.integers(0, 2))]
        if kind in WITH_EXIF and rng.random() < 0.5:
            content = _with_exif(pictures[int(rng.integers(0, 2))], kind, content, random_exif(rng))
        if rng.random() < 0.7:
            content = _spoilt(rng, content)
        yield kind, content


def _encoded(picture: Image.Image, kind: str, variant: int) -> bytes:
    """The picture in one of four modes: RGB, grey, palette or another colour space, several frames or alpha."""
    modes = {"JPEG": "CMYK", "PNG": "P", "GIF": "P", "TIFF": "CMYK"}
    picture = picture.convert(("RGB", "L", modes.get(kind, "RGB"), "RGB")[variant])
    options = {}
    if variant == 3 and kind in ("GIF", "TIFF", "WEBP", "AVIF", "PNG"):
        options = {"save_all": True, "append_images": [picture.rotate(180)]}
    if kind == "TIFF":
        options["compression"] = ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate")[variant]
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _with_exif(picture: Image.Image, kind: str, content: bytes, exif: bytes) -> bytes:
    if kind == "JPEG":
        segment = b"Exif\0\0" + exif
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    if kind == "TIFF":  # whose own directory takes the place of the EXIF data
        return exif + content
    if kind == "PNG":  # after the signature and the first chunk
        chunk = b"eXIf" + exif
        return content[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    held, file = Image.Exif(), io.BytesIO()
    held[0x9286] = bytes(len(exif))  # a comment, in whose place the data then come: Pillow would refuse to write these
    picture.save(file, kind, exif=held)
    place = held.tobytes().removeprefix(b"Exif\0\0")
    return file.getvalue().replace(place, exif.ljust(len(place), b"\0"))


def _spoilt(rng: np.random.Generator, content: bytes) -> bytes:
    way = rng.integers(0, 4)
    if way == 0:
        return content[: rng.integers(0, len(content))]
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        # Most of the headers are at the start.
        place = int(rng.integers(0, min(len(changed), 200 if rng.random() < 0.7 else len(changed))))
        if way == 1:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        elif way == 2:
            changed[place] = int(rng.choice([0, 1, 127, 128, 255]))
        else:
            first, length = int(rng.integers(0, len(changed))), int(rng.integers(1, 9))
            changed[place : place + length] = changed[first : first + length]
    return bytes(changed)
