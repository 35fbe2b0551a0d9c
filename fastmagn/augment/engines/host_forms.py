"""Images on the host, as the CPU's kernels take them in either dtype and memory format."""

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.image_memory import is_planar
from fastmagn_kernels.augmix_cpu.forms import Forms

_NO_LEVELS, _NO_FLOATS = np.empty((0, 0), np.uint8), np.empty((0, 0), np.float32)


def form_of(images: Tensor) -> Forms:
    """The memory of images, uint8 or float32 [B, C, H, W], contiguous or channels last, as the kernels take it."""
    planar = is_planar(images)
    values = (images if planar else images.permute(0, 2, 3, 1)).numpy().reshape(len(images), -1)
    levels, floats = (values, _NO_FLOATS) if images.dtype == torch.uint8 else (_NO_LEVELS, values)
    return Forms(levels, floats, planar, images.shape[1])
