"""The strongest loop that an engineer would write by hand, for `benchmarks.train`; it is not part of the package.

DataLoader workers make whole batches with OpenCV: crop, flip and rotation in one warp, colour jitter, then AugMix's
chains (`benchmarks.augmix_rivals`). One fused forward pass takes all views, with channels last and the trainer's
precision; the optimiser is PyTorch's fused one, and no loss is read. It minimises equation (6), as the trainer does.
OpenCV does not round as Pillow does, and its draws depend on the worker: the views are not the trainer's.
"""

import importlib
import math
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from benchmarks.augmix_rivals import OPENCV, RIVALS, Rival, draw_mixtures, fill_view
from benchmarks.conventional import endless, loss_of_views, noisy_view, views_of
from fastmagn.config.schema import AugmentConfig, Config
from fastmagn.machine.hardware import precision
from fastmagn.models import Normalised

Base = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def has_opencv() -> bool:
    """Return whether the rival can run."""
    return find_spec("cv2") is not None


def base_transform(augment: AugmentConfig, height: int, width: int) -> Base:
    """Return crop, flip, rotation and colour jitter by OpenCV: uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    cv2 = importlib.import_module("cv2")
    pad, jitter, degrees = augment.crop_padding_px, augment.color_jitter, augment.rotation_deg
    zeros = np.zeros((height, width, 3), np.uint8)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP

    def warped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle = math.radians(rng.uniform(-degrees, degrees))
        cos, sin, x, y = math.cos(angle), math.sin(angle), (width - 1) / 2, (height - 1) / 2
        left, top = rng.integers(-pad, pad + 1, 2)
        side = -1 if augment.horizontal_flip and rng.random() < 0.5 else 1
        matrix = np.array([[side * cos, -side * sin, 0.0], [sin, cos, 0.0]])
        matrix[:, 2] = [x - matrix[0, 0] * x - matrix[0, 1] * y + left, y - matrix[1, 0] * x - matrix[1, 1] * y + top]
        return cv2.warpAffine(image, matrix, (width, height), flags=flags)

    def jittered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factors = rng.uniform(max(0.0, 1 - jitter), 1 + jitter, 3)
        for which in rng.permutation(3):
            factor = float(factors[which])
            if which == 2:
                grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
                image = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
            else:
                mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] if which == 1 else 0.0
                image = cv2.addWeighted(image, factor, zeros, 0, (1 - factor) * mean)
        return image

    def base(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = warped(image, rng)
        return jittered(image, rng) if jitter else image

    return base


class OpenCVBatches(Dataset):
    """Rows [B] as (views float32 [1 + J, B, H, W, 3] in [0, 1], labels int64 [B]). The worker builds what it uses."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, augment: AugmentConfig, num_augmix_views: int) -> None:
        self.images, self.labels, self.augment, self.num_augmix_views = images, labels, augment, num_augmix_views
        self.tools: tuple[Rival, Base, np.random.Generator] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        size = self.images.shape[1:3]
        self.tools = self.tools or (
            RIVALS[OPENCV](*size),
            base_transform(self.augment, *size),
            np.random.default_rng(torch.initial_seed()),
        )
        rival, base, rng = self.tools
        views = torch.empty(1 + self.num_augmix_views, len(rows), *size, 3)
        mixtures = iter(draw_mixtures(rng, self.num_augmix_views * len(rows), self.augment, size))
        for place, row in enumerate(rows):
            image = base(self.images[row], rng)
            np.multiply(image, np.float32(1 / 255), out=views.numpy()[0, place])
            for view in views.numpy()[1:, place]:
                fill_view(rival, image, next(mixtures), view)
        return views, torch.from_numpy(self.labels[rows])


def tight_step(
    config: Config, model: Normalised, images: np.ndarray, labels: np.ndarray, workers: int
) -> Callable[[], None]:
    """Return a function that trains on the next batch, epoch after epoch.

    Args:
        config: The run's configuration, with method standard, augmix, magn or magn_augmix.
        model: The network; it is trained in place, eagerly, on its device.
        images: uint8 [N, H, W, 3].
        labels: int64 [N].
        workers: Number of data-loading processes.
    """
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)
    uses_augmix, uses_noise = views_of(config)
    num_augmix = 2 if uses_augmix else 0
    dataset = OpenCVBatches(images, labels, config.augment, num_augmix)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=BatchSampler(RandomSampler(dataset), config.train.batch_size, drop_last=True),
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",
        pin_memory=device.type == "cuda",
    )
    optim = config.optim
    optimizer = torch.optim.SGD(
        model.parameters(), optim.lr, optim.momentum, nesterov=True, weight_decay=optim.weight_decay, fused=True
    )
    batches = endless(loader)

    def step() -> None:
        views, targets = (tensor.to(device, non_blocking=True) for tensor in next(batches))
        if uses_noise:
            views = torch.cat([views, noisy_view(views[0], config.augment.sigma_max)[None]])
        fused = views.flatten(0, 1).permute(0, 3, 1, 2)  # channels last in memory
        with precision(device, config.train.amp):
            logits = model(fused)
        loss_of_views(config, logits.chunk(len(views)), targets, num_augmix).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
