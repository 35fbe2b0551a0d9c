"""AugMix as it is usually run: per-image code on PIL images in data-loading workers. For `benchmarks.augment` only.

There are three implementations: our own Pillow reference, timm's AugMixAugment and torchvision's v2.AugMix, the last
two from their packages. Each makes two AugMix views of an image, floats in [0, 1], as a training loop's DataLoader
would.
"""

import importlib
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastmagn.augment.engines import pil
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.config.schema import AugmentConfig

TWO_VIEWS = ViewSpec(num_augmix_views=2, num_noise_views=0)
BATCH = 64

PerImage = Callable[[np.ndarray, int], Tensor]  # uint8 [H, W, 3] and its index -> float32 [2, H, W, 3]


def pillow_reference(augment: AugmentConfig) -> PerImage:
    """`fastmagn.augment.engines.pil`, the reference of every backend."""

    def views(pixels: np.ndarray, index: int) -> Tensor:
        params = sample_view_params(0, 0, [index], TWO_VIEWS, augment, pixels.shape[:2])
        out = torch.empty(3, *pixels.shape)
        pil.fill_views(torch.from_numpy(pixels)[None], identity_base(params), out)
        return out[1:]

    return views


def timm_augmix(augment: AugmentConfig) -> PerImage:
    """timm's AugMixAugment with the same severity, width and depth."""
    auto_augment = importlib.import_module("timm.data.auto_augment")
    name = f"augmix-m{augment.aug_severity}-w{augment.mixture_width}-d{augment.mixture_depth}"
    return _of_images(auto_augment.augment_and_mix_transform(name.replace("-d-1", "")))


def torchvision_augmix(augment: AugmentConfig) -> PerImage:
    """torchvision's v2.AugMix on PIL images, with its nine operations."""
    return _of_images(_v2_augmix(augment))


def _v2_augmix(augment: AugmentConfig) -> Callable:
    v2 = importlib.import_module("torchvision.transforms.v2")
    return v2.AugMix(
        severity=augment.aug_severity,
        mixture_width=augment.mixture_width,
        chain_depth=augment.mixture_depth,
        all_ops=augment.all_operations,
    )


def _of_images(transform: Callable[[Image.Image], Image.Image]) -> PerImage:
    def views(pixels: np.ndarray, index: int) -> Tensor:
        image = Image.fromarray(pixels)
        both = np.stack([np.asarray(transform(image)) for _ in range(2)])
        return torch.from_numpy(both).float().div_(255)

    return views


PER_IMAGE = {
    "Pillow reference": pillow_reference,
    "timm AugMixAugment": timm_augmix,
    "torchvision v2.AugMix": torchvision_augmix,
}


def augmix_views(images_u8: Tensor, rng: np.random.Generator) -> Tensor:
    """Crop, flip and torchvision's v2.AugMix of each image: uint8 [B, 3, H, W] -> float32 [3*B, 3, H, W], clean first.

    torchvision draws from PyTorch's generator, not from `rng`.
    """
    clean, *mixed = zip(*(_cropped_and_mixed(image, 2) for image in images_u8), strict=True)
    return torch.cat([torch.stack(views) for views in (clean, *mixed)]).float().div_(255)


def augmix_no_jsd_views(images_u8: Tensor, rng: np.random.Generator) -> Tensor:
    """The same with one AugMix view in place of the clean one: uint8 [B, 3, H, W] -> float32 [B, 3, H, W]."""
    return torch.stack([_cropped_and_mixed(image, 1)[1] for image in images_u8]).float().div_(255)


def _cropped_and_mixed(image_u8: Tensor, num_views: int) -> list[Tensor]:
    v2 = importlib.import_module("torchvision.transforms.v2")
    steps = [v2.RandomCrop(image_u8.shape[1:], padding=AugmentConfig().crop_padding_px), v2.RandomHorizontalFlip()]
    clean = v2.Compose(steps)(v2.functional.to_pil_image(image_u8))
    transform = _v2_augmix(AugmentConfig())
    return [v2.functional.pil_to_tensor(view) for view in (clean, *(transform(clean) for _ in range(num_views)))]


class ImageViews(Dataset):
    """Image i's two AugMix views, by one of PER_IMAGE. The worker builds the function, which cannot be pickled."""

    def __init__(self, name: str, images: np.ndarray, augment: AugmentConfig) -> None:
        self.name, self.images, self.augment = name, images, augment
        self.views: PerImage | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        self.views = self.views or PER_IMAGE[self.name](self.augment)
        return self.views(self.images[index], index)


def views_by_workers(
    name: str, images: np.ndarray, augment: AugmentConfig, workers: int, device: torch.device
) -> Callable[[], int]:
    """Return a function that makes two views of each image in `workers` processes and counts the views that arrive."""
    loader = DataLoader(
        ImageViews(name, images, augment),
        batch_size=min(BATCH, max(1, len(images) // (2 * workers))),  # every worker gets batches
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",  # the compiled engine's threads do not survive a fork
        pin_memory=device.type == "cuda",
    )

    def make() -> int:
        count = 0
        for views in loader:
            count += views.to(device, non_blocking=True).shape[:2].numel()
        return count

    return make


def views_by_whole_batch(images_u8: Tensor, augment: AugmentConfig) -> Callable[[], int]:
    """Return a function that runs torchvision's v2.AugMix twice on a whole batch [B, 3, H, W], on the batch's device.

    All images of the batch get the same operations and magnitudes. This is not AugMix, but torchvision's fastest way.
    """
    transform = _v2_augmix(augment)

    def make() -> int:
        for _ in range(2):
            transform(images_u8).float().div_(255)
        return 2 * len(images_u8)

    return make
