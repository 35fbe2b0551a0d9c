"""Test images in a folder for each class, as torchvision's ImageFolder has them: DIR/CLASS/IMAGE."""

import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fastmagn.errors import InputError, check

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
MAX_IMAGE_SIZE_PX = 4096

# Other decoders never run, whatever a file's suffix says: Pillow hands EPS to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_SHOWN = 3


def load_folder_images(
    dir: Path, image_size: int, num_images: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The images of DIR/CLASS/*, or of DIR/val/CLASS/* where DIR/val exists, by class and then file name.

    Each is turned as its EXIF orientation says, made RGB, resized (bicubic, antialiased) so that its shorter side is
    image_size, and cut to its central square: torchvision's Resize(image_size) and CenterCrop(image_size). A file that
    cannot be decoded, is truncated, or has more than Pillow's MAX_IMAGE_PIXELS (89 million, a guard against
    decompression bombs) is left out; one warning counts these. Names that start with a dot are not looked at.

    Departs from torchvision's ImageFolder: 16-bit grey is scaled to 8 bits, not clipped; folders within a class are not
    searched.

    Args:
        dir: The folder.
        image_size: Side of the square images, 1..4096 px.
        num_images: Stop after this many readable images, 0 for all.

    Returns:
        images_u8 uint8 [N, image_size, image_size, 3], labels int64 [N], and the K class names; label k is
        class_names[k], the k-th of the class folders in sorted order.

    Raises:
        InputError: No folder, no class folders, a class folder without images, no image that can be read, or no
            image_size.
    """
    is_size = type(image_size) is int and 1 <= image_size <= MAX_IMAGE_SIZE_PX
    check(is_size, "image_size", image_size, f"the side of the square images, 1..{MAX_IMAGE_SIZE_PX} px")
    class_names, paths, labels = _list_images(Path(dir))
    wanted = num_images or len(paths)
    images_u8 = np.empty((min(wanted, len(paths)), image_size, image_size, 3), np.uint8)
    kept: list[int] = []
    unreadable: list[str] = []
    position = 0
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, on palettes and broken EXIF
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        while len(kept) < wanted and position < len(paths):
            batch = range(position, min(position + wanted - len(kept), len(paths)))
            position = batch.stop
            decoded = pool.map(_decode_or_reason, (paths[i] for i in batch), [image_size] * len(batch))
            for i, pixels in zip(batch, decoded, strict=True):
                if isinstance(pixels, str):
                    unreadable.append(f"{paths[i]} ({pixels})")
                else:
                    images_u8[len(kept)] = pixels
                    kept.append(i)
    _report_unreadable(unreadable, position, dir)
    return images_u8[: len(kept)], labels[kept], class_names


def decode_image(path: Path, image_size: int) -> np.ndarray:
    """One file's central square, uint8 [image_size, image_size, 3]; raises whatever Pillow raises."""
    with Image.open(path, formats=_FORMATS) as file:
        image = _as_rgb(ImageOps.exif_transpose(file))
    short, long = sorted(image.size)
    other = image_size * long // short
    if image_size * other > Image.MAX_IMAGE_PIXELS:  # a file of a few bytes can hold a line of a million pixels
        raise ValueError(f"{image.width} x {image.height} px would become {image_size} x {other} px")
    width, height = (image_size, other) if image.width <= image.height else (other, image_size)
    # Python's round, halves to even, is torchvision's.
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + image_size, top + image_size)))


def _as_rgb(image: Image.Image) -> Image.Image:
    """RGB of any mode; alpha is dropped."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _decode_or_reason(path: Path, image_size: int) -> np.ndarray | str:
    try:
        return decode_image(path, image_size)
    except _UNREADABLE as error:
        return " ".join(str(error).replace(f" {str(path)!r}", "").split())[:100] or type(error).__name__


def _list_images(dir: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray]:
    """Class names, paths by class and file name, and their labels, int64 [N]."""
    layout = f"CLASS/IMAGE in it, IMAGE one of *{', *'.join(IMAGE_SUFFIXES)}"
    if not dir.is_dir():
        raise InputError(f"{dir}: no such folder; expected one with {layout}.")
    root = dir / "val" if (dir / "val").is_dir() else dir
    classes = _visible(path for path in root.iterdir() if path.is_dir())
    if not classes:
        raise InputError(f"{root}: has no class folders; expected {layout}.")
    files = [_visible(path for path in folder.iterdir() if _is_image(path)) for folder in classes]
    empty = [folder.name for folder, images in zip(classes, files, strict=True) if not images]
    if empty:
        raise InputError(
            f"{root}: {len(empty)} of {len(classes)} class folders hold no image: {_some(empty)}; expected {layout}."
            " Remove these folders, or give the folder whose subfolders are the classes."
        )
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(images) for images in files])
    return tuple(folder.name for folder in classes), [path for images in files for path in images], labels


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _visible(paths: Iterable[Path]) -> list[Path]:
    return sorted((path for path in paths if not path.name.startswith(".")), key=lambda path: path.name)


def _report_unreadable(unreadable: list[str], num_tried: int, dir: Path) -> None:
    if not unreadable:
        return
    message = f"{len(unreadable)} of {num_tried} image files cannot be read: {_some(unreadable)}"
    if len(unreadable) == num_tried:
        raise InputError(f"{dir}: {message}. No image is left.")
    warnings.warn(f"{dir}: {message}. They are left out.", stacklevel=3)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
