"""A user's own images, DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE: listed at the start, decoded when needed.

Decoded at once, ImageNet's 50,000 validation images of 224 px would take 7.5 GB in every process, 0.15 MB per image.
"""

from pathlib import Path

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.headers import ImageFiles, scan
from fastmagn.data.files.listing import LAYOUT, list_classes
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError, some

# ImageNet's mean and standard deviation, which networks trained on photographs expect. A folder's own would take a pass
# over all its images.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def open_image_folder(config: DataConfig) -> ImageSet:
    """The image set in `config.dir`; only headers are read.

    Label k is the k-th of train's class folders, sorted. A class may have no validation images, but it must have
    training images.

    Raises:
        InputError: The folder, its train or its val does not exist; there are no class folders; one of them is empty or
            is in val only; or no image can be read.
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
