"""An image set of encoded images, which are decoded when they are read: of a folder, of shards, or of a table."""

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.headers import ImageFiles
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet

# ImageNet's mean and standard deviation, which networks trained on photographs expect. A set's own would take a pass
# over all its images.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def encoded_set(config: DataConfig, train: ImageFiles, test: ImageFiles, class_names: tuple[str, ...]) -> ImageSet:
    """The image set `config.name` of these images; label k is class_names[k]."""
    train_images, test_images = FolderImages(train, config), FolderImages(test, config)
    return _image_set(config, train_images, test_images, class_names)


def encoded_test(config: DataConfig, test_images: FolderImages, class_names: tuple[str, ...]) -> ImageSet:
    """The image set of these test images alone."""
    return _image_set(config, test_images[:0], test_images, class_names)


def _image_set(
    config: DataConfig, train_images: FolderImages, test_images: FolderImages, class_names: tuple[str, ...]
) -> ImageSet:
    return ImageSet(
        name=config.name,
        class_names=class_names,
        mean=MEAN,
        std=STD,
        train_images_u8=train_images,
        train_labels=train_images.files.labels,
        test_images_u8=test_images,
        test_labels=test_images.files.labels,
    )
