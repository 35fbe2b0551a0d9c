"""What the configuration adds to the clean views after crop, flip, jitter and rotation, as the kernels take it."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np

from fastmagn.augment.policies.definitions import (
    AutoAugmentPolicy,
    Definition,
    RandAugmentPolicy,
    SubPolicy,
    TrivialAugmentPolicy,
)
from fastmagn.augment.policies.own import read_policy
from fastmagn.augment.policies.table import Policy, gate, make_table
from fastmagn.config.augment_schema import POLICY_NAMES
from fastmagn.config.paths import user_path
from fastmagn.config.schema import AugmentConfig
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.policies import Erasing, Patches, Recipe, RecipeParams, Table

Colour = tuple[float, float, float]


class _NoPolicy:
    """No operation at all."""

    def sub_policies(self, height: int, width: int) -> tuple[SubPolicy, ...]:
        return ((),)


_NO_POLICY = Policy(_NoPolicy())


def has_recipe(augment: AugmentConfig) -> bool:
    """Whether a policy, erasing or noise patches change the clean views."""
    return augment.policy != "none" or augment.erase_probability > 0 or has_patches(augment)


def has_patches(augment: AugmentConfig) -> bool:
    """Whether some clean views have noise patches."""
    return bool(patch_strengths(augment))


def patch_strengths(augment: AugmentConfig) -> dict[str, float]:
    """The fields of the noises that patches have, with their largest strengths."""
    fields = (f"patch_{name}" for name in policies.NOISES if augment.patch_probability > 0)
    return {field: getattr(augment, field) for field in fields if getattr(augment, field) > 0}


def policy_of(augment: AugmentConfig) -> Policy:
    """The policy that `augment.policy` names; its file is read at each call.

    Raises:
        InputError: Its file cannot be used.
    """
    definitions: dict[str, Definition] = {
        "trivialaugment": TrivialAugmentPolicy(),
        "randaugment": RandAugmentPolicy(augment.randaugment_num_ops, augment.randaugment_magnitude),
        "autoaugment_cifar10": AutoAugmentPolicy("cifar10"),
        "autoaugment_imagenet": AutoAugmentPolicy("imagenet"),
        "autoaugment_svhn": AutoAugmentPolicy("svhn"),
    }
    if augment.policy == "none":
        return _NO_POLICY
    if file := policy_file(augment):
        return read_policy(file)
    return Policy(definitions[augment.policy], bilinear=augment.policy_interpolation == "bilinear")


@functools.lru_cache(maxsize=8)
def policy_in_use(augment: AugmentConfig) -> Policy:
    """The policy that a run draws from: `policy_of` at the first call after `read_recipe` was called.

    Raises:
        InputError: Its file cannot be used.
    """
    return policy_of(augment)


def policy_file(augment: AugmentConfig) -> Path | None:
    """The YAML file that `augment.policy` names; None if it names no file."""
    return None if augment.policy in POLICY_NAMES else user_path(augment.policy, "augment.policy")


def read_recipe(augment: AugmentConfig) -> dict[str, int | str] | None:
    """Read anew what a run draws from; what its clean views depend on beside the configuration, None if nothing.

    Later changes of the file that `augment.policy` names do not change this run.

    Returns:
        `version`, that of the operations and draws; for a policy of one's own, `sha256` of what its file says.

    Raises:
        InputError: The file cannot be used.
    """
    policy_in_use.cache_clear()
    undrawn_recipe.cache_clear()
    if not has_recipe(augment):
        return None
    if policy_file(augment) is None:
        return {"version": policies.POLICY_VERSION}
    content = json.dumps(dataclasses.asdict(policy_in_use(augment)), sort_keys=True)  # without comments and layout
    return {"version": policies.POLICY_VERSION, "sha256": hashlib.sha256(content.encode()).hexdigest()}


@functools.lru_cache(maxsize=8)
def undrawn_recipe(augment: AugmentConfig, image_size: tuple[int, int], mean: Colour) -> Recipe:
    """The recipe for images of one size, (H, W), px, without its `params`; `mean` is the data set's, in [0, 1]."""
    colour = mean if augment.erase_fill == "mean" else (0.0, 0.0, 0.0)
    strengths = np.array(_strengths(augment), np.float64)
    return Recipe(
        table=make_table(policy_in_use(augment), *image_size),
        erasing=Erasing(
            threshold=gate(augment.erase_probability),
            min_area=float(augment.erase_min_area),
            max_area=float(augment.erase_max_area),
            square_px=augment.erase_square_px,
            fill=policies.ERASE_NOISE if augment.erase_fill == "noise" else policies.ERASE_COLOUR,
            colour=np.rint(np.array(colour) * 255).astype(np.uint8),
        ),
        patches=Patches(
            threshold=gate(augment.patch_probability) if strengths.any() else 0,
            noises=np.flatnonzero(strengths),
            strengths=strengths,
            min_area=float(augment.patch_min_area),
            max_area=float(augment.patch_max_area),
            max_left_out=float(augment.patch_max_left_out),
            clipped=augment.patch_clip,
        ),
        params=empty_params(0, 0),
        sqrt_ratios=policies.sqrt_ratios(),
    )


def empty_params(batch_size: int, num_steps: int) -> RecipeParams:
    """Arrays for the draws of a batch: no step, no area and no patch."""
    return RecipeParams(
        rows=np.full((batch_size, num_steps), policies.NO_ROW, np.int32),
        erased=np.zeros((batch_size, 4), np.int32),
        patched=np.zeros((batch_size, 4), np.int32),
        noise=np.zeros(batch_size, np.int8),
        strength=np.zeros(batch_size, np.float32),
        left_out=np.zeros(batch_size, np.float32),
    )


def draw_recipe(recipe: Recipe, indices: np.ndarray, key: tuple[int, int, int], image_size: tuple[int, int]) -> Recipe:
    """The recipe of a batch, drawn for the samples `indices`; `key` is the epoch and the two words of the seed."""
    params = empty_params(len(indices), recipe.table.steps.shape[1])
    recipe = recipe._replace(params=params)
    policies.fill_recipe(indices, *key, *image_size, recipe)
    return recipe


def draw_rows(table: Table, indices: np.ndarray, key: tuple[int, int, int], image_size: tuple[int, int]) -> np.ndarray:
    """The row of each step of a policy for the samples `indices`, int32 [B, D]; NO_ROW where it is not applied."""
    recipe = undrawn_recipe(AugmentConfig(), image_size, (0.0, 0.0, 0.0))._replace(table=table)
    return draw_recipe(recipe, indices, key, image_size).params.rows


def _strengths(augment: AugmentConfig) -> list[float]:
    """The largest strengths in the order of `policies.NOISES`."""
    return [getattr(augment, f"patch_{name}") for name in policies.NOISES]
