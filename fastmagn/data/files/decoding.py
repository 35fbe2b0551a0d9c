"""Test images in a folder for each class, as torchvision's ImageFolder has them: DIR/CLASS/IMAGE."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fastmagn.config.schema import DataConfig

# Other decoders never run, whatever a file's suffix says: Pillow hands EPS to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_RESIZE_TO_CROP = 256 / 224

MAX_IMAGE_SIZE_PX = 4096


def decode_image(path: str | Path, image_size: int, resize_px: int = 0) -> np.ndarray:
    """One file's central square, uint8 [image_size, image_size, 3]; raises whatever Pillow raises.

    The shorter side is resized to `resize_px` first, which is image_size where it is 0.
    """
    return central_square(open_upright_rgb(path), image_size, resize_px)


def central_square(image: Image.Image, image_size: int, resize_px: int = 0) -> np.ndarray:
    """An RGB image's central square, as `decode_image` has a file's."""
    side = resize_px or image_size
    short, long = sorted(image.size)
    other = side * long // short
    if side * other > Image.MAX_IMAGE_PIXELS:  # a file of a few bytes can hold a line of a million pixels
        raise ValueError(f"{image.width} x {image.height} px would become {side} x {other} px")
    width, height = (side, other) if image.width <= image.height else (other, side)
    # Python's round, halves to even, is torchvision's.
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + image_size, top + image_size)))


def open_upright_rgb(path: str | Path) -> Image.Image:
    """A file's image as RGB of 8 bits, turned as its EXIF orientation says; raises whatever Pillow raises.

    Alpha is dropped; 16-bit grey is scaled, not clipped as torchvision's ImageFolder would.
    """
    with Image.open(path, formats=_FORMATS) as file:
        return upright_rgb(file)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as `open_upright_rgb` has a file's."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGB")


def or_reason(read: Callable) -> Callable:
    """`read(path, ...)`, or why it failed, in a line that does not name the path."""

    def reads(path: str | Path, *rest: object) -> object:
        try:
            return read(path, *rest)
        except UNREADABLE as error:
            return reason(error, path)

    return reads


def reason(error: Exception, path: str | Path) -> str:
    """What went wrong with `path`, in a line that does not name it."""
    return " ".join(str(error).replace(f" {str(path)!r}", "").split())[:100] or type(error).__name__


def resize_px(config: DataConfig) -> int:
    """The shorter side of a validation image before the centre crop, px."""
    return config.eval_resize_px or round(config.image_size * _RESIZE_TO_CROP)
