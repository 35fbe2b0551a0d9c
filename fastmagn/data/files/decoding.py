"""Decodes one image file with Pillow, and says why a file cannot be decoded.

What happens to a file that cannot be decoded is decided here, once:

- While the set of images is not fixed yet, the file is left out, and one warning counts such files (`warn_left_out`).
- Once it is fixed, mid-grey stands in for the image (`fill`), so that rows and labels keep their places. Training and
  validation warn (`warn_of_grey`); an evaluation of a set of files leaves these rows out of its measures.
"""

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.items import Item, Part, read_item
from fastmagn.data.files.listing import HAS_AVIF
from fastmagn.data.padding import pad_by_edges
from fastmagn.errors import InputError, counted, one_line, some, warn_caller

# Pillow's other decoders never run, whatever a file's suffix says: it hands EPS to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF", *(("AVIF",) if HAS_AVIF else ()))
MAX_IMAGE_SIZE_PX = 4096
GREY = 128
_RESIZE_TO_CROP = 256 / 224
_REASON_CHARS = 100
_Read = TypeVar("_Read")
_ORIENTATION = 0x0112  # EXIF's tag
_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION = 0x0102, 0x0106  # TIFF's tags
_WHITE_IS_ZERO = 0
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Errors whose message says what is wrong with a file. A decoder may raise anything else too.
_TELLING_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


class Unreadable(NamedTuple):
    """A file that cannot be decoded, and the reason in one line that does not repeat the path."""

    item: Item
    reason: str

    def __str__(self) -> str:
        return f"{self.item} ({self.reason})"


def tried(read: Callable[..., _Read], item: Item, *rest: object) -> _Read | Unreadable:
    """`read(item, *rest)`, or Unreadable if the file cannot be decoded.

    Any Exception counts, because a third party's parser may raise any: MemoryError for a bomb, RecursionError, and what
    its authors did not think of.
    """
    try:
        return read(item, *rest)
    except Exception as error:
        return Unreadable(item, _reason(error, item)[:_REASON_CHARS])


def _reason(error: Exception, item: Item) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"  # Pillow's words, which are followed by the path or by an object
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, _TELLING_ERRORS):
        return one_line(error, None).replace(f" {str(item)!r}", "")
    return f"its decoder fails with {type(error).__name__}"


def fill(out: np.ndarray, pixels: np.ndarray | Unreadable) -> Unreadable | None:
    """Copy what `tried` returned into `out`, uint8 [H, W, 3]: the pixels, or mid-grey for the Unreadable it returns."""
    if isinstance(pixels, Unreadable):
        out[:] = GREY
        return pixels
    out[:] = pixels
    return None


def warn_left_out(unreadable: Sequence[Unreadable], num_tried: int, root: Path) -> None:
    """Warn of the files that are left out of the `num_tried` files of a folder, if there are any.

    Raises:
        InputError: No file is left.
    """
    if not unreadable:
        return
    message = f"{len(unreadable)} of {num_tried} image files cannot be read: {some(map(str, unreadable))}"
    if len(unreadable) == num_tried:
        raise InputError(f"{root}: {message}. No image is left.")
    warn_caller(f"{root}: {message}. {'It is' if len(unreadable) == 1 else 'They are'} left out.")


def warn_of_grey(unreadable: Sequence[Unreadable], root: Path) -> None:
    """Warn of the images that were replaced by mid-grey because they could not be decoded, if there are any."""
    if unreadable:
        one = len(unreadable) == 1
        warn_caller(
            f"{root}: {counted(len(unreadable), 'image')} cannot be decoded, although"
            f" {'its header' if one else 'their headers'} can be read; mid-grey stands in for"
            f" {'it' if one else 'them'}:"
            f" {some(map(str, unreadable))}."
        )


def lost_classes(class_names: Sequence[str], labels: np.ndarray) -> list[str]:
    """The classes of which no image is left among `labels`, int64 [N]."""
    return [class_names[label] for label in np.setdiff1d(np.arange(len(class_names)), labels)]


def warn_of_lost_classes(lost: Sequence[str], root: Path) -> None:
    """Warn of the classes of which no file can be read, if there are any."""
    if lost:
        all_lost = "It is" if len(lost) == 1 else "They are"
        warn_caller(
            f"{root}: no image of {counted(len(lost), 'class')} can be read: {some(lost)}. {all_lost} not measured."
        )


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about palettes, broken EXIF and large images; `open_image` refuses too large ones.

    Enter it in the thread that waits, not in the threads that decode: warning filters belong to the whole process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


# Uncompressed, a file of some KB may have 89 million pixels; only so many as large as that are in memory at a time.
_LARGE_PIXELS = 1 << 25
_LARGE_AT_A_TIME = threading.BoundedSemaphore(2)


def _max_pixels() -> float:
    """Pillow's MAX_IMAGE_PIXELS, which a program may change, or set to None for any number."""
    return math.inf if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS


