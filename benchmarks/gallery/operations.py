"""A strip for each operation of AugMix and the policies, at five strengths of TrivialAugment's wide space."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from benchmarks.gallery.photos import temple
from benchmarks.gallery.strips import CELL_PX, cell, strip
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import FACTORS, OPERATIONS, Choice, TrivialAugmentPolicy
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.own import OwnPolicy
from fastmagn.augment.policies.table import Policy
from fastmagn.config.schema import AugmentConfig

STRENGTHS = 5
_SIGNS = {"px per px": "{:.2g}", "px": "{:.0f} px", "degrees": "{:.5g}°", "bits": "{:.0f} bits"}


def pictures() -> Iterator[tuple[str, Image.Image]]:
    """The pictures, each after its name; `no_strength` shows the operations that have none."""
    image = np.asarray(cell(temple()))
    for name in graded():
        values = values_of(name)
        yield f"operations/{name}", strip([changed(image, name, value) for value in values], labels_of(name, values))
    others = [name for name in OPERATIONS if name not in graded()]
    yield "operations/no_strength", strip([changed(image, name, 0.0) for name in others], others)


def graded() -> list[str]:
    """The operations that have strengths."""
    return [name for name, unit in OPERATIONS.items() if unit != "none"]


def values_of(name: str) -> list[float]:
    """Five values of an operation from TrivialAugment's wide space, rising."""
    ((step,),) = TrivialAugmentPolicy(STRENGTHS).sub_policies(CELL_PX, CELL_PX)
    (values,) = (choice.values for choice in step if choice.operation == name)
    if name in FACTORS:
        return sorted(set(values))[::2]
    return [value for value in dict.fromkeys(values) if value >= 0]


def labels_of(name: str, values: list[float]) -> list[str]:
    """The values with their unit."""
    return [_SIGNS.get(OPERATIONS[name], "{:.3g}").format(value) for value in values]


def changed(image: np.ndarray, name: str, value: float) -> np.ndarray:
    """An image uint8 [H, W, 3] after one operation."""
    policy = Policy(OwnPolicy((((Choice(name, (value,)),),),)), bilinear=True)
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    params = sample_view_params(0, 0, np.arange(1), spec, AugmentConfig(), image.shape[:2])
    made = apply_policy(torch.tensor(image)[None].permute(0, 3, 1, 2), params, policy, "auto")
    return made[0].permute(1, 2, 0).numpy()
