"""APR and HybridAugment++ as plain training code makes them: image by image on Pillow, pairs of a batch in torch.

The views of `apr` and `hybridaugment` are timed against this code. It draws as the methods' authors do: the part of
single images for each image in a loop, the part of pairs once for a batch.

Shape letters: B batch, H W image.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

Rng = np.random.Generator

PADDING_PX, GREY = 4, (128, 128, 128)
AUG_SEVERITY, PAIR_PROBABILITY, SINGLE_PROBABILITY = 3, 0.6, 0.5


def apr_views(images_u8: Tensor, rng: Rng) -> Tensor:
    """The views of APR-SP: uint8 [B, 3, H, W] -> float32 [2*B, 3, H, W], clean then mixed."""
    images = _single_views(images_u8, _apr_single, rng)
    return torch.cat((images, _recombined(images, rng)))


def hybridaugment_views(images_u8: Tensor, rng: Rng) -> Tensor:
    """The views of HybridAugment++ PS: uint8 [B, 3, H, W] -> float32 [2*B, 3, H, W], clean then mixed."""
    images = _single_views(images_u8, _hybrid_single, rng)
    mixed = images
    if rng.random() < PAIR_PROBABILITY:
        low = _blurred(images)
        high = images - low
        mixed = _recombined(low, rng) + high[torch.from_numpy(rng.permutation(len(images)))]
    return torch.cat((images, mixed))


def _single_views(images_u8: Tensor, single: Callable[[Image.Image, Rng], Image.Image], rng: Rng) -> Tensor:
    views = []
    for pixels in images_u8.permute(0, 2, 3, 1).numpy():
        image = single(Image.fromarray(pixels), rng)
        x, y = rng.integers(0, 2 * PADDING_PX + 1, 2).tolist()
        width, height = image.size
        image = ImageOps.expand(image, PADDING_PX, GREY).crop((x, y, x + width, y + height))
        image = ImageOps.mirror(image) if rng.random() < 0.5 else image
        views.append(_to_float(image))
    return torch.stack(views)


def _recombined(images: Tensor, rng: Rng) -> Tensor:
    """APR-P of a batch."""
    if rng.random() >= PAIR_PROBABILITY:
        return images
    spectrum = torch.fft.fftn(images, dim=(1, 2, 3))
    amplitude = torch.fft.fftn(images[torch.from_numpy(rng.permutation(len(images)))], dim=(1, 2, 3)).abs()
    return torch.fft.ifftn(amplitude * torch.exp(1j * spectrum.angle()), dim=(1, 2, 3)).real


def _apr_single(image: Image.Image, rng: Rng) -> Image.Image:
    first = _augmented(image, rng)
    if rng.random() >= SINGLE_PROBABILITY:
        return first
    second = _augmented(first, rng)
    if rng.random() < 0.5:
        first, second = second, first
    phase = np.angle(np.fft.fftn(np.asarray(first)))
    amplitude = np.abs(np.fft.fftn(np.asarray(second)))
    mixed = np.fft.ifftn(amplitude * np.exp(1j * phase)).real
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _hybrid_single(image: Image.Image, rng: Rng) -> Image.Image:
    first = _augmented(image, rng)
    if rng.random() >= SINGLE_PROBABILITY:
        return first
    second = _augmented(first, rng)
    if rng.random() < 0.5:
        first, second = second, first
    low, high = _blurred(_to_float(first)), _to_float(second) - _blurred(_to_float(second))
    low = _to_float(_apr_single(functional.to_pil_image(low), rng))
    return functional.to_pil_image((low + high).clamp(0, 1))


def _to_float(image: Image.Image) -> Tensor:
    return functional.pil_to_tensor(image).float() / 255


def _blurred(images: Tensor) -> Tensor:
    return functional.gaussian_blur(images, [3, 3], [0.5, 0.5])


def _augmented(image: Image.Image, rng: Rng) -> Image.Image:
    level, sign = rng.uniform(0.1, AUG_SEVERITY), int(rng.choice((-1, 1)))
    return augmix_operation(image, int(rng.integers(9)), level, sign)


def augmix_operation(image: Image.Image, number: int, level: float, sign: int) -> Image.Image:
    """AugMix's operation `number`, 0..8, in the order of its code, at a level in [0.1, 10)."""
    width, height = image.size
    shear, x, y = sign * level * 0.3 / 10, sign * int(level * (width / 3) / 10), sign * int(level * (height / 3) / 10)

    def moved(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    operations = (
        lambda: ImageOps.autocontrast(image),
        lambda: ImageOps.equalize(image),
        lambda: ImageOps.posterize(image, 4 - int(level * 4 / 10)),
        lambda: image.rotate(sign * int(level * 30 / 10), Image.Resampling.BILINEAR),
        lambda: ImageOps.solarize(image, 256 - int(level * 256 / 10)),
        lambda: moved(1, shear, 0, 0, 1, 0),
        lambda: moved(1, 0, 0, shear, 1, 0),
        lambda: moved(1, 0, x, 0, 1, 0),
        lambda: moved(1, 0, 0, 0, 1, y),
    )
    return operations[number]()
