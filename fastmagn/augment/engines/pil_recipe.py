"""The reference engine's policies, erased areas and noise patches: torchvision on Pillow's images, and plain numpy.

Shape letters: B batch, H W C image, E elements of an image, Q blocks of four, ceil(E / 4).
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from fastmagn.augment.engines.pil_operations import apply_operation
from fastmagn.augment.params import ViewParams
from fastmagn.augment.policies.recipe import policy_in_use
from fastmagn.augment.policies.table import list_rows
from fastmagn_kernels.random import policies, rng


def with_recipe(image: Image.Image, recipe: policies.Recipe, params: ViewParams, i: int) -> Image.Image:
    """Sample `i`'s clean view, RGB uint8, after its policy and with its erased area."""
    policy = policy_in_use(params.augment)
    choices = list_rows(policy.definition, *params.image_size).choices
    for row in recipe.params.rows[i]:
        if row != policies.NO_ROW:
            image = apply_operation(image, *choices[row][:2], bilinear=policy.bilinear, fill=policy.fill)
    left, top, width, height = (int(number) for number in recipe.params.erased[i])
    if width:
        image = image.copy()
        if recipe.erasing.fill == policies.ERASE_NOISE:
            noise = _erasing_noise(params, i).reshape(image.height, image.width, 3)
            image.paste(Image.fromarray(noise[top : top + height, left : left + width]), (left, top))
        else:
            box = (left, top, left + width - 1, top + height - 1)
            ImageDraw.Draw(image).rectangle(box, fill=tuple(recipe.erasing.colour.tolist()))
    return image


def with_patch(clean: np.ndarray, recipe: policies.Recipe, params: ViewParams, i: int) -> np.ndarray:
    """Sample `i`'s clean view, float32 [H, W, C] in [0, 1], with its noise patch."""
    left, top, width, height = recipe.params.patched[i]
    if width == 0:
        return clean
    noise, strength = int(recipe.params.noise[i]), float(recipe.params.strength[i])
    values, others = (_fractions(_words(params, i, rng.STREAM_PATCH, view, clean.size)) for view in (1, 2))
    left_out = recipe.params.left_out[i]
    flat = clean.ravel()
    if noise == policies.IMPULSE:
        noisy = np.where(values < np.float32(strength) * (np.float32(1) - left_out), others, flat)
    else:
        added = _noise(params, i, noise, strength, clean.size)
        noisy = flat + np.where(others < left_out, 0, added)
    if recipe.patches.clipped:
        noisy = np.clip(noisy, 0, 1)
    inside = np.zeros(clean.shape, bool)
    inside[top : top + height, left : left + width] = True
    return np.where(inside, noisy.reshape(clean.shape), clean).astype(np.float32)


def _noise(params: ViewParams, i: int, noise: int, strength: float, size: int) -> np.ndarray:
    """Float64 [E] of one of the noises that are added."""
    words = _words(params, i, rng.STREAM_PATCH, 1, size)
    if noise == policies.LINF:
        return strength * (2 * _fractions(words).astype(np.float64) - 1)
    if noise in (policies.GAUSSIAN, policies.L2):
        z = np.empty(size, np.float32)
        key = rng.key_words(params.seed)
        rng.standard_normal(z, rng.STREAM_PATCH, 1, params.indices[i], params.epoch, *key)
        point = z.astype(np.float64)
        if noise == policies.GAUSSIAN:
            return strength * point
        terms, point, power = point**2 / 2, point / math.sqrt(2), 1 / 2
    else:
        signs = np.where(words & 1, 1.0, -1.0)
        terms = _exponentials(words)
        power = 1.0
        if noise == policies.L05:
            terms = terms + _exponentials(_words(params, i, rng.STREAM_PATCH, 3, size))
            power = 2.0
        point = signs * terms**power
    (slot,) = rng_words(params, i, rng.STREAM_PATCH, 0, [2])
    total = terms.sum() + _exponentials(slot[:1])[0]
    return strength * point / total**power


def _exponentials(words: np.ndarray) -> np.ndarray:
    return -np.log(((words >> 8).astype(np.float32) + np.float32(0.5)).astype(np.float64) * 2.0**-24)


def _fractions(words: np.ndarray) -> np.ndarray:
    return (words >> 8).astype(np.float32) * np.float32(2.0**-24)


def _words(params: ViewParams, i: int, stream: int, view: int, size: int) -> np.ndarray:
    """The words of an image's elements, uint32 [E]; block b has those of elements b, b + Q, b + 2Q, b + 3Q."""
    blocks = rng_words(params, i, stream, view, range((size + 3) // 4))
    return blocks.T.ravel()[:size]


def _erasing_noise(params: ViewParams, i: int) -> np.ndarray:
    """The bytes of an image's elements, uint8 [E]."""
    size = 3 * math.prod(params.image_size)
    words = rng_words(params, i, rng.STREAM_ERASING, 1, range((size + 15) // 16))
    return words.astype("<u4").view(np.uint8).ravel()[:size]


def rng_words(params: ViewParams, i: int, stream: int, view: int, slots: range | list[int]) -> np.ndarray:
    """The four words of each block of a sample's stream, uint32 [slots, 4]."""
    key, index = rng.key_words(params.seed), params.indices[i]
    word = rng.stream_view_word(stream, view)
    return np.array([rng.philox4x32(slot, word, index, params.epoch, *key) for slot in slots], np.uint32)
