"""Tar shards in WebDataset's layout, DIR/train-000.tar and DIR/val-000.tar, as an image set.

The order of an epoch is exact: a permutation of all images, by an index of each shard that is made once. Each image is
read from its place in its shard, one read of its size, as a file of a folder is. So nothing depends on the number of
shards, processes or workers, and no window of images is kept in memory. What it costs: on disks that only stream well
(object stores mounted as folders, spinning disks), random reads are slower than reading whole shards in turn.
"""

from functools import partial
from pathlib import Path

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.files.shard_index import Indexed, index_shards
from fastmagn.data.files.shards import TEST, TRAIN, find_shards
from fastmagn.data.files.tar_members import read_tar
from fastmagn.data.image_set import ImageSet
from fastmagn.data.shard_labels import sharded_set, sharded_test

_LABEL = "label"


def open_webdataset(config: DataConfig) -> ImageSet:
    """The image set of `config.dir`; only archives' headers, labels and images' headers are read.

    Classes are named by DIR/classes.txt (or classnames.txt), one a line; else by the labels themselves.

    Raises:
        InputError: Shards are missing or damaged; a sample has no label, one that is out of range, or two images; or no
            image can be read.
    """
    return sharded_set(config, _indexed(config, TRAIN), _indexed(config, TEST))


def open_test_shards(config: DataConfig) -> tuple[FolderImages, tuple[str, ...]]:
    """The test images and the class names; without a file of class names, the test labels name the classes.

    Raises:
        InputError: As `open_webdataset`.
    """
    return sharded_test(config, _indexed(config, TEST))


def _indexed(config: DataConfig, splits: tuple[str, ...]) -> Indexed:
    root, column = Path(config.dir), config.label_column or _LABEL
    is_train = splits == TRAIN
    pattern = config.train_shards if is_train else config.test_shards
    shards = find_shards(root, splits, (".tar",), pattern, f"data.{'train' if is_train else 'test'}_shards")
    read = partial(read_tar, label_column=column)
    return index_shards(root, shards, [str(root / shard) for shard in shards], read, f"tar {column}")
