"""What `python -m fastmagn.corrupt` makes. Kept apart from its code so that `--help` need not import PyTorch."""

from dataclasses import dataclass
from pathlib import Path

from fastmagn.config.corruption_sets import set_parts
from fastmagn.corruptions import MIN_SIDE_PX
from fastmagn.data import DATASETS, ENCODED
from fastmagn.data.files.decoding import MAX_IMAGE_SIZE_PX
from fastmagn.errors import UnknownName, check, nearest
from fastmagn.registry import is_own


@dataclass(frozen=True, kw_only=True)
class CorruptConfig:
    """Which -C set to make, and where.

    Args:
        out: Folder of the set; it must be empty or not exist yet.
        dataset: Whose test images: cifar10, cifar100, digits (needs no data_dir), folder (data_dir/CLASS/IMAGE, or
            data_dir/val/CLASS/IMAGE where there is a val), webdataset (data_dir/val-*.tar), hf (parquet or arrow
            files), npz (NumPy arrays), or torchvision:NAME.
        data_dir: Folder that holds cifar-10-batches-py or cifar-100-python, class folders, shards, or arrays.
        download: Download a missing CIFAR set into data_dir; for hf, the set of the hub that data_dir names.
        num_images: Number of test images to use; 0 means all. Of CIFAR, digits and torchvision's arrays the first ones;
            of image files and your own images, drawn evenly over the classes by seed.
        seed: Seed of the corruptions, and of the images drawn by class, 0..2^64 - 1.
        jpeg: Pass corrupted images of 64 px and more through JPEG of quality 85, as the published Tiny-ImageNet-C and
            ImageNet-C are stored. Smaller ones, as CIFAR-10-C's, never are.
        corruption_set: c19 (all of CIFAR-10-C or ImageNet-C), c18 (without gaussian_noise, the paper's), c15 (the usual
            benchmark's), cbar (C-bar's ten: CIFAR-10-C-bar's below 64 px, else ImageNet-C-bar's); a single one, such as
            fog; or several of these joined by +, such as c15+cbar.
        image_size: For folder, webdataset and hf: side of the square images in px, 8..4096; the centre is kept.
        resize_px: For folder, webdataset and hf: as data.eval_resize_px; measure the set with the same value.
        test_shards: For webdataset and hf: the files, as the trainer's data.test_shards.
        image_column: For hf: as data.image_column.
        label_column: For webdataset and hf: as data.label_column.
    """

    out: Path
    dataset: str | None = None
    data_dir: Path | None = None
    download: bool = False
    num_images: int = 0
    seed: int = 0
    jpeg: bool = True
    corruption_set: str = "c19"
    image_size: int | None = None
    resize_px: int = 0
    test_shards: str | None = None
    image_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        if self.dataset is not None and self.dataset not in DATASETS:
            hint = nearest(self.dataset, DATASETS)
            raise UnknownName(f"dataset: got {self.dataset!r}; expected one of {', '.join(DATASETS)}.{hint}")
        needs_dir = (
            self.dataset not in (None, "digits") and not is_own(DATASETS, self.dataset) and self.data_dir is None
        )
        check(not needs_dir, "data_dir", None, f"the folder of {self.dataset}'s files (digits needs none)")
        set_parts("corruption_set", self.corruption_set)
        check(self.num_images >= 0, "num_images", self.num_images, "0 (all) or more")
        check(0 <= self.seed < 2**64, "seed", self.seed, "0..2^64 - 1")
        if self.dataset in ENCODED:
            in_range = self.image_size is not None and MIN_SIDE_PX <= self.image_size <= MAX_IMAGE_SIZE_PX
            check(
                in_range,
                "image_size",
                self.image_size,
                f"{MIN_SIDE_PX}..{MAX_IMAGE_SIZE_PX} px for dataset {self.dataset}",
            )
            can_resize = self.resize_px == 0 or (self.image_size or 0) <= self.resize_px <= MAX_IMAGE_SIZE_PX
            check(
                can_resize,
                "resize_px",
                self.resize_px,
                f"0 (image_size * 256 / 224) or {self.image_size}..{MAX_IMAGE_SIZE_PX} px",
            )
        elif self.dataset is not None:
            check(self.image_size is None, "image_size", self.image_size, f"none: {self.dataset} has its own")
            check(self.resize_px == 0, "resize_px", self.resize_px, f"none: {self.dataset} has its own image size")
