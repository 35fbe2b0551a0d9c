"""A user's own images, DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE: found at the start, decoded when they are needed.

ImageNet's 50,000 validation images of 224 px would be 7.5 GB on every process; a batch of them is 0.15 MB an image.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numba
import numpy as np

from fastmagn.config import DataConfig
from fastmagn.data.folder import decode_image
from fastmagn.data.image_files import LAYOUT, ImageFiles, list_classes, or_reason, scan, some
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError

# ImageNet's, which networks trained on photographs expect. The images of a folder are not read to compute theirs.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
GREY = 128  # stands in for an image that cannot be decoded
_RESIZE_TO_CROP = 256 / 224


class FolderImages:
    """The central squares of image files, as an array uint8 [N, S, S, 3] that is decoded when it is read.

    Indexed by a slice or by int64 [n] rows it gives fewer images, not pixels; `np.asarray` decodes them: shorter side
    to `eval_resize_px` (bicubic, antialiased), centre cropped to `image_size`, as `load_folder_images` does. An image
    that turns out not to decode, though its header was whole, is mid-grey; a warning counts these.

    Pillow decodes here whatever `data.source` says, so that a measured accuracy does not depend on it.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: ImageFiles, config: DataConfig) -> None:
        self.files, self.config = files, config

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.files), self.config.image_size, self.config.image_size, 3)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the files' names, labels and sizes."""
        return self.files.fingerprint

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | np.ndarray) -> "FolderImages":
        return FolderImages(self.files[rows], self.config)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in files cannot be given without being decoded")
        images_u8 = np.empty(self.shape, np.uint8)
        decode = or_reason(partial(decode_image, image_size=self.config.image_size, resize_px=resize_px(self.config)))
        unreadable = []
        with ThreadPoolExecutor(num_threads(self.config)) as pool:
            paths = [self.files.path(row) for row in range(len(self))]
            for row, pixels in enumerate(pool.map(decode, paths)):
                images_u8[row] = GREY if isinstance(pixels, str) else pixels
                if isinstance(pixels, str):
                    unreadable.append(f"{paths[row]} ({pixels})")
        warn_of_grey(unreadable, self.files.root)
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)


def warn_of_grey(unreadable: list[str], root: Path) -> None:
    """Say which images were mid-grey because they could not be decoded, if any."""
    if unreadable:
        warnings.warn(
            f"{root}: {len(unreadable)} images cannot be decoded, though their headers can be read; mid-grey stands in"
            f" for them: {some(unreadable)}.",
            stacklevel=3,
        )


def num_threads(config: DataConfig) -> int:
    """Threads that decode for this process; `data.num_workers`, or one a core that it has of the host's."""
    return config.num_workers or numba.get_num_threads()  # join_world shares the cores of a host


def resize_px(config: DataConfig) -> int:
    """The shorter side of a validation image before the centre crop, px."""
    return config.eval_resize_px or round(config.image_size * _RESIZE_TO_CROP)


def open_image_folder(config: DataConfig) -> ImageSet:
    """The image set in `config.dir`; only headers are read.

    Label k is the k-th of the class folders of train, sorted. A class may lack validation images, not training images.

    Raises:
        InputError: No folder, no train or val in it, no class folders, an empty one, a class only in val, nothing that
            can be read.
    """
    root = Path(config.dir)
    train, val = root / "train", root / "val"
    for folder in (root, train, val):
        if not folder.is_dir():
            raise InputError(
                f"data.dir: {folder}: no such folder; expected {root}/train and {root}/val, each with {LAYOUT}."
            )
    train_classes, val_classes = list_classes(train), list_classes(val)
    unknown = [name for name in val_classes if name not in train_classes]
    if unknown:
        raise InputError(
            f"{val}: {len(unknown)} of {len(val_classes)} class folders are not in {train}: {some(unknown)}; expected"
            " classes with training images. Add them to train, or remove them from val."
        )
    labels = {name: label for label, name in enumerate(train_classes)}
    train_images, val_images = (
        FolderImages(_scan_classes(folder, classes, labels), config)
        for folder, classes in ((train, train_classes), (val, val_classes))
    )
    return ImageSet(
        name="folder",
        class_names=tuple(train_classes),
        mean=MEAN,
        std=STD,
        train_images_u8=train_images,
        train_labels=train_images.files.labels,
        test_images_u8=val_images,
        test_labels=val_images.files.labels,
    )


def _scan_classes(root: Path, classes: dict[str, list[str]], labels: dict[str, int]) -> ImageFiles:
    names = [f"{folder}/{name}" for folder, files in classes.items() for name in files]
    numbers = np.repeat([labels[folder] for folder in classes], [len(files) for files in classes.values()])
    return scan(root, names, numbers.astype(np.int64))
