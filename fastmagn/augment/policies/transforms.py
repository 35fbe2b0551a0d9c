"""TrivialAugment, RandAugment and AutoAugment for any training loop."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastmagn.augment.image_transform import ImageTransform, mixed
from fastmagn.augment.params import ViewParams, ViewSpec
from fastmagn.augment.policies.definitions import (
    AUTOAUGMENT_NAMES,
    AutoAugmentPolicy,
    Definition,
    RandAugmentPolicy,
    TrivialAugmentPolicy,
)
from fastmagn.augment.policies.images import BACKENDS, apply_policy, change_on_host, fill_policy
from fastmagn.augment.policies.table import Policy
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import as_integer, check, is_integer

_CLEAN = ViewSpec(num_augmix_views=0, num_noise_views=0)
_BILINEAR = 2  # Pillow's number
_NEAREST = 0
_FLOATS_AT_ONCE = 1 << 20  # the levels of a whole batch would take much memory


class _PolicyTransform(ImageTransform):
    """A policy of each image; what the public classes share.

    All draw from one stream. So the key of a call depends on `own_word`, which each class has for itself: else policies
    that follow each other would draw the same operation.
    """

    own_word: ClassVar[int]

    def __init__(
        self, definition: Definition, interpolation: Any, fill: Any, seed: int | torch.Generator, backend: str
    ) -> None:
        check(backend in BACKENDS, "backend", backend, ", ".join(BACKENDS))
        self_name = type(self).__name__
        super().__init__(
            augment=AugmentConfig(),
            view_spec=_CLEAN,
            moves=f"{self_name} moves the image and cannot move these with it",
            seed=seed,
            backend=backend,
        )
        self.policy = Policy(definition, _is_bilinear(interpolation), _colour(fill))

    def fill_compiled(self, images: Tensor, params: ViewParams, out: Tensor) -> bool:
        self._check_fill(images.shape[1])
        return change_on_host(images, params, self.policy, out)

    def fill(self, images_u8: Tensor, params: ViewParams, out: Tensor) -> None:
        channels = images_u8.shape[1]
        self._check_fill(channels)
        if out.dtype == torch.uint8 and channels == 3:
            fill_policy(images_u8, params, self.policy, self.backend, out)
            return
        # Equal channels stay equal in every operation, so a grey image may pass as an RGB one.
        images_u8 = images_u8.expand(-1, 3, -1, -1)
        at_once = max(1, _FLOATS_AT_ONCE // images_u8[0].numel())
        for part in (slice(first, first + at_once) for first in range(0, len(out), at_once)):
            of_part = dataclasses.replace(params, indices=params.indices[part])
            changed = apply_policy(images_u8[part], of_part, self.policy, self.backend)[:, :channels]
            out[part].copy_(changed if out.dtype == torch.uint8 else changed.float().div_(255))

    def _draw_key(self) -> int:
        key = super()._draw_key()
        return mixed(key, self.own_word) if self.own_word else key

    def _check_fill(self, channels: int) -> None:
        fill = self.policy.fill
        check(channels == 3 or len(set(fill)) == 1, "fill", fill, "one number for images of one channel")

    def extra_repr(self) -> str:
        interpolation = "bilinear" if self.policy.bilinear else "nearest"
        return f"{self.policy.definition}, interpolation={interpolation!r}, fill={self.policy.fill}"


class TrivialAugment(_PolicyTransform):
    """TrivialAugment (S. G. Müller and F. Hutter, ICCV 2021), in its wide space; every image draws its own operation.

    It is the `TrivialAugmentWide` of `torchvision.transforms.v2` on Pillow's images, to the bit for the same operation,
    of a whole batch, and faster (`benchmarks.augment --policy trivialaugment`). Batches on CUDA are changed there by a
    kernel, to the same bits; if numba-cuda cannot be used, on the host. Seeds, the keyed form, DataLoader's workers,
    `torch.compile` and the forms of images are as for `AugMix`.

    Examples:
        >>> import torch
        >>> from fastmagn import TrivialAugment
        >>> images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> augment = TrivialAugment(seed=0)
        >>> augment(images).shape, augment(images / 255).dtype
        (torch.Size([8, 3, 32, 32]), torch.float32)
        >>> keyed = augment(images, indices=range(8), epoch=3)
        >>> torch.equal(augment(images[5], indices=5, epoch=3), keyed[5])
        True

    Args:
        num_magnitude_bins: Number of strengths of an operation, 2..256.
        interpolation: nearest or bilinear: a string, torchvision's InterpolationMode or Pillow's number.
        fill: What comes from outside the image: a number in 0..255 or three of them; None is black.
        seed: The seed of the draws: an integer in 0..2^64 - 1, or a torch.Generator on the CPU.
        backend: auto or numba (the compiled engine), or pil (torchvision itself).

    Raises:
        InputError: An argument has another type or is out of range.
    """

    own_word = 0

    def __init__(
        self,
        num_magnitude_bins: int = 31,
        interpolation: Any = "nearest",
        fill: Any = None,
        *,
        seed: int | torch.Generator = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__(TrivialAugmentPolicy(_bins(num_magnitude_bins)), interpolation, fill, seed, backend)


class RandAugment(_PolicyTransform):
    """RandAugment (E. D. Cubuk et al., 2020): `num_ops` drawn operations of one strength for every image.

    It is the `RandAugment` of `torchvision.transforms.v2` on Pillow's images; all else is as for `TrivialAugment`.

    Examples:
        >>> import torch
        >>> from fastmagn import RandAugment
        >>> images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> RandAugment(num_ops=2, magnitude=9)(images).shape
        torch.Size([8, 3, 32, 32])
        >>> torch.equal(RandAugment(num_ops=0)(images), images)
        True

    Args:
        num_ops: Number of operations, 0..8.
        magnitude: Their strength, 0..num_magnitude_bins - 1.
        num_magnitude_bins: Number of strengths, 2..256.
        interpolation: nearest or bilinear: a string, torchvision's InterpolationMode or Pillow's number.
        fill: What comes from outside the image: a number in 0..255 or three of them; None is black.
        seed: The seed of the draws: an integer in 0..2^64 - 1, or a torch.Generator on the CPU.
        backend: auto or numba (the compiled engine), or pil (torchvision itself).

    Raises:
        InputError: An argument has another type or is out of range.
    """

    own_word = 1

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        num_magnitude_bins: int = 31,
        interpolation: Any = "nearest",
        fill: Any = None,
        *,
        seed: int | torch.Generator = 0,
        backend: str = "auto",
    ) -> None:
        bins = _bins(num_magnitude_bins)
        num_ops = as_integer("num_ops", num_ops, range(9), "an integer in 0..8")
        magnitude = as_integer("magnitude", magnitude, range(bins), f"an integer in 0..{bins - 1}")
        super().__init__(RandAugmentPolicy(num_ops, magnitude, bins), interpolation, fill, seed, backend)


class AutoAugment(_PolicyTransform):
    """AutoAugment (E. D. Cubuk et al., CVPR 2019): one of 25 learned pairs of operations for every image.

    It is the `AutoAugment` of `torchvision.transforms.v2` on Pillow's images; all else is as for `TrivialAugment`.

    Examples:
        >>> import torch
        >>> from fastmagn import AutoAugment
        >>> image = torch.rand(3, 32, 32)
        >>> augmented = AutoAugment("cifar10", fill=128)(image)
        >>> augmented.shape, augmented.dtype
        (torch.Size([3, 32, 32]), torch.float32)

    Args:
        policy: imagenet, cifar10 or svhn: a string or torchvision's AutoAugmentPolicy.
        interpolation: nearest or bilinear: a string, torchvision's InterpolationMode or Pillow's number.
        fill: What comes from outside the image: a number in 0..255 or three of them; None is black.
        seed: The seed of the draws: an integer in 0..2^64 - 1, or a torch.Generator on the CPU.
        backend: auto or numba (the compiled engine), or pil (torchvision itself).

    Raises:
        InputError: An argument has another type or is out of range.
    """

    own_word = 2

    def __init__(
        self,
        policy: Any = "imagenet",
        interpolation: Any = "nearest",
        fill: Any = None,
        *,
        seed: int | torch.Generator = 0,
        backend: str = "auto",
    ) -> None:
        name = getattr(policy, "value", policy)
        check(name in AUTOAUGMENT_NAMES, "policy", policy, ", ".join(AUTOAUGMENT_NAMES))
        super().__init__(AutoAugmentPolicy(name), interpolation, fill, seed, backend)


def _bins(num_magnitude_bins: int) -> int:
    return as_integer("num_magnitude_bins", num_magnitude_bins, range(2, 257), "an integer in 2..256")


def _is_bilinear(interpolation: Any) -> bool:
    name = getattr(interpolation, "value", interpolation)  # of torchvision's and Pillow's enumerations
    known = {"nearest": False, "bilinear": True, _NEAREST: False, _BILINEAR: True}
    is_known = isinstance(name, str | int) and not isinstance(name, bool) and name in known
    check(is_known, "interpolation", interpolation, "nearest or bilinear")
    return known[name]


def _colour(fill: Any) -> tuple[int, int, int]:
    numbers = [0] if fill is None else list(fill) if isinstance(fill, list | tuple) else [fill]
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    is_colour = len(numbers) == 3 and all(
        (is_integer(number) or isinstance(number, float)) and 0 <= number <= 255 for number in numbers
    )
    check(is_colour, "fill", fill, "None, a number in 0..255, or three of them")
    red, green, blue = (int(number) for number in numbers)
    return red, green, blue
