"""Test images in a folder for each class, as torchvision's ImageFolder has them: DIR/CLASS/IMAGE."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastmagn.data.image_files import LAYOUT, list_classes, open_upright_rgb, or_reason, report_unreadable
from fastmagn.errors import InputError, check

MAX_IMAGE_SIZE_PX = 4096


def load_folder_images(
    dir: Path, image_size: int, num_images: int = 0, resize_px: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The images of DIR/CLASS/*, or of DIR/val/CLASS/* where DIR/val exists, by class and then file name.

    Each is turned as its EXIF orientation says, made RGB, resized (bicubic, antialiased) so that its shorter side is
    resize_px, and cut to its central square: torchvision's Resize(resize_px) and CenterCrop(image_size). A file that
    cannot be decoded, is truncated, or has more than Pillow's MAX_IMAGE_PIXELS (89 million, a guard against
    decompression bombs) is left out; one warning counts these. Names that start with a dot are not looked at.

    Departs from torchvision's ImageFolder: 16-bit grey is scaled to 8 bits, not clipped; folders within a class are not
    searched.

    Args:
        dir: The folder.
        image_size: Side of the square images, 1..4096 px.
        num_images: Stop after this many readable images, 0 for all.
        resize_px: The shorter side before the cut, image_size..4096 px; 0 means image_size.

    Returns:
        images_u8 uint8 [N, image_size, image_size, 3], labels int64 [N], and the K class names; label k is
        class_names[k], the k-th of the class folders in sorted order.

    Raises:
        InputError: No folder, no class folders, a class folder without images, no image that can be read, or no
            image_size.
    """
    is_size = type(image_size) is int and 1 <= image_size <= MAX_IMAGE_SIZE_PX
    check(is_size, "image_size", image_size, f"the side of the square images, 1..{MAX_IMAGE_SIZE_PX} px")
    is_side = resize_px == 0 or image_size <= resize_px <= MAX_IMAGE_SIZE_PX
    check(is_side, "resize_px", resize_px, f"0 (image_size) or {image_size}..{MAX_IMAGE_SIZE_PX} px")
    decode = or_reason(partial(decode_image, image_size=image_size, resize_px=resize_px))
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
            decoded = pool.map(decode, (paths[i] for i in batch))
            for i, pixels in zip(batch, decoded, strict=True):
                if isinstance(pixels, str):
                    unreadable.append(f"{paths[i]} ({pixels})")
                else:
                    images_u8[len(kept)] = pixels
                    kept.append(i)
    report_unreadable(unreadable, position, dir)
    return images_u8[: len(kept)], labels[kept], class_names


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


def _list_images(dir: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray]:
    """Class names, paths by class and file name, and their labels, int64 [N]."""
    if not dir.is_dir():
        raise InputError(f"{dir}: no such folder; expected one with {LAYOUT}.")
    root = dir / "val" if (dir / "val").is_dir() else dir
    classes = list_classes(root)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(names) for names in classes.values()])
    return tuple(classes), [root / folder / name for folder, names in classes.items() for name in names], labels
