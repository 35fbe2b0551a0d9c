"""Parquet and Arrow files of Hugging Face `datasets`, in a folder or on the hub, as an image set.

The rows' encoded images are read from their places in the Arrow files, so an epoch's order is exact, as for tar shards.
"""

import os
from pathlib import Path
from typing import Any

from fastmagn.config.schema import DataConfig
from fastmagn.data import OWN
from fastmagn.data.files.arrow_rows import Columns, as_arrow, find_columns, read_rows
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.files.shard_index import Indexed, index_shards
from fastmagn.data.files.shards import TEST, TRAIN, find_shards, tell_of_others
from fastmagn.data.image_set import ImageSet
from fastmagn.data.shard_labels import named_as_in_train, named_classes, sharded_set, sharded_test
from fastmagn.errors import InputError, MissingSplit, one_line, without

_EMBEDDED_AT_A_TIME = 100
_SUFFIXES = (".parquet", ".arrow")


def open_hf(config: DataConfig) -> ImageSet:
    """The image set of `config.dir`, a folder or a name on the hub; only labels and images' headers are read.

    Classes are named by the features, else by DIR/classes.txt, else by the labels themselves. Test's features may name
    fewer classes than train's, or in another order.

    Raises:
        InputError: Files are missing or damaged; a column is missing or of another type; a label is missing or out of
            range; a test image is of a class that train lacks; or no image can be read.
    """
    (train, names), (test, test_names) = _indexed(config, TRAIN), _indexed(config, TEST)
    names = names or named_classes(Path(config.dir))
    if test_names not in (None, names):
        test = named_as_in_train(Path(config.dir), train, names, test, test_names)
    return sharded_set(config, train, test, names)


def open_test_table(config: DataConfig) -> tuple[FolderImages, tuple[str, ...]]:
    """The test images and the class names, which the features, a file or the test labels tell.

    Raises:
        InputError: As `open_hf`.
    """
    return sharded_test(config, *_indexed(config, TEST))


def _indexed(config: DataConfig, splits: tuple[str, ...]) -> tuple[Indexed, tuple[str, ...] | None]:
    root = Path(config.dir)
    files = _files(config, splits)
    names = [os.path.relpath(file, root) if root.is_dir() else os.path.basename(file) for file in files]
    columns = find_columns(files[0], config.image_column, config.label_column)
    for file in files[1:]:
        other = find_columns(file, columns.image, columns.label)
        if other.class_names != columns.class_names:
            raise InputError(f"{file}: its class names differ from those of {files[0]}; expected the same in each.")
    arrow = as_arrow(files, columns)
    made_of = dict(zip(arrow, files, strict=True))
    wanted = Columns(columns.image, columns.label, None)
    kind = f"arrow {columns.image} {columns.label}"
    indexed = index_shards(root, names, arrow, lambda path: read_rows(path, wanted, made_of[path]), kind)
    return indexed, columns.class_names


def _files(config: DataConfig, splits: tuple[str, ...]) -> list[str]:
    root, is_train = Path(config.dir), splits == TRAIN
    pattern = config.train_shards if is_train else config.test_shards
    field = f"data.{'train' if is_train else 'test'}_shards"
    if not root.is_dir() and config.download:
        return hub_files(str(config.dir), (pattern,) if pattern else splits, field)
    if not root.exists():
        raise InputError(
            f"data.dir: {root}: no such folder; expected {OWN['hf']}; or the name of a set on the hub, with"
            " --data.download true."
        )
    found = find_shards(root, splits, _SUFFIXES, pattern, field)
    return [str(root / name) for name in found]


def hub_files(name: str, splits: tuple[str, ...], field: str = "data.test_shards") -> list[str]:
    """The arrow files of a split of a data set on the hub, which `datasets` downloads into its own cache.

    Args:
        name: The data set, OWNER/NAME.
        splits: Names of the split; the first that the set has counts.
        field: Where another one would be named.

    Raises:
        InputError: `datasets` is not installed, cannot get the set, or the set has no such split.
    """
    try:
        import datasets
    except ImportError as error:
        needs = f"data.dir: {name}: no such folder; a name on the hub needs 'fastmagn[hf]'."
        raise without("datasets", error, needs) from error
    try:
        loaded = datasets.load_dataset(name)
        split = next((split for split in splits if split in loaded), None)
        files = [] if split is None else [file["filename"] for file in _with_bytes(loaded[split]).cache_files]
    except Exception as error:  # of many types: no network, no such name, a set that would run code
        raise InputError(
            f"data.dir: {name}: no such folder, and Hugging Face datasets cannot load it ({one_line(error)}); expected"
            " a folder of parquet or arrow files, or the name of a data set on the hub."
        ) from error
    if split is None:
        raise MissingSplit(f"data.dir: {name}: has no split {' or '.join(splits)}; its splits are {', '.join(loaded)}.")
    tell_of_others(name, split, [other for other in splits[splits.index(split) + 1 :] if other in loaded], field)
    return files


def _with_bytes(dataset: Any) -> Any:
    """The split with the images' bytes in it: of a set of image files, `datasets` keeps only where they lie."""
    if dataset.builder_name != "imagefolder":
        return dataset
    from datasets.table import embed_table_storage

    return dataset.with_format("arrow").map(embed_table_storage, batched=True, batch_size=_EMBEDDED_AT_A_TIME)
