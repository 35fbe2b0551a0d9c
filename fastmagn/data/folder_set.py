"""A user's own images, DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE: found at the start, decoded when they are needed.

ImageNet's 50,000 validation images of 224 px would be 7.5 GB on every process; a batch of them is 0.15 MB an image.
"""

from pathlib import Path

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.headers import ImageFiles, scan
from fastmagn.data.files.listing import LAYOUT, list_classes, some
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError

# ImageNet's, which networks trained on photographs expect. The images of a folder are not read to compute theirs.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


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
