"""Data sets: uint8 images, and sources that yield batches of them from the device's memory or from image files."""

from typing import Any

from fastmagn.registry import lazy_attributes

_PUBLISHED_FILES = tuple(
    f"torchvision:{name}"
    for name in (
        *("Country211", "DTD", "FGVCAircraft", "Flowers102", "Food101"),
        *("GTSRB", "Imagenette", "OxfordIIITPet", "RenderedSST2", "StanfordCars"),
    )
)
# name -> "module:function"; a function takes (folder, download), those of ENCODED a DataConfig; it returns an ImageSet.
DATASETS: dict[str, Any] = {
    "cifar10": "fastmagn.data.cifar:load_cifar10",
    "cifar100": "fastmagn.data.cifar:load_cifar100",
    "digits": "fastmagn.data.digits:load_digits",
    "folder": "fastmagn.data.folder_set:open_image_folder",
    "webdataset": "fastmagn.data.webdataset_set:open_webdataset",
    "hf": "fastmagn.data.hf_set:open_hf",
    "npz": "fastmagn.data.npz_set:load_npz",
    "torchvision:CIFAR10": "fastmagn.data.cifar:load_cifar10",
    "torchvision:CIFAR100": "fastmagn.data.cifar:load_cifar100",
    "torchvision:EMNIST-balanced": "fastmagn.data.published.arrays:load_emnist_balanced",
    "torchvision:EMNIST-byclass": "fastmagn.data.published.arrays:load_emnist_byclass",
    "torchvision:EMNIST-bymerge": "fastmagn.data.published.arrays:load_emnist_bymerge",
    "torchvision:EMNIST-digits": "fastmagn.data.published.arrays:load_emnist_digits",
    "torchvision:EMNIST-letters": "fastmagn.data.published.arrays:load_emnist_letters",
    "torchvision:EMNIST-mnist": "fastmagn.data.published.arrays:load_emnist_mnist",
    "torchvision:FashionMNIST": "fastmagn.data.published.arrays:load_fashion_mnist",
    "torchvision:KMNIST": "fastmagn.data.published.arrays:load_kmnist",
    "torchvision:MNIST": "fastmagn.data.published.arrays:load_mnist",
    "torchvision:STL10": "fastmagn.data.published.arrays:load_stl10",
    "torchvision:SVHN": "fastmagn.data.published.arrays:load_svhn",
    **dict.fromkeys(_PUBLISHED_FILES, "fastmagn.data.published.files:load_published"),
}
# The sets of encoded images of any size, which are decoded, cropped and resized when they are read:
# name -> "module:function" of their test images alone; it takes a DataConfig and returns (FolderImages, class names).
ENCODED: dict[str, str] = {
    "folder": "fastmagn.data.folder_set:open_test_images",
    "webdataset": "fastmagn.data.webdataset_set:open_test_shards",
    "hf": "fastmagn.data.hf_set:open_test_table",
    **dict.fromkeys(_PUBLISHED_FILES, "fastmagn.data.published.files:open_published_test"),
}
# Sets of arrays whose test images can be read without training images: name -> "module:function"; it takes a folder.
ARRAYS_ALONE: dict[str, str] = {
    "npz": "fastmagn.data.npz_set:load_npz_test",
    **{
        f"{prefix}{name}": f"fastmagn.data.cifar:load_{name.lower()}_test"
        for prefix, names in (("", ("cifar10", "cifar100")), ("torchvision:", ("CIFAR10", "CIFAR100")))
        for name in names
    },
}
# Layouts of images of the user's own: name -> what a right data.dir looks like.
OWN = {
    "folder": "DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE",
    "webdataset": "DIR/train-000.tar, ... and DIR/val-000.tar, ..., with KEY.jpg and KEY.cls (or KEY.json) in them",
    "hf": "DIR/data/train-00000-of-00001.parquet and so on, or what save_to_disk wrote",
    "npz": "FILE.npz (or its folder) with train_images, train_labels, test_images and test_labels",
}

# Imported when used: the table above must not need torch.
_PUBLIC = {
    "Batch": "fastmagn.data.source:Batch",
    "DeviceSource": "fastmagn.data.source:DeviceSource",
    "FolderImages": "fastmagn.data.files.on_demand:FolderImages",
    "FolderSource": "fastmagn.data.folder_source:FolderSource",
    "ImagePart": "fastmagn.data.image_set:ImagePart",
    "ImageSet": "fastmagn.data.image_set:ImageSet",
    "Source": "fastmagn.data.source:Source",
    "load_data": "fastmagn.data.loading:load_data",
    "load_folder_images": "fastmagn.data.files.on_demand:load_folder_images",
    "load_images": "fastmagn.data.loading:load_images",
    "load_measured": "fastmagn.data.loading:load_measured",
    "load_test": "fastmagn.data.loading:load_test",
    "make_source": "fastmagn.data.folder_source:make_source",
    "open_corrupted": "fastmagn.data.corrupted.npy:open_corrupted",
    "split_validation": "fastmagn.data.image_set:split_validation",
}
__all__ = ["ARRAYS_ALONE", "DATASETS", "ENCODED", "OWN", *_PUBLIC]
__getattr__ = lazy_attributes(__name__, _PUBLIC)
