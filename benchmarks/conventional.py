"""The usual training loop, for `benchmarks.train` to compare with; it is not part of the package.

DataLoader workers make AugMix views image by image with Pillow. The model runs eagerly, once per view, with the
trainer's optimiser and loss. The loop really trains: it minimises equation (6), as the trainer does.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fastmagn.augment.engines import pil
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.config.schema import AugmentConfig, Config
from fastmagn.data import FolderImages
from fastmagn.data.files.decoding import open_image
from fastmagn.data.image_set import Images
from fastmagn.losses import MAGNLoss
from fastmagn.machine.hardware import precision
from fastmagn.models import Normalised


class PillowViews(Dataset):
    """Image i as (views float32 [1 + J, 3, H, W], label): crop, flip and jitter, then J AugMix views, by Pillow."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, augment: AugmentConfig, num_augmix_views: int) -> None:
        self.images, self.labels, self.augment = images, labels, augment
        self.spec = ViewSpec(num_augmix_views=num_augmix_views, num_noise_views=0)
        steps = [v2.RandomCrop(images.shape[1:3], padding=augment.crop_padding_px or None)]
        if augment.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip())
        if augment.color_jitter:
            steps.append(v2.ColorJitter(augment.color_jitter, augment.color_jitter, augment.color_jitter))
        self.base = v2.Compose([*steps, v2.RandomRotation(augment.rotation_deg)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = np.array(self.base(Image.fromarray(self.images[index])))
        return augmix_views(pixels, self.spec, self.augment), int(self.labels[index])


class PillowFiles(Dataset):
    """File i as (views float32 [1 + J, 3, S, S], label): decode, crop and flip, then J AugMix views, by Pillow."""

    def __init__(self, images: FolderImages, labels: np.ndarray, augment: AugmentConfig, num_augmix_views: int) -> None:
        self.files, self.labels, self.augment = images.files, labels, augment
        self.spec = ViewSpec(num_augmix_views=num_augmix_views, num_noise_views=0)
        data = images.config
        crop = v2.RandomResizedCrop(data.image_size, (data.min_crop_area, 1.0), antialias=True)
        self.base = v2.Compose([crop, v2.RandomHorizontalFlip()] if augment.horizontal_flip else [crop])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with open_image(self.files.item(index)) as image:
            pixels = np.array(self.base(image.convert("RGB")))
        return augmix_views(pixels, self.spec, self.augment), int(self.labels[index])


def augmix_views(pixels: np.ndarray, spec: ViewSpec, augment: AugmentConfig) -> Tensor:
    """Make Pillow's views of one image uint8 [H, W, 3], newly drawn on each call: float32 [1 + J, 3, H, W]."""
    seed = int(torch.randint(2**62, ()))
    params = identity_base(sample_view_params(seed, 0, [0], spec, augment, pixels.shape[:2]))
    views = torch.empty(spec.num_views, *pixels.shape)
    pil.fill_views(torch.from_numpy(pixels)[None], params, views)
    return views.permute(0, 3, 1, 2)


def conventional_step(
    config: Config, model: Normalised, images: Images, labels: np.ndarray, workers: int
) -> Callable[[], None]:
    """Return a function that trains on the next batch, epoch after epoch.

    Args:
        config: The run's configuration, with method standard, augmix, magn or magn_augmix.
        model: The network; it is trained in place, eagerly, on its device.
        images: uint8 [N, H, W, 3], or the images of a folder.
        labels: int64 [N].
        workers: Number of data-loading processes.
    """
    device = next(model.parameters()).device
    uses_augmix, uses_noise = views_of(config)
    num_augmix_views = 2 if uses_augmix else 0
    dataset: Dataset
    if isinstance(images, FolderImages):
        dataset = PillowFiles(images, labels, config.augment, num_augmix_views)
    else:
        dataset = PillowViews(np.asarray(images), labels, config.augment, num_augmix_views)
    loader = DataLoader(
        dataset,
        batch_size=config.train.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",
        pin_memory=device.type == "cuda",
    )
    optimizer = torch.optim.SGD(
        model.parameters(),
        config.optim.lr,
        config.optim.momentum,
        nesterov=True,
        weight_decay=config.optim.weight_decay,
    )
    batches = endless(loader)

    def step() -> None:
        views, targets = (tensor.to(device, non_blocking=True) for tensor in next(batches))
        clean, *augmix = views.unbind(1)
        noisy = [noisy_view(clean, config.augment.sigma_max)] if uses_noise else []
        optimizer.zero_grad()
        with precision(device, config.train.amp):
            logits = [model(view.contiguous()) for view in (clean, *augmix, *noisy)]
        loss = loss_of_views(config, logits, targets, len(augmix))
        loss.backward()
        optimizer.step()
        loss.item()  # what most loops log

    return step


def views_of(config: Config) -> tuple[bool, bool]:
    """Return whether the method has AugMix views, two of them, and whether it has a noisy one."""
    return "augmix" in config.method, "magn" in config.method


def endless(loader: DataLoader) -> Iterator[Any]:
    """Yield the batches of one epoch after another."""
    while True:
        yield from loader


def noisy_view(clean: Tensor, sigma_max: float) -> Tensor:
    """Return the images plus Gaussian noise, whose sigma each image draws."""
    sigma = sigma_max * torch.rand(len(clean), 1, 1, 1, device=clean.device)
    return clean + sigma * torch.randn_like(clean)


def loss_of_views(config: Config, logits: Sequence[Tensor], targets: Tensor, num_augmix: int) -> Tensor:
    """Return the method's loss of the logits [B, K] of each view: the clean one, AugMix's, the noisy one if any."""
    clean, augmix, noisy = logits[0], [*logits[1 : 1 + num_augmix]], [*logits[1 + num_augmix :]]
    if augmix or noisy:
        return MAGNLoss(config.loss.consistency_weight, config.loss.jsd_weight)(
            clean, targets, noisy=noisy, augmix=augmix
        )
    return F.cross_entropy(clean.float(), targets)
