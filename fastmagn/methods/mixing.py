"""Cutout, mixup and CutMix of the clean view.

Random stream:

    STREAM_MIXING
        slot 0    words: lambda, box centre x, box centre y, whether CutMix is applied
        slot 1    words: the sort key that decides the partner (two), -, -

The lambda and the box of a sample depend on (seed, epoch, sample index) only. Its partner is an image of the same
forward pass, so mixup and CutMix depend on train.batch_size, train.accumulation_steps and the number of processes.

Shape letters: B batch, K classes, C H W image.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor

from fastmagn.methods.context import StepContext, on_device, random_order
from fastmagn.methods.method import Method
from fastmagn.methods.standard import standard_loss
from fastmagn_kernels.random.rng import STREAM_MIXING

_TWO_TO_MINUS_32 = 2.0**-32


def cutout(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Fill a square of `mixing.cutout_px` around a uniformly drawn pixel with the data set's mean; the border cuts it.

    Source: T. DeVries and G. W. Taylor, "Improved regularization of convolutional neural networks with cutout",
    arXiv:1708.04552. They fill with 0 after normalisation, which is the mean; 16 px on CIFAR-10, 8 px on CIFAR-100.

    Args:
        images: Clean view, float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        Images and labels.
    """
    side = np.full(len(images), context.config.mixing.cutout_px)
    boxes = draw_boxes(context.words(0, STREAM_MIXING), side, side, (images.shape[2], images.shape[3]))
    return torch.where(box_mask(boxes, images), context.model.mean, images), labels


def mixup(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Mix images and labels: lambda x_i + (1 - lambda) x_j, with lambda from Beta(alpha, alpha).

    Source: H. Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018; alpha 1 on CIFAR. Its equation
    draws lambda for each pair, as this does; its code shares one lambda in a batch.

    Args:
        images: Clean view, float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        Mixed images, and soft targets float32 [B, K].
    """
    weights = draw_lambda(context.words(0, STREAM_MIXING), context.config.mixing.mixup_alpha)
    partners = on_device(draw_partners(context), images.device)
    share = on_device(weights.astype(np.float32), images.device)
    mixed = torch.lerp(images[partners], images, share[:, None, None, None])
    return mixed, mix_labels(labels, partners, share, context.num_classes)


def cutmix(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Paste a box of another image into each image, and mix the labels by area.

    The box covers the share 1 - lambda of the area before the border cuts it, with lambda from Beta(alpha, alpha). An
    image gets a box with probability `mixing.cutmix_probability`.

    Source: S. Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features",
    ICCV 2019; on CIFAR alpha 1 and, in its code, probability 0.5. That code shares one box in a batch; here each image
    has its own.

    Args:
        images: Clean view, float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        Mixed images, and soft targets float32 [B, K].
    """
    mixing, (height, width) = context.config.mixing, images.shape[2:]
    words = context.words(0, STREAM_MIXING)
    applied = words[:, 3] * _TWO_TO_MINUS_32 < mixing.cutmix_probability
    side = np.sqrt(1 - draw_lambda(words, mixing.cutmix_alpha)) * applied
    boxes = draw_boxes(words, (side * width).astype(np.int64), (side * height).astype(np.int64), (height, width))
    areas = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    share = on_device((1 - areas / (height * width)).astype(np.float32), images.device)
    partners = on_device(draw_partners(context), images.device)
    mixed = torch.where(box_mask(boxes, images), images[partners], images)
    return mixed, mix_labels(labels, partners, share, context.num_classes)


def draw_lambda(words: np.ndarray, alpha: float) -> np.ndarray:
    """Beta(alpha, alpha), float64 [B], by inverting its distribution function at uniforms (0, 1) from words [:, 0]."""
    uniforms = (words[:, 0] + 0.5) * _TWO_TO_MINUS_32
    return uniforms if alpha == 1 else betaincinv(alpha, alpha, uniforms)


def draw_boxes(words: np.ndarray, width_px: np.ndarray, height_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes around uniformly drawn pixels, cut at the border.

    Args:
        words: uint32 [B, 4]; 1 and 2 draw the centre's x and y.
        width_px: Box widths before they are cut, int64 [B].
        height_px: Box heights, likewise.
        size: (H, W) of the images, px.

    Returns:
        left, right, top, bottom, int64 [B, 4]; right and bottom are outside.
    """
    edges = []
    for word, length, extent in ((words[:, 1], width_px, size[1]), (words[:, 2], height_px, size[0])):
        centre = (word * _TWO_TO_MINUS_32 * extent).astype(np.int64)
        half = length // 2  # as CutMix's code has it: an odd length loses a pixel
        edges += [np.clip(centre - half, 0, extent), np.clip(centre + half, 0, extent)]
    return np.stack(edges, axis=1)


def box_mask(boxes: np.ndarray, images: Tensor) -> Tensor:
    """Where `images` [B, C, H, W] lie within their boxes int64 [B, 4]: bool [B, 1, H, W], on the images' device."""
    left, right, top, bottom = on_device(boxes, images.device).view(-1, 4, 1, 1, 1).unbind(1)
    y = torch.arange(images.shape[2], device=images.device)[:, None]
    x = torch.arange(images.shape[3], device=images.device)
    return (left <= x) & (x < right) & (top <= y) & (y < bottom)


def draw_partners(context: StepContext) -> np.ndarray:
    """The partner of each image in the batch, a permutation int64 [B]: the order of the samples' random keys."""
    return random_order(context.words(1, STREAM_MIXING)[:, :2])


def mix_labels(labels: Tensor, partners: Tensor, share: Tensor, num_classes: int) -> Tensor:
    """share y_i + (1 - share) y_j as probabilities, float32 [B, K]; `share` float32 [B]."""
    one_hot = F.one_hot(labels, num_classes).float()
    return torch.lerp(one_hot[partners], one_hot, share[:, None])


CUTOUT = Method(title="Cutout", loss=standard_loss, prepare=cutout, reads=frozenset({"mixing.cutout_px"}))
MIXUP = Method(title="Mixup", loss=standard_loss, prepare=mixup, reads=frozenset({"mixing.mixup_alpha"}))
CUTMIX = Method(
    title="CutMix",
    loss=standard_loss,
    prepare=cutmix,
    reads=frozenset({"mixing.cutmix_alpha", "mixing.cutmix_probability"}),
)
