"""A user's own images, DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE: listed at the start, decoded when needed.

Tiny-ImageNet's val, whose images are in one folder, is read as it is unzipped (`files.annotations`).

Decoded at once, ImageNet's 50,000 validation images of 224 px would take 7.5 GB in every process, 0.15 MB per image.
"""

from collections.abc import Mapping
from pathlib import Path

from fastmagn.config.schema import DataConfig
from fastmagn.data.encoded_set import encoded_set
from fastmagn.data.files.decoding import lost_classes, warn_of_lost_classes
from fastmagn.data.files.headers import scan
from fastmagn.data.files.listing import LAYOUT, class_files, list_classes
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError, MissingSplit, some


def open_test_images(config: DataConfig) -> tuple[FolderImages, tuple[str, ...]]:
    """The images of DIR/CLASS/*, or of DIR/val/CLASS/* if DIR/val exists, and the class names; only headers are read.

    Raises:
        InputError: The folder does not exist, it has no class folders, a class folder has no images, or no image can be
            read.
    """
    root = Path(config.dir)
    root = root / "val" if (root / "val").is_dir() else root
    classes = list_classes(root)
    files = scan(root, *class_files(classes, range(len(classes))))
    warn_of_lost_classes(lost_classes(tuple(classes), files.labels), root)
    return FolderImages(files, config), tuple(classes)


def open_image_folder(config: DataConfig) -> ImageSet:
    """The image set in `config.dir`; only headers are read.

    Label k is the k-th of train's class folders, sorted. A class may have no validation images, but it must have
    training images.

    Raises:
        InputError: The folder, its train or its val does not exist; there are no class folders, or one in train; one of
            them is empty or is in val only; or no image can be read. MissingSplit if there is a val without a train.
    """
    root = Path(config.dir)
    train, val = root / "train", root / "val"
    for folder in (root, train, val):
        if not folder.is_dir():
            kind = MissingSplit if folder == train and val.is_dir() else InputError
            raise kind(f"data.dir: {folder}: no such folder; expected {root}/train and {root}/val, each with {LAYOUT}.")
    train_classes = list_classes(train)
    _check_several(train, train_classes)
    val_classes = list_classes(val)
    unknown = [name for name in val_classes if name not in train_classes]
    if unknown:
        raise InputError(
            f"{val}: {len(unknown)} of {len(val_classes)} class folders are not in {train}: {some(unknown)}; expected"
            " classes with training images. Add them to train, or remove them from val."
        )
    labels = {name: label for label, name in enumerate(train_classes)}
    train_files = scan(train, *class_files(train_classes, labels.values()))
    lost = lost_classes(tuple(train_classes), train_files.labels)
    if lost:
        raise InputError(
            f"{train}: no image of {len(lost)} of {len(labels)} classes can be read: {some(lost)}; expected classes"
            " with training images. Repair these files, or remove these classes."
        )
    val_files = scan(val, *class_files(val_classes, (labels[name] for name in val_classes)))
    warn_of_lost_classes([name for name in val_classes if labels[name] not in val_files.labels], val)
    return encoded_set(config, train_files, val_files, tuple(train_classes))


def _check_several(train: Path, classes: Mapping[str, list[str]]) -> None:
    """Refuse a single class, of which any network knows every image. The classes often lie one level too deep."""
    if len(classes) > 1:
        return
    ((name, images),) = classes.items()
    inner = sorted({inside[0] for image in images if len(inside := image.split("/")[1:]) > 1})
    deeper = (
        f" The images lie in its subfolders {some(inner)}: if these are the classes, move them up." if inner else ""
    )
    raise InputError(f"{train}: has one class folder, {name}; expected two or more, CLASS/IMAGE in it.{deeper}")