def _opened(file: Item | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """A file for Pillow, and never its path: it would map a raw TIFF by a path, with sides that EXIF has swapped."""
    if isinstance(file, Part):
        return io.BytesIO(read_item(file))
    return open(file, "rb") if isinstance(file, str | Path) else nullcontext(file)


@contextmanager
def open_image(file: Item | BinaryIO) -> Iterator[Image.Image]:
    """Open an image file; its pixels are not decoded yet.

    Raises:
        Image.DecompressionBombError: It has more than Pillow's MAX_IMAGE_PIXELS, for which Pillow itself only warns.
        Exception: Whatever else Pillow raises.
    """
    with _opened(file) as source, Image.open(source, formats=_FORMATS) as image:
        num_pixels = image.width * image.height
        if num_pixels > _max_pixels():
            raise Image.DecompressionBombError(
                f"Image size ({num_pixels} pixels) exceeds limit of {Image.MAX_IMAGE_PIXELS} pixels, could be"
                " decompression bomb DOS attack."
            )
        with _LARGE_AT_A_TIME if num_pixels > _LARGE_PIXELS else nullcontext():
            yield image


def decode_square(
    item: Item, image_size: int, shorter_side_px: int, padded_from: tuple[int, int] | None = None
) -> np.ndarray:
    """An item's `central_square`, uint8 [image_size, image_size, 3]; raises what `open_image` and Pillow raise."""
    with open_image(item) as image:
        return central_square(upright_rgb(image), image_size, shorter_side_px, padded_from)


def central_square(
    image: Image.Image, image_size: int, shorter_side_px: int, padded_from: tuple[int, int] | None = None
) -> np.ndarray:
    """The central square of an RGB image, uint8 [image_size, image_size, 3].

    The shorter side is first resized to `shorter_side_px` (bicubic, antialiased), as torchvision's Resize does; the
    square is then cut out as torchvision's CenterCrop does.

    With `padded_from`, the (H, W) of a set whose images are padded, an image is made one of that size, likewise resized
    and cut, and then padded as the set's are. An image of that size is only padded; one of `image_size` is kept.

    Raises:
        ValueError: The resized image would have more than Pillow's MAX_IMAGE_PIXELS.
    """
    if padded_from is not None:
        if image.size != (image_size, image_size):
            image = ImageOps.fit(image, padded_from[::-1], Image.Resampling.BICUBIC)
        return pad_by_edges(np.asarray(image)[None], image_size)[0]
    short, long = sorted(image.size)
    other = shorter_side_px * long // short
    if shorter_side_px * other > _max_pixels():  # a file of a few bytes can hold a line of a million pixels
        raise ValueError(f"{image.width} x {image.height} px would become {shorter_side_px} x {other} px")
    width, height = (shorter_side_px, other) if image.width <= image.height else (other, shorter_side_px)
    # Python's round, halves to even, is torchvision's.
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + image_size, top + image_size)))


def open_upright_rgb(path: str | Path) -> Image.Image:
    """A file's image as `upright_rgb` returns it; raises whatever Pillow raises."""
    with _opened(path) as source, Image.open(source, formats=_FORMATS) as image:
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image `as_rgb`, turned as its EXIF orientation says; of several frames, the first; raises what that does."""
    image.load()
    check_range(image)
    method = _TRANSPOSED.get(orientation(image))
    rgb = as_rgb(image if method is None else image.transpose(method))
    return ImageOps.invert(rgb) if _is_negative(image) else rgb


def _is_negative(image: Image.Image) -> bool:
    """Whether zero is white in a loaded image: Pillow inverts such TIFFs of 8 bits, and leaves those of 16 bits."""
    if not isinstance(image, TiffImageFile) or image.mode != "I;16":
        return False
    return image.tag_v2.get(_PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO) == _WHITE_IS_ZERO  # Pillow's default


def check_range(image: Image.Image) -> None:
    """Raise ValueError if `as_rgb` does not scale a loaded image's pixels: floats, and integers of other sizes."""
    kind = "floats" if image.mode == "F" else None
    if isinstance(image, TiffImageFile):  # Pillow holds 16-bit grey of other formats in mode I
        if image.mode == "I":
            kind = "32-bit or signed integers"
        elif image.tag_v2.get(_BITS_PER_SAMPLE) == (12,):
            kind = "12-bit integers"
    if kind is not None:
        raise ValueError(f"its pixels are {kind}; expected integers of 1, 8 or 16 bits")


def as_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of `check_range` as 8-bit RGB. Alpha is dropped. 16-bit grey is scaled; torchvision clips it."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """A loaded image's EXIF orientation, 1..8; 1 if there is none or another one.

    Pillow's own `exif_transpose` also writes all EXIF data anew, and fails where a field has an unusual type.
    """
    found = image.getexif().get(_ORIENTATION, 1)
    return int(found) if found in _TRANSPOSED else 1


def resize_px(config: DataConfig) -> int:
    """What `data.eval_resize_px` means, px: the shorter side of a validation image before its square is cut out."""
    return shorter_side_px(config.image_size, config.eval_resize_px)


def shorter_side_px(image_size: int, resize_px: int) -> int:
    """The shorter side of an image before its central square of `image_size` px is cut out; 0 means the default."""
    return resize_px or round(image_size * _RESIZE_TO_CROP)
