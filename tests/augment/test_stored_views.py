"""The public transforms' views are those of version 0.2.0, to the bit: the hashes in stored_views.json are its own.

Its drawn views took the low 32 bits of a seed, so those of a larger seed are compared as the draws of these bits. All
its policies drew with one key, so they are compared without the word of their class.

`python -m tests.augment.test_stored_views` prints the hashes of the code that is imported.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fastmagn import AugMix, AutoAugment, RandAugment, TrivialAugment
from fastmagn.augment.image_transform import ImageTransform

STORED = Path(__file__).with_name("stored_views.json")
TRANSFORMS = {
    "augmix": lambda seed: AugMix(seed=seed),
    "augmix, all": lambda seed: AugMix(
        aug_severity=10, random_aug_severity=True, mixture_width=5, mixture_depth=2, all_operations=True, seed=seed
    ),
    "augmix, one chain": lambda seed: AugMix(mixture_width=1, mixture_depth=1, seed=seed),
    "trivialaugment": lambda seed: TrivialAugment(seed=seed),
    "randaugment": lambda seed: without_word(RandAugment(3, 14, interpolation="bilinear", fill=99, seed=seed)),
    "autoaugment": lambda seed: without_word(AutoAugment("cifar10", seed=seed)),
}
SHAPES = [(12, 3, 32, 32), (7, 3, 20, 33), (5, 1, 9, 8), (4, 3, 1, 1), (3, 3, 65, 67)]
DTYPES = [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16]


def without_word(policy: RandAugment | AutoAugment) -> ImageTransform:
    policy.own_word = 0
    return policy


def images_of(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    """Smooth pictures with some noise; floats lie between levels, and some a little outside 0..1."""
    rng = np.random.default_rng(shape[0])
    y, x = np.mgrid[: shape[2], : shape[3]] / max(shape[2:])
    waves = np.sin(rng.uniform(1, 9, (*shape[:2], 1, 1)) * x + rng.uniform(1, 9, (*shape[:2], 1, 1)) * y)
    values = 0.5 + 0.45 * waves + rng.normal(0, 0.05, shape)
    if dtype == torch.uint8:
        return torch.from_numpy((255 * values.clip(0, 1)).astype(np.uint8))
    return torch.from_numpy(values.clip(-0.001, 1.001)).to(dtype)


def views_of(make: Callable[[int], ImageTransform], seed: int, images: Tensor) -> list[Tensor]:
    """Two drawn views, a keyed one, and that of a single image."""
    indices = (np.arange(len(images)) * 7919 + 5) % 2**32
    drawn, keyed = make(seed % 2**32), make(seed)
    return [drawn(images), drawn(images), keyed(images, indices=indices, epoch=3), drawn(images[-1])]


def digest(views: list[Tensor]) -> str:
    """The hash of the views' values, whatever their order in memory is."""
    parts = [view.flatten().view(torch.uint8 if view.dtype == torch.uint8 else torch.int16) for view in views]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:16]


def digests(name: str, seed: int) -> dict[str, str]:
    """The hash for each shape, dtype and memory format; it is the same for both formats."""
    found = {}
    for shape in SHAPES:
        for dtype in DTYPES:
            key = f"{name}, seed {seed}, {list(shape)} {str(dtype).removeprefix('torch.')}"
            images = images_of(shape, dtype)
            found[key] = digest(views_of(TRANSFORMS[name], seed, images))
            last = images.contiguous(memory_format=torch.channels_last)
            assert digest(views_of(TRANSFORMS[name], seed, last)) == found[key], key
    return found


@pytest.mark.parametrize("seed", [0, 2**63 + 11])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_views_are_those_of_the_version_before(name, seed):
    stored = json.loads(STORED.read_text())
    made = digests(name, seed)
    assert made == {key: stored[key] for key in made}


if __name__ == "__main__":
    every = [digests(name, seed) for name in TRANSFORMS for seed in (0, 2**63 + 11)]
    print(json.dumps({key: value for part in every for key, value in part.items()}, indent=1))
