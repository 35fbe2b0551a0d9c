"""A user's own images, DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE: listed at the start, decoded when needed.

Decoded at once, ImageNet's 50,000 validation images of 224 px would take 7.5 GB in every process, 0.15 MB per image.
"""

from pathlib import Path

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.decoding import lost_classes, warn_of_lost_classes
from fastmagn.data.files.headers import scan
from fastmagn.data.files.listing import LAYOUT, class_files, list_classes
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError, some

# ImageNet's mean and standard deviation, which networks trained on photographs expect. A folder's own would take a pass
# over all its images.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def open_test_images(dir: Path, image_size: int, resize_px: int = 0) -> tuple[FolderImages, tuple[str, ...]]:
    """The images of DIR/CLASS/*, or of DIR/val/CLASS/* if DIR/val exists, and the class names; only headers are read.

    Args:
        dir: The folder.
        image_size: Side of the square images, 8..4096 px.
        resize_px: The shorter side before the square is cut out, image_size..4096 px; 0 means image_size.

    Raises:
        InputError: The folder does not exist, it has no class folders, a class folder has no images, or no image can be
            read.
    """
    root = Path(dir) / "val" if (Path(dir) / "val").is_dir() else Path(dir)
    classes = list_classes(root)
    files = scan(root, *class_files(classes, range(len(classes))))
    warn_of_lost_classes(lost_classes(tuple(classes), files.labels), root)
    config = DataConfig(name="folder", dir=dir, image_size=image_size, eval_resize_px=resize_px or image_size)
    return FolderImages(files, config), tuple(classes)


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
    train_files = scan(train, *class_files(train_classes, labels.values()))
    lost = lost_classes(tuple(train_classes), train_files.labels)
    if lost:
        raise InputError(
            f"{train}: no image of {len(lost)} of {len(labels)} classes can be read: {some(lost)}; expected classes"
            " with training images. Repair these files, or remove these classes."
        )
    val_files = scan(val, *class_files(val_classes, (labels[name] for name in val_classes)))
    warn_of_lost_classes([name for name in val_classes if labels[name] not in val_files.labels], val)
    train_images, val_images = FolderImages(train_files, config), FolderImages(val_files, config)
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
