"""Published sets of image files: which files are for training and which for testing, and their labels.

The layouts are those that torchvision's classes expect below `data.dir`. Training images are those of a class's default
split, which is trainval for FGVCAircraft and OxfordIIITPet and train for the others; where there is a val besides, it
is not used. Test images are those of its split test, val for Imagenette. Labels and the order are torchvision's.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data.encoded_set import encoded_set
from fastmagn.data.files.decoding import lost_classes, warn_of_lost_classes
from fastmagn.data.files.headers import ImageFiles, scan
from fastmagn.data.files.listing import class_folders, image_names
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet
from fastmagn.data.published.reading import check_inside, read_json, read_lines, read_mat, require_files, spoilt
from fastmagn.errors import InputError, some

_TRAIN, _TEST = "train", "test"


class ImageList(NamedTuple):
    """The files of a split.

    Args:
        source: The file or folder that lists them, for messages.
        names: Paths relative to `data.dir`.
        labels: One for each file, 0..K-1.
        class_names: K names.
    """

    source: Path
    names: list[str]
    labels: list[int]
    class_names: tuple[str, ...]


class PublishedSet(NamedTuple):
    """Where a published set lies.

    Args:
        list_images: (DIR, train or test) -> the files of that split.
        files: What must be in DIR; a folder ends with a slash.
        layout: What a right folder looks like.
    """

    list_images: Callable[[Path, str], ImageList]
    files: tuple[str, ...]
    layout: str


def load_published(config: DataConfig) -> ImageSet:
    """The published set `config.name`, torchvision:NAME, in `config.dir`; only headers of the images are read.

    Raises:
        InputError: A file is missing or is not the published one, the splits have different classes, or no image of a
            class can be read.
    """
    train, test = _list_both(config)
    train_files = _scan(config, train)
    lost = lost_classes(train.class_names, train_files.labels)
    if lost:
        raise InputError(
            f"{train.source}: no training image of {len(lost)} of {len(train.class_names)} classes can be read:"
            f" {some(lost)}; expected the published files. Download them again."
        )
    return encoded_set(config, train_files, _scan_test(config, test), train.class_names)


def open_published_test(config: DataConfig) -> tuple[FolderImages, tuple[str, ...]]:
    """The test images of a published set, and its class names; only headers are read. Raises as `load_published`."""
    _, test = _list_both(config)
    return FolderImages(_scan_test(config, test), config), test.class_names


def _list_both(config: DataConfig) -> tuple[ImageList, ImageList]:
    """The files of train and of test, whose labels mean the same classes."""
    train, test = _list(config, _TRAIN), _list(config, _TEST)
    if train.class_names != test.class_names:
        lacking = [
            f"{split.source} lacks {some(absent)}"
            for split, other in ((train, test), (test, train))
            if (absent := [name for name in other.class_names if name not in split.class_names])
        ]
        fault = " and ".join(lacking) or f"{train.source} and {test.source} order the classes differently"
        raise InputError(f"{fault}; expected the same classes in both. Download the published files again.")
    return train, test


def _list(config: DataConfig, split: str) -> ImageList:
    """The files of a split; nothing of them is read yet."""
    title = config.name.partition(":")[2]
    published, root = SETS[title], Path(config.dir)
    require_files(root, list(published.files), title, published.layout)
    listed = published.list_images(root, split)
    check_inside(listed.source, listed.names)
    num_classes = len(listed.class_names)
    if not listed.names or not all(0 <= label < num_classes for label in listed.labels):
        spoilt(listed.source, f"lists {len(listed.names)} images of {num_classes} classes with labels out of range")
    return listed


def _scan(config: DataConfig, listed: ImageList) -> ImageFiles:
    return scan(Path(config.dir), listed.names, np.array(listed.labels, np.int64))


def _scan_test(config: DataConfig, listed: ImageList) -> ImageFiles:
    files = _scan(config, listed)
    present = [name for label, name in enumerate(listed.class_names) if label in listed.labels]
    read = {listed.class_names[label] for label in np.unique(files.labels)}
    warn_of_lost_classes([name for name in present if name not in read], Path(config.dir))
    return files


def _of_folders(root: Path, folder: str, suffixes: tuple[str, ...] = ()) -> ImageList:
    """The files in class folders, sorted as by torchvision; with suffixes, only those."""
    classes = class_folders(root / folder)
    names, labels = [], []
    for label, name in enumerate(classes):
        inside = [image for image in image_names(root / folder / name) if image.lower().endswith(suffixes or ("",))]
        names += [f"{folder}/{name}/{image}" for image in inside]
        labels += [label] * len(inside)
    return ImageList(root / folder, names, labels, tuple(classes))


def _list_country211(root: Path, split: str) -> ImageList:
    return _of_folders(root, f"country211/{split}")


def _list_rendered_sst2(root: Path, split: str) -> ImageList:
    return _of_folders(root, f"rendered-sst2/{split}", (".png",))


def _list_imagenette(root: Path, split: str) -> ImageList:
    return _of_folders(root, f"imagenette2/{'val' if split == _TEST else split}", (".jpeg",))


def _list_dtd(root: Path, split: str) -> ImageList:
    """DTD's first partition."""
    source = root / f"dtd/dtd/labels/{split}1.txt"
    lines = read_lines(source)
    names = [f"dtd/dtd/images/{line}" for line in lines]
    return _by_name(source, names, [line.partition("/")[0] for line in lines])


