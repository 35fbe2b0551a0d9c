"""The reference engine: Pillow itself, image by image. Slow and obviously right; tests hold every other engine to it.

Shape letters: V views, B batch, J AugMix views, N noise views, H W C image.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from fastmagn.augment.engines.pil_recipe import with_patch, with_recipe
from fastmagn.augment.operations import OPERATIONS
from fastmagn.augment.params import JITTER_ORDERS, ViewParams
from fastmagn_kernels.random import rng
from fastmagn_kernels.random.draws import ANGLE_UNITS_PER_DEGREE, NO_OPERATION

_BILINEAR = Image.Resampling.BILINEAR
_JITTER = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, _BILINEAR)


_FUNCTIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "rotate": lambda image, degrees: image.rotate(degrees, _BILINEAR),
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "shear_x": lambda image, shear: _affine(image, (1, shear, 0, 0, 1, 0)),
    "shear_y": lambda image, shear: _affine(image, (1, 0, 0, shear, 1, 0)),
    "translate_x": lambda image, px: _affine(image, (1, 0, px, 0, 1, 0)),
    "translate_y": lambda image, px: _affine(image, (1, 0, 0, 0, 1, px)),
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
}


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, float32 [V*B, H, W, C], with the views of `images`, uint8 [B, H, W, C], as `make_views` describes."""
    views = out.numpy().reshape(params.view_spec.num_views, *images.shape)
    augmix, recipe = params.augmix, params.recipe
    for i, pixels in enumerate(images.numpy()):
        clean_image = base_transform(Image.fromarray(pixels), params, i)
        if recipe is not None:
            clean_image = with_recipe(clean_image, recipe, params, i)
        clean = _to_float(clean_image)
        views[0, i] = clean if recipe is None else with_patch(clean, recipe, params, i)
        for j in range(params.view_spec.num_augmix_views):
            mixture = np.zeros_like(clean)
            for weight, ops, magnitudes in zip(
                augmix.chain_weights[j, i], augmix.ops[j, i], augmix.magnitudes[j, i], strict=True
            ):
                image = clean_image
                for op, magnitude in zip(ops, magnitudes, strict=True):
                    if op != NO_OPERATION:
                        image = apply_operation(image, op, float(magnitude))
                mixture += weight * _to_float(image)
            mix_weight = augmix.mix_weight[j, i]
            views[1 + j, i] = (np.float32(1) - mix_weight) * clean + mix_weight * mixture
        for n in range(params.view_spec.num_noise_views):
            views[1 + params.view_spec.num_augmix_views + n, i] = clean + params.sigma[n, i] * _noise(
                params, n, i, clean
            )


def apply_operation(image: Image.Image, op: int, magnitude: float) -> Image.Image:
    """Apply one operation of `operations.OPERATIONS`, by its id, to an RGB image."""
    return _FUNCTIONS[OPERATIONS[op].name](image, magnitude)


def base_transform(image: Image.Image, params: ViewParams, i: int) -> Image.Image:
    """Sample `i`'s clean view, RGB uint8: padded with black, cropped, flipped, jittered in the drawn order, rotated."""
    width, height = image.size
    base = params.base
    x, y = int(base.crop_x_px[i]), int(base.crop_y_px[i])
    image = ImageOps.expand(image, params.augment.crop_padding_px, 0).crop((x, y, x + width, y + height))
    if base.flip[i]:
        image = ImageOps.mirror(image)
    for part in JITTER_ORDERS[base.jitter_order[i]]:
        image = _JITTER[part](image).enhance(float(getattr(base, part)[i]))
    return image.rotate(float(base.angle[i]) / ANGLE_UNITS_PER_DEGREE, _BILINEAR)


def _to_float(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / np.float32(255)


def _noise(params: ViewParams, n: int, i: int, like: np.ndarray) -> np.ndarray:
    z = np.empty(like.size, np.float32)
    key = rng.key_words(params.seed)
    rng.standard_normal(z, rng.STREAM_NOISE, n, params.indices[i], params.epoch, *key)
    return z.reshape(like.shape)
