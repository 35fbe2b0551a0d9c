"""A strip for each method: a photograph in the views that the method trains on, made by the trainer itself."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.gallery.photos import SIDE_PX, flower, temple
from benchmarks.gallery.strips import strip
from fastmagn.config.schema import AugmentConfig, Config, MixingConfig, SpectraConfig, TrainConfig
from fastmagn.data import ImageSet
from fastmagn.methods.table import METHODS
from fastmagn.training.first_views import first_views

NUM_CELLS = 5
NUM_PARTNERS = 3
# An attack changes what nobody sees, and depends on the network; afa_jsd has afa's views.
WITHOUT_PICTURE = ("at", "trades", "afa_jsd")
# What is given in pixels, or as a norm of the whole image, is for 32 px by default.
_SCALE = SIDE_PX // 32
_FIXED = AugmentConfig(crop_padding_px=0, rotation_deg=0.0)
_AT_224_PX: dict[str, dict[str, Any]] = {
    "standard": {"augment": AugmentConfig(horizontal_flip=True, color_jitter=0.25)},
    "cutout": {"mixing": MixingConfig(cutout_px=16 * _SCALE)},
    "hybridaugment": {"spectra": SpectraConfig(blur_px=15, blur_sigma_px=0.5 * _SCALE)},
    "ta_noise": {
        "augment": AugmentConfig(
            crop_padding_px=0,
            rotation_deg=0.0,
            patch_l2=5.0 * _SCALE,
            patch_l1=200.0 * _SCALE**2,
            patch_l05=400_000.0 * _SCALE**4,
        )
    },
}
# Method -> its first seed, where with seed 0 the draws would hide what the method does.
_FIRST_SEED = {"mixup": 4, "cutmix": 1, "noisymix": 6, "autoaugment": 8, "trivialaugment": 8, "gaussian_noise": 4}


def pictures() -> Iterator[tuple[str, Image.Image, str]]:
    """The pictures, each after its name and before the text that says what made its views."""
    for name in METHODS:
        if name not in WITHOUT_PICTURE:
            shown, labels, texts = views_of(name)
            yield f"methods/{name}", strip(shown, labels), "\n".join(texts)


def views_of(name: str) -> tuple[list[np.ndarray], list[str], list[str]]:
    """The photograph and its views in as many steps as there is room for; their labels; what made the views."""
    images, labels, texts = [temple()], ["image"], []
    first = _FIRST_SEED.get(name, 0)
    for seed in range(first, first + NUM_CELLS):
        views, titles, made_by = views_in_one_step(name, seed)
        if len(images) + len(views) > NUM_CELLS:
            break
        images += views
        labels += titles
        texts += made_by
    return images, labels, texts


def views_in_one_step(name: str, seed: int) -> tuple[list[np.ndarray], list[str], list[str]]:
    """The photograph's views in the first step of a run, without a clean one that is the photograph itself."""
    config = Config(method=name, train=TrainConfig(seed=seed), **({"augment": _FIXED} | _AT_224_PX.get(name, {})))
    shown = first_views(config, photographs(), 1 + NUM_PARTNERS)
    (row,) = (i for i, image in enumerate(shown.images_u8) if np.array_equal(image, temple()))
    views, labels, texts = [], [], []
    for title, made in shown.views_u8.items():
        if title == "clean" and np.array_equal(made[row], temple()):
            continue
        text = shown.made_by.get(title, {row: ""})[row]
        is_sigma = text.startswith("sigma")
        views.append(made[row])
        labels.append(f"{title}: {text.replace('sigma', 'σ')}" if is_sigma else title)
        texts += [f"{title}: {text}"] if text and not is_sigma else []
    return views, labels, texts


def photographs() -> ImageSet:
    """The two photographs as a data set. There are several flowers, so that the temple is seldom its own partner."""
    images_u8 = np.stack([temple(), *[flower()] * NUM_PARTNERS])
    mean, std = images_u8.mean((0, 1, 2)) / 255, images_u8.std((0, 1, 2)) / 255
    labels = np.minimum(np.arange(len(images_u8)), 1)
    return ImageSet(
        name="photographs",
        class_names=("temple", "flower"),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        train_images_u8=images_u8,
        train_labels=labels,
        test_images_u8=images_u8,
        test_labels=labels,
    )