def _list_food(root: Path, split: str) -> ImageList:
    source = root / f"food-101/meta/{split}.json"
    content = read_json(source)
    is_list = isinstance(content, dict) and all(
        isinstance(files, list) and all(isinstance(file, str) for file in files) for files in content.values()
    )
    if not is_list:
        spoilt(source, "is not an object of lists of files")
    names = [f"food-101/images/{file}.jpg" for files in content.values() for file in files]
    return _by_name(source, names, [name for name, files in content.items() for _ in files])


def _by_name(source: Path, names: list[str], classes: list[str]) -> ImageList:
    """Files whose classes are numbered in the order of their names."""
    class_names = tuple(sorted(set(classes)))
    labels = {name: label for label, name in enumerate(class_names)}
    return ImageList(source, names, [labels[name] for name in classes], class_names)


def _list_aircraft(root: Path, split: str) -> ImageList:
    """The 100 variants; trained on trainval."""
    folder = root / "fgvc-aircraft-2013b/data"
    class_names = tuple(read_lines(folder / "variants.txt"))
    labels = {name: label for label, name in enumerate(class_names)}
    source = folder / f"images_variant_{'trainval' if split == _TRAIN else split}.txt"
    pairs = [line.partition(" ") for line in read_lines(source)]
    unknown = [name for _, _, name in pairs if name not in labels]
    if unknown:
        spoilt(source, f"has classes that are not in variants.txt: {some(map(repr, unknown))}")
    names = [f"fgvc-aircraft-2013b/data/images/{image}.jpg" for image, _, _ in pairs]
    return ImageList(source, names, [labels[name] for _, _, name in pairs], class_names)


def _list_pets(root: Path, split: str) -> ImageList:
    """The 37 breeds; trained on trainval. A breed's name is that of its files."""
    source = root / f"oxford-iiit-pet/annotations/{'trainval' if split == _TRAIN else split}.txt"
    rows = [line.split() for line in read_lines(source)]
    if not all(len(row) == 4 and row[1].isdecimal() for row in rows):
        spoilt(source, "has lines that are not IMAGE CLASS SPECIES BREED")
    labels = [int(row[1]) - 1 for row in rows]
    titles = {
        label: row[0].rpartition("_")[0].replace("_", " ").title() for label, row in zip(labels, rows, strict=True)
    }
    if sorted(titles) != list(range(len(titles))):
        spoilt(source, "has no images of some classes")
    names = [f"oxford-iiit-pet/images/{row[0]}.jpg" for row in rows]
    return ImageList(source, names, labels, tuple(titles[label] for label in range(len(titles))))


def _list_gtsrb(root: Path, split: str) -> ImageList:
    train = _of_folders(root, "gtsrb/GTSRB/Training", (".ppm",))
    numbered = tuple(f"{label:05}" for label in range(len(train.class_names)))
    if train.class_names != numbered:  # the test images' labels are numbers, whatever folders there are
        first = next(name for name in numbered if name not in train.class_names)
        spoilt(train.source, f"has no folder {first} among its {len(numbered)} class folders")
    if split == _TRAIN:
        return train
    source = root / "gtsrb/GT-final_test.csv"
    rows = list(csv.DictReader(read_lines(source), delimiter=";", skipinitialspace=True))
    if not all(row.get("Filename") and (row.get("ClassId") or "").isdecimal() for row in rows):
        spoilt(source, "has no columns Filename and ClassId")
    names = [f"gtsrb/GTSRB/Final_Test/Images/{row['Filename']}" for row in rows]
    return ImageList(source, names, [int(row["ClassId"]) for row in rows], train.class_names)


