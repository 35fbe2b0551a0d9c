"""Auxiliary Fourier-basis augmentation (AFA): a view with a random plane wave in each channel.

Random stream:

    STREAM_AFA
        slot c    words of channel c: frequency, direction, strength, -

Source: P. Vaish, S. Wang, N. Strisciuglio, "Fourier-basis functions to bridge augmentation gap: Rethinking frequency
augmentation in image classification", CVPR 2024. Shape letters: B batch, C H W image, V views.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmagn.config.afa_schema import AfaConfig
from fastmagn.config.schema import LossConfig
from fastmagn.losses import jensen_shannon
from fastmagn.methods.context import StepContext, on_device
from fastmagn.methods.method import Layout, LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss
from fastmagn_kernels.random.rng import STREAM_AFA

_TWO_TO_MINUS_32 = 2.0**-32
_PHASE = -math.pi / 4  # a sine and a cosine, equally strong
_SIDE_PX = 32  # in images of this side, a wave's strength is its l_2 norm


def draw_waves(context: StepContext, num_channels: int, side_px: int) -> np.ndarray:
    """Frequency, direction and strength of each image's waves, float64 [3, B, C].

    The frequency is a whole number of cycles per image side, uniform in 1..`afa.max_frequency` (if that is 0, in
    1..`side_px`); the direction is uniform in (-pi, 0], which is every direction of a wave's crests; the strength is
    exponential with mean `afa.mean_strength`, plus `afa.min_strength`. The authors' code draws one of 448 directions.
    """
    afa: AfaConfig = context.config.afa
    words = np.stack([context.words(channel, STREAM_AFA) for channel in range(num_channels)], axis=1)
    highest = np.uint64(afa.max_frequency or side_px)
    frequency = 1 + (words[..., 0].astype(np.uint64) * highest >> np.uint64(32))
    direction = -math.pi * _TWO_TO_MINUS_32 * words[..., 1]
    strength = afa.min_strength - afa.mean_strength * np.log((words[..., 2] + 0.5) * _TWO_TO_MINUS_32)
    return np.stack([frequency.astype(np.float64), direction, strength])


def add_waves(images: Tensor, waves: Tensor) -> Tensor:
    """Add a plane wave to each channel, and clip to [0, 1]. With y and x from the image's centre, px:

        x_c <- clip(x_c + s_c sqrt(H W) / 32 w_c / ||w_c||_2),
        w_c = sin(2 pi f_c / max(H, W) (y cos t_c + x sin t_c) - pi / 4)

    As in the authors' code, y has H values from -H/2 to H/2, both included, and x has W likewise. A wave is sin(a + b)
    with a of the row and b of the column: so it takes sines of H + W angles, not of H W, and sums over rows and columns
    give its norm.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        waves: Frequency f in cycles per image side, direction t in radians, strength s, float64 [3, B, C], on the
            images' device.

    Returns:
        float32 [B, C, H, W] in [0, 1].
    """
    height, width = images.shape[2:]
    frequency, direction, strength = waves[..., None]
    turn = 2 * math.pi / max(height, width) * frequency
    rows = turn * direction.cos() * _centred(height, images.device) + _PHASE
    columns = turn * direction.sin() * _centred(width, images.device)
    (sin_a, cos_a), (sin_b, cos_b) = (rows.sin(), rows.cos()), (columns.sin(), columns.cos())
    squares = _dot(sin_a, sin_a) * _dot(cos_b, cos_b) + _dot(cos_a, cos_a) * _dot(sin_b, sin_b)
    squares += 2 * _dot(sin_a, cos_a) * _dot(sin_b, cos_b)
    scale = strength * (math.sqrt(height * width) / _SIDE_PX) / squares.sqrt()
    first, second = (scale * sin_a).float()[..., None], (scale * cos_a).float()[..., None]
    waved = torch.addcmul(images, first, cos_b.float()[:, :, None])
    return waved.addcmul_(second, sin_b.float()[:, :, None]).clamp_(0, 1)


def _centred(length_px: int, device: torch.device) -> Tensor:
    return torch.linspace(-length_px / 2, length_px / 2, length_px, dtype=torch.float64, device=device)


def _dot(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).sum(dim=-1, keepdim=True)


def append_waved_view(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """The views, and after them the clean view with waves.

    Args:
        images: Clean view, then others, float32 [V*B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        Views [(V + 1)*B, C, H, W], and the labels.
    """
    clean = images[: len(labels)]
    waves = draw_waves(context, clean.shape[1], max(clean.shape[2:]))
    return torch.cat([images, add_waves(clean, on_device(waves, images.device))]), labels


def afa_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """The mean of two cross-entropies: of the clean view, and of the view with waves."""
    loss, parts = standard_loss(logits, labels, weights)
    waved = F.cross_entropy(logits.augmented[0], labels, label_smoothing=weights.label_smoothing)
    return (loss + waved) / 2, parts | {"augmented_cross_entropy": waved}


def afa_jsd_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Cross-entropy of the clean view + lambda_2 JS(clean; AugMix; waves).

    Without an AugMix view the clean view stands in its place, so that it counts twice, as in the authors' code.
    """
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *(logits.augmix or (logits.clean,)), *logits.augmented)
    return loss + weights.jsd_weight * divergence, parts | {"jensen_shannon": divergence}


_READ = frozenset({"afa.mean_strength", "afa.min_strength", "afa.max_frequency"})
AFA = Method(title="AFA", loss=afa_loss, prepare=append_waved_view, forwarded=Layout(augmented=1), reads=_READ)
AFA_JSD = Method(
    title="AFA+JSD",
    loss=afa_jsd_loss,
    prepare=append_waved_view,
    forwarded=Layout(augmented=1),
    view_title="AFA",
    reads=_READ | {"loss.jsd_weight"},
)
AFA_AUGMIX = Method(
    title="AFA+AugMix",
    loss=afa_jsd_loss,
    num_augmix_views=1,
    prepare=append_waved_view,
    forwarded=Layout(augmix=1, augmented=1),
    view_title="AFA",
    reads=_READ | {"loss.jsd_weight"},
)
