"""The contenders of `benchmarks.augment --policy`: one policy by fastmagn, torchvision, timm and Kornia.

All take uint8 images and give uint8 images, but Kornia, which works on floats. Per-image code runs on PIL images in
`workers` data-loading processes, as a training loop's DataLoader would; on the whole batch, torchvision and Kornia's
RandAugment draw one policy for all its images.
"""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastmagn import AutoAugment, RandAugment, TrivialAugment

POLICIES = ("trivialaugment", "randaugment", "autoaugment")
REFERENCE = "torchvision on PIL images"
WHOLE_BATCH = "torchvision, one draw a batch"
_OURS = {"trivialaugment": TrivialAugment, "randaugment": RandAugment, "autoaugment": AutoAugment}
_TORCHVISION = {"trivialaugment": "TrivialAugmentWide", "randaugment": "RandAugment", "autoaugment": "AutoAugment"}
_TIMM = {"randaugment": "rand-m9-n2", "autoaugment": "original"}
_KORNIA = {"trivialaugment": "TrivialAugment", "randaugment": "RandAugment", "autoaugment": "AutoAugment"}
_KORNIA_ARGUMENTS = {"randaugment": {"n": 2, "m": 9}}  # torchvision's defaults; Kornia has none
_BATCH = 64


def policy_contenders(policy: str, batch: Tensor, images: np.ndarray, workers: int) -> dict[str, Callable[[], int]]:
    """Return functions that apply a policy and return the number of images they made, by the contender's name.

    Args:
        policy: A name in POLICIES.
        batch: uint8 [B, 3, H, W], on the device.
        images: uint8 [N, H, W, 3], for per-image code.
        workers: Its processes.
    """
    ours = _OURS[policy](seed=0)
    planar = batch.contiguous()
    floats, out = planar / 255, torch.empty_like(planar)
    whole = _torchvision(policy)
    contenders: dict[str, Callable[[], int]] = {
        "fastmagn": lambda: len(ours(planar)),
        "fastmagn, channels last": lambda: len(ours(batch)),
        "fastmagn, floats": lambda: len(ours(floats)),
        "fastmagn, out": lambda: len(ours(planar, out=out)),
        REFERENCE: images_by_workers("torchvision", policy, images, workers),
        WHOLE_BATCH: lambda: len(whole(batch)),
    }
    if policy in _TIMM and find_spec("timm") is not None:
        contenders["timm on PIL images"] = images_by_workers("timm", policy, images, workers)
    if find_spec("kornia") is not None:
        automatic = importlib.import_module("kornia.augmentation.auto")
        kornia = getattr(automatic, _KORNIA[policy])(**_KORNIA_ARGUMENTS.get(policy, {}))
        contenders["kornia, one draw a batch"] = lambda: len(kornia(batch.float().div_(255)))
    return contenders


def _torchvision(policy: str) -> Callable[[Any], Any]:
    v2 = importlib.import_module("torchvision.transforms.v2")
    return getattr(v2, _TORCHVISION[policy])()


def _timm(policy: str) -> Callable[[Any], Any]:
    automatic = importlib.import_module("timm.data.auto_augment")
    make = automatic.rand_augment_transform if policy == "randaugment" else automatic.auto_augment_transform
    return make(_TIMM[policy], {})


class ChangedImages(Dataset):
    """Image i under a policy, uint8 [3, H, W]. The worker builds the transform."""

    def __init__(self, library: str, policy: str, images: np.ndarray) -> None:
        self.library, self.policy, self.images = library, policy, images
        self.transform: Callable[[Any], Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        self.transform = self.transform or (_timm if self.library == "timm" else _torchvision)(self.policy)
        changed = np.array(self.transform(Image.fromarray(self.images[index])))
        return torch.from_numpy(changed).permute(2, 0, 1)


def images_by_workers(library: str, policy: str, images: np.ndarray, workers: int) -> Callable[[], int]:
    """Return a function that changes each image once in `workers` processes and counts the images that arrive."""
    loader = DataLoader(
        ChangedImages(library, policy, images),
        batch_size=min(_BATCH, max(1, len(images) // (2 * workers))),  # every worker gets batches
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )
    return lambda: sum(len(changed) for changed in loader)
