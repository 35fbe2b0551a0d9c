"""AutoAugment and TrivialAugment: torchvision's own, image by image on the host. Images on CUDA are copied to it.

Random stream: words 0 and 1 of STREAM_POLICY, slot 0, seed the generator from which torchvision draws the policy of an
image. So the policy depends on (seed, epoch, sample index), and on the versions of PyTorch and torchvision.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Method
from fastmagn.methods.standard import standard_loss
from fastmagn_kernels.random.rng import STREAM_POLICY

_AUTOAUGMENT = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
_TRIVIALAUGMENT = v2.TrivialAugmentWide()


def autoaugment(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Apply AutoAugment's CIFAR-10 policy to the clean view. Its authors also use it on CIFAR-100.

    Source: E. D. Cubuk et al., "AutoAugment: Learning augmentation strategies from data", CVPR 2019. Its training adds
    Cutout after the policy; this function does not. Fill (black) and interpolation (nearest) are torchvision's.

    Args:
        images: Clean view, float32 [B, 3, H, W] in [0, 1], whole 255ths (`make_views` works on uint8).
        labels: int64 [B].
        context: The step.

    Returns:
        Images and labels.
    """
    return _apply(_AUTOAUGMENT, images, context), labels


def trivialaugment(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Apply TrivialAugment's wide space to the clean view: one operation per image, of uniformly drawn strength.

    Source: S. G. Müller and F. Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation",
    ICCV 2021.

    Args:
        images: Clean view, float32 [B, 3, H, W] in [0, 1], whole 255ths.
        labels: int64 [B].
        context: The step.

    Returns:
        Images and labels.
    """
    return _apply(_TRIVIALAUGMENT, images, context), labels


def _apply(policy: Callable[[Tensor], Tensor], images: Tensor, context: StepContext) -> Tensor:
    images_u8 = images.mul(255).round_().to("cpu", torch.uint8)
    words = context.words(0, STREAM_POLICY).tolist()
    out = torch.empty_like(images_u8)
    # Not torch.manual_seed, which would also seed CUDA's generators, and those fork_rng(devices=[]) does not restore.
    with torch.random.fork_rng(devices=[]):
        for i, (low, high, _, _) in enumerate(words):
            torch.default_generator.manual_seed(high << 32 | low)
            out[i] = policy(images_u8[i])
    return out.to(images.device).float().div_(255)


AUTOAUGMENT = Method(title="AutoAugment", loss=standard_loss, prepare=autoaugment)
TRIVIALAUGMENT = Method(title="TrivialAugment", loss=standard_loss, prepare=trivialaugment)
