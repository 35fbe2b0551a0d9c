"""What a method may use to prepare the views of a batch, and the only randomness that it may use.

Shape letters: B batch, C H W image.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastmagn.config.schema import Config
from fastmagn.models import Normalised
from fastmagn_kernels.random import rng


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """A training step, as a method's `prepare` sees it.

    Every draw is a pure function of (seed, epoch, sample index): neither the batch nor an interruption changes it.

    Args:
        config: The settled configuration of the run.
        model: The model in training mode; code that changes the mode restores it.
        num_classes: K.
        epoch: The epoch, from 0.
        indices: Sample indices, int64 [B], on the host.
        partners: The clean views of the images' partners, if the method uses them, float32 [P*B, C, H, W] in [0, 1]:
            the first partner of each image, then the second of each; each as it is where its own turn comes in this
            epoch.
        partner_indices: Their sample indices, int64 [P*B], on the host.
    """

    config: Config
    model: Normalised
    num_classes: int
    epoch: int
    indices: np.ndarray
    partners: Tensor | None = None
    partner_indices: np.ndarray | None = None

    def words(self, slot: int, stream: int) -> np.ndarray:
        """Four random words per sample, uint32 [B, 4]: block `slot` of `stream`."""
        words = np.empty((len(self.indices), 4), np.uint32)
        rng.words_batch(words, slot, stream, 0, self.indices, self.epoch, *rng.key_words(self.config.train.seed))
        return words

    def of(self, indices: np.ndarray) -> "StepContext":
        """The same step for other samples, int64 [B], without partners."""
        return dataclasses.replace(self, indices=indices, partners=None, partner_indices=None)

    def normals_like(self, images: Tensor, stream: int) -> Tensor:
        """Standard normals, float32 [B, C, H, W], channels last, on the device of `images` [B, C, H, W]."""
        return self._fill_like(images, rng.standard_normal_batch, stream)

    def uniforms_like(self, images: Tensor, stream: int) -> Tensor:
        """Uniforms in [0, 1), float32 [B, C, H, W], channels last, on the device of `images` [B, C, H, W]."""
        return self._fill_like(images, rng.uniform_batch, stream)

    def _fill_like(self, images: Tensor, fill: Callable[..., None], stream: int) -> Tensor:
        batch, channels, height, width = images.shape
        assert batch == len(self.indices)
        shape = (batch, height, width, channels)
        on_host = torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=images.device.type == "cuda")
        flat = on_host.view(batch, -1).numpy()
        fill(flat, stream, 0, self.indices, self.epoch, *rng.key_words(self.config.train.seed))
        return on_host.to(images.device, non_blocking=True).permute(0, 3, 1, 2)


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array as a tensor on `device`. On CUDA it goes through pinned memory: other copies wait for the device."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def random_order(keys: np.ndarray) -> np.ndarray:
    """The order of samples by their random keys, uint32 [B, 2]: a permutation int64 [B]."""
    words = keys.astype(np.uint64)
    return np.argsort(words[:, 0] << np.uint64(32) | words[:, 1], kind="stable")
