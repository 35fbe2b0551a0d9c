"""The CPU's kernels in groups, each compiled by running it once on a tiny image. Only `policies` needs PyTorch.

A group's name is one of `GROUPS`, or `corrupt NAME` or `perturb NAME` of a corruption or a sequence.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastmagn.corruptions import CORRUPTIONS, PERTURBATIONS, SEVERITIES, SIZE_CLASSES
from fastmagn.registry import is_own

CORRUPT, PERTURB = "corrupt", "perturb"
_SIDE_PX = 32
_INDICES = np.zeros(1, np.int64)


def all_groups() -> list[str]:
    """The names of all groups, in an order in which several processes share the work well.

    The one that takes longest is first. Those that share most of their kernels with others come late.
    """
    late = ("recipe_views", "policies")
    first = [name for name in GROUPS if name not in late]
    return [*first, *corruption_groups(CORRUPTIONS), *late, *(f"{PERTURB} {name}" for name in PERTURBATIONS)]


def corruption_groups(names: Iterable[str]) -> list[str]:
    """The groups of these corruptions; those of the user's own have no kernels that are known here."""
    return [f"{CORRUPT} {name}" for name in names if name in CORRUPTIONS and not is_own(CORRUPTIONS, name)]


def compile_group(name: str) -> None:
    """Compile the kernels of a group, or load them from the cache on disk."""
    kind, _, member = name.partition(" ")
    if kind == CORRUPT:
        _corruption(member)
    elif kind == PERTURB:
        _sequence(member)
    else:
        GROUPS[name]()


def _views(**augment: Any) -> None:
    """The views of a batch, without or with a recipe for the clean view."""
    from fastmagn.augment.engines.numba_cpu import fill_arrays
    from fastmagn.augment.params import ViewSpec, sample_view_params
    from fastmagn.config.schema import AugmentConfig

    spec = ViewSpec(num_augmix_views=1, num_noise_views=1)
    params = sample_view_params(0, 0, _INDICES, spec, AugmentConfig(**augment), (_SIDE_PX, _SIDE_PX))
    fill_arrays(_images(_SIDE_PX), params, np.empty((spec.num_views, _SIDE_PX, _SIDE_PX, 3), np.float32))


def _recipe_views() -> None:
    _views(erase_probability=0.5)


def _prime() -> None:
    from fastmagn_kernels.prime_cpu.views import prime_views_batch
    from fastmagn_kernels.random.prime import Settings
    from fastmagn_kernels.random.rng import key_words

    key_0, key_1 = key_words(0)
    settings = Settings(
        **{"epoch": 0, "key_0": key_0, "key_1": key_1, "height": _SIDE_PX, "width": _SIDE_PX},
        **{"mixture_width": 3, "mixture_depth": -1, "color_frequencies": 9, "color_variance": 0.01},
        **{"displacement_cut": 9, "filter_std": 1.0, "official": False},
    )
    pixels = np.zeros((1, _SIDE_PX * _SIDE_PX, 3), np.float32)
    prime_views_batch(np.empty((1, *pixels.shape), np.float32), pixels, _INDICES, settings)


def _policies() -> None:
    """The transforms for other people's loops."""
    import torch

    from fastmagn import AugMix, TrivialAugment

    images = torch.from_numpy(_images(_SIDE_PX)).permute(0, 3, 1, 2)
    for transform in (AugMix(), TrivialAugment()):
        transform(images)


def _draws() -> None:
    """What is drawn beside views: the order of the images, crops, noise."""
    from fastmagn_kernels.random import crops, draws, rng

    key = rng.key_words(0)
    rng.permutation(4, 0, 0)
    rng.words_batch(np.empty((1, 4), np.uint32), 0, 0, 0, _INDICES, 0, *key)
    for fill in (rng.standard_normal_batch, rng.uniform_batch):
        fill(np.empty((1, 4), np.float32), 0, 0, _INDICES, 0, *key)
    draws.fill_sigma(_INDICES, 0, *key, 1.0, np.empty((1, 1), np.float32))
    crops.fill_crops(_INDICES, 0, *key, np.full((1, 2), _SIDE_PX), 0.08, np.empty((1, 4), np.int64))


def _corruption(name: str) -> None:
    """A corruption at every severity and class of sizes; of frost, only if its pictures are installed."""
    from fastmagn.corruptions.corrupting import available_corruptions, corrupt

    if name in available_corruptions():
        for size in SIZE_CLASSES:
            for severity in SEVERITIES:
                corrupt(_images(max(size.min_side_px, _SIDE_PX)), name, severity, jpeg=True)


def _sequence(name: str) -> None:
    from fastmagn.corruptions.sequences import perturb

    perturb(_images(_SIDE_PX), name)


def _images(side_px: int) -> np.ndarray:
    return np.zeros((1, side_px, side_px, 3), np.uint8)


GROUPS: dict[str, Callable[[], None]] = {
    "views": _views,
    "recipe_views": _recipe_views,
    "prime": _prime,
    "policies": _policies,
    "draws": _draws,
}