def _list_flowers(root: Path, split: str) -> ImageList:
    """The 102 flowers, numbered; trained on the 1,020 images of train."""
    folder = root / "flowers-102"
    column = {_TRAIN: "trnid", _TEST: "tstid"}[split]
    ids = read_mat(folder / "setid.mat", {column: 2})[column].ravel()
    labels = read_mat(folder / "imagelabels.mat", {"labels": 2})["labels"].ravel()
    if ids.dtype.kind not in "iu" or labels.dtype.kind not in "iu" or not (1 <= ids.min() <= ids.max() <= len(labels)):
        spoilt(folder / "setid.mat", "names images that imagelabels.mat does not have")
    classes = tuple(str(label) for label in range(1, int(labels.max()) + 1))
    names = [f"flowers-102/jpg/image_{image:05d}.jpg" for image in ids.tolist()]
    return ImageList(folder / "setid.mat", names, (labels[ids - 1].astype(np.int64) - 1).tolist(), classes)


def _list_cars(root: Path, split: str) -> ImageList:
    folder = root / "stanford_cars"
    place = "devkit/cars_train_annos.mat" if split == _TRAIN else "cars_test_annos_withlabels.mat"
    rows = read_mat(folder / place, {"annotations": 2})["annotations"].ravel()
    texts = read_mat(folder / "devkit/cars_meta.mat", {"class_names": 2})["class_names"].ravel()
    try:
        names = [f"stanford_cars/cars_{split}/{row['fname'].item()}" for row in rows]
        labels = [int(row["class"].item()) - 1 for row in rows]
        class_names = tuple(str(text.item()) for text in texts)
    except (ValueError, TypeError, LookupError, AttributeError):
        spoilt(folder / place, "has no fname and class for each image")
    return ImageList(folder / place, names, labels, class_names)


SETS = {
    "Country211": PublishedSet(
        *(_list_country211, ("country211/train/", "country211/test/"), "country211/{train,test}/CLASS/IMAGE")
    ),
    "DTD": PublishedSet(
        _list_dtd,
        ("dtd/dtd/labels/train1.txt", "dtd/dtd/labels/test1.txt", "dtd/dtd/images/"),
        "dtd/dtd/images/CLASS/IMAGE and dtd/dtd/labels/{train1,test1}.txt",
    ),
    "FGVCAircraft": PublishedSet(
        _list_aircraft,
        tuple(
            f"fgvc-aircraft-2013b/data/{name}"
            for name in ("variants.txt", "images_variant_trainval.txt", "images_variant_test.txt", "images/")
        ),
        "fgvc-aircraft-2013b/data with variants.txt, images_variant_{trainval,test}.txt and images/IMAGE.jpg",
    ),
    "Flowers102": PublishedSet(
        _list_flowers,
        ("flowers-102/setid.mat", "flowers-102/imagelabels.mat", "flowers-102/jpg/"),
        "flowers-102 with setid.mat, imagelabels.mat and jpg/image_00001.jpg",
    ),
    "Food101": PublishedSet(
        _list_food,
        ("food-101/meta/train.json", "food-101/meta/test.json", "food-101/images/"),
        "food-101/images/CLASS/IMAGE.jpg and food-101/meta/{train,test}.json",
    ),
    "GTSRB": PublishedSet(
        _list_gtsrb,
        ("gtsrb/GTSRB/Training/", "gtsrb/GTSRB/Final_Test/Images/", "gtsrb/GT-final_test.csv"),
        "gtsrb/GTSRB/Training/CLASS/IMAGE.ppm, gtsrb/GTSRB/Final_Test/Images/IMAGE.ppm and gtsrb/GT-final_test.csv",
    ),
    "Imagenette": PublishedSet(
        *(_list_imagenette, ("imagenette2/train/", "imagenette2/val/"), "imagenette2/{train,val}/CLASS/IMAGE.JPEG")
    ),
    "OxfordIIITPet": PublishedSet(
        _list_pets,
        ("oxford-iiit-pet/annotations/trainval.txt", "oxford-iiit-pet/annotations/test.txt", "oxford-iiit-pet/images/"),
        "oxford-iiit-pet/images/IMAGE.jpg and oxford-iiit-pet/annotations/{trainval,test}.txt",
    ),
    "RenderedSST2": PublishedSet(
        _list_rendered_sst2,
        ("rendered-sst2/train/", "rendered-sst2/test/"),
        "rendered-sst2/{train,test}/{negative,positive}/IMAGE.png",
    ),
    "StanfordCars": PublishedSet(
        _list_cars,
        (
            *("stanford_cars/devkit/cars_train_annos.mat", "stanford_cars/devkit/cars_meta.mat"),
            *("stanford_cars/cars_test_annos_withlabels.mat", "stanford_cars/cars_train/", "stanford_cars/cars_test/"),
        ),
        "stanford_cars with cars_train/IMAGE.jpg, cars_test/IMAGE.jpg, devkit/{cars_train_annos,cars_meta}.mat and"
        " cars_test_annos_withlabels.mat",
    ),
}
