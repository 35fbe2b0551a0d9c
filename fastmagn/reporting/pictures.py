"""Pictures as `data:` addresses: the page holds them itself and needs no network."""

import base64
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from fastmagn.errors import InputError, one_line

MAX_PICTURE_BYTES = 8 << 20
MAX_PICTURE_PX = 1 << 24  # decoding takes up to 8 bytes per pixel
_MAX_SIDE_PX = 128
_GAP_PX = 2


def svg_address(content: bytes) -> str:
    """The address of an SVG file. A browser runs and loads nothing in an SVG that is shown as an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()


def png_address(image_u8: np.ndarray) -> str:
    """The address of a PNG of an image uint8 [H, W, 3], or [H, W, 4] with alpha. Large square images are shrunk."""
    image = Image.fromarray(image_u8)
    if max(image.size) > _MAX_SIDE_PX and image.width == image.height:
        image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip(images_u8: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, 3] side by side, uint8 [H, N * (W + gap) - gap, 4], with transparent gaps."""
    num, height, width, _ = images_u8.shape
    out = np.zeros((height, num * (width + _GAP_PX) - _GAP_PX, 4), np.uint8)
    for i, image in enumerate(images_u8):
        left = i * (width + _GAP_PX)
        out[:, left : left + width, :3] = image
        out[:, left : left + width, 3] = 255
    return out


def small(images_u8: np.ndarray) -> np.ndarray:
    """The images uint8 [N, H, W, 3], shrunk so that no side is above 128 px."""
    if max(images_u8.shape[1:3]) <= _MAX_SIDE_PX:
        return images_u8
    shrunk = []
    for pixels in images_u8:
        image = Image.fromarray(pixels)
        image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
        shrunk.append(np.asarray(image))
    return np.stack(shrunk)


def stored_png(path: Path) -> tuple[str, tuple[int, int]]:
    """The address and the size (width, height) in px of a PNG file. Decoding it checks that it is a picture.

    Raises:
        InputError: It is not a complete PNG picture, or larger than 8 MiB or 16.8 million pixels.
    """
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise InputError(f"{path}: is larger than {MAX_PICTURE_BYTES >> 20} MiB; expected a smaller picture.")
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our bound is lower
            image = Image.open(io.BytesIO(content), formats=("PNG",))  # reads the size only
        size = image.size
        if size[0] * size[1] > MAX_PICTURE_PX:
            raise InputError(
                f"{path}: has {size[0]} x {size[1]} px; expected at most {MAX_PICTURE_PX:,} pixels. It is not shown."
            )
        image.load()
    except InputError:
        raise
    except Exception as error:  # a forged file can make the reader fail in any way
        raise InputError(f"{path}: is not a complete PNG picture ({one_line(error, 100)}).") from error
    return "data:image/png;base64," + base64.b64encode(content).decode(), size
