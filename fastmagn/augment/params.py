"""All randomness of the views: a pure function of (seed, epoch, sample index, view), the same for every engine.

Shape letters: B batch, J AugMix views, N noise views, W chains (mixture_width), D operations of a chain, H W image
size.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from fastmagn.augment.operations import NUM_AUGMIX_OPERATIONS, OPERATIONS
from fastmagn.augment.policies.recipe import Colour, draw_recipe, has_recipe, undrawn_recipe
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import as_array, as_integer, check, form
from fastmagn_kernels.random import draws, rng
from fastmagn_kernels.random.draws import AugMixParams, BaseParams, Settings
from fastmagn_kernels.random.policies import Recipe

JITTER_PARTS = ("brightness", "contrast", "saturation")
GREY: Colour = (0.5, 0.5, 0.5)
# jitter_order -> the order in which the colour jitter applies its three parts.
JITTER_ORDERS = tuple(tuple(JITTER_PARTS[part] for part in order) for order in draws.JITTER_ORDERS)


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """The views that a method needs beside the clean one: `num_augmix_views` (J) and `num_noise_views` (N)."""

    num_augmix_views: int
    num_noise_views: int

    @property
    def num_views(self) -> int:
        """V, the number of all views, with the clean one."""
        return 1 + self.num_augmix_views + self.num_noise_views


@dataclass(frozen=True, kw_only=True)
class ViewParams:
    """Everything that is random about the views of a batch.

    The fields determine all of it. An engine on the host reads the arrays `base`, `augmix` and `sigma`, which are drawn
    when they are first used; the CUDA kernels draw the same values themselves, from the same counters.

    Args:
        seed: The run's seed, 0..2^64 - 1.
        epoch: The epoch, from 0.
        indices: Sample indices, int64 [B].
        view_spec: The number of views.
        augment: The distributions.
        image_size: (H, W) of the images, px; translations are fractions of it.
        mean: The data set's mean colour, in [0, 1], which can fill erased areas.
    """

    seed: int
    epoch: int
    indices: np.ndarray
    view_spec: ViewSpec
    augment: AugmentConfig
    image_size: tuple[int, int]
    mean: Colour = GREY

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.indices)

    @cached_property
    def settings(self) -> Settings:
        """Everything that the draws depend on, except `indices`, as the kernels take it."""
        augment = self.augment
        height, width = self.image_size
        key_0, key_1 = rng.key_words(self.seed)
        return Settings(
            epoch=self.epoch,
            key_0=key_0,
            key_1=key_1,
            height=height,
            width=width,
            num_augmix=self.view_spec.num_augmix_views,
            num_noise=self.view_spec.num_noise_views,
            padding_px=augment.crop_padding_px,
            horizontal_flip=augment.horizontal_flip,
            color_jitter=float(augment.color_jitter),
            max_angle=int(augment.rotation_deg * draws.ANGLE_UNITS_PER_DEGREE),
            aug_severity=augment.aug_severity,
            random_aug_severity=augment.random_aug_severity,
            mixture_width=augment.mixture_width,
            mixture_depth=augment.mixture_depth,
            max_depth=draws.RANDOM_DEPTH if augment.mixture_depth == -1 else augment.mixture_depth,
            num_ops=num_operations(augment),
            sigma_max=float(augment.sigma_max),
        )

    @cached_property
    def base(self) -> BaseParams:
        """The parameters of the clean views."""
        return _draw_base(self)

    @cached_property
    def augmix(self) -> AugMixParams:
        """The parameters of the AugMix views."""
        return _draw_augmix(self)

    @cached_property
    def recipe(self) -> Recipe | None:
        """The policy, the erased areas and the noise patches of the clean views, drawn; None if there are none."""
        if not has_recipe(self.augment):
            return None
        undrawn = undrawn_recipe(self.augment, self.image_size, self.mean)
        return draw_recipe(undrawn, self.indices, (self.epoch, *rng.key_words(self.seed)), self.image_size)

    @cached_property
    def sigma(self) -> np.ndarray:
        """Standard deviations of the noise, float32 [N, B], pixels in [0, 1]."""
        settings = self.settings
        sigma = np.empty((settings.num_noise, self.batch_size), np.float32)
        draws.fill_sigma(self.indices, settings.epoch, settings.key_0, settings.key_1, settings.sigma_max, sigma)
        return sigma


def sample_view_params(
    seed: int,
    epoch: int,
    indices: ArrayLike,
    view_spec: ViewSpec,
    augment: AugmentConfig,
    image_size: Sequence[int],
    mean: Colour = GREY,
) -> ViewParams:
    """The parameters of a batch's views.

    Args:
        seed: The run's seed, 0..2^64 - 1.
        epoch: 0..2^32 - 1.
        indices: Sample indices, integers [B] in 0..2^32 - 1 (numpy, a list, or a torch tensor on the CPU).
        view_spec: The numbers of AugMix and noise views.
        augment: Their distributions.
        image_size: (H, W), px.
        mean: The data set's mean colour, in [0, 1].

    Raises:
        InputError: An argument is out of range.
    """
    seed = as_integer("seed", seed, range(2**64), "an integer in 0..2^64 - 1")
    epoch = as_integer("epoch", epoch, range(2**32), "an integer in 0..2^32 - 1")
    indices = as_array("indices", indices)
    is_list = indices.ndim == 1 and (indices.size == 0 or indices.dtype.kind in "iu")
    check(is_list, "indices", form(indices), "integers [B], the sample's number each")
    indices = np.require(indices, np.int64, ("C_CONTIGUOUS", "WRITEABLE"))  # numba compiles anew for what is read-only
    in_range = indices.size == 0 or indices.view(np.uint64).max() < 2**32  # a negative index is above
    check(in_range, "indices", f"{indices.min(initial=0)}..{indices.max(initial=0)}", "0..2^32 - 1")
    height, width = image_size
    return ViewParams(
        seed=seed,
        epoch=epoch,
        indices=indices,
        view_spec=view_spec,
        augment=augment,
        image_size=(height, width),
        mean=mean,
    )


def identity_base(params: ViewParams) -> ViewParams:
    """The same AugMix and noise draws on the unchanged images: without crop, flip, jitter, rotation and what follows.

    Turning one quantity off does not change the draws of the others.
    """
    unchanged = dataclasses.replace(
        params.augment,
        crop_padding_px=0,
        horizontal_flip=False,
        color_jitter=0.0,
        rotation_deg=0.0,
        policy="none",
        erase_probability=0.0,
        patch_probability=0.0,
    )
    return dataclasses.replace(params, augment=unchanged)


def jitter_steps(base: BaseParams) -> tuple[np.ndarray, np.ndarray]:
    """The colour jitter of each image, step by step.

    Returns:
        The part of each step, an index into JITTER_PARTS, int64 [B, 3]; its factor, float32 [B, 3].
    """
    parts = draws.JITTER_ORDERS[base.jitter_order]
    factors = np.stack([getattr(base, part) for part in JITTER_PARTS], axis=1)
    return parts, np.take_along_axis(factors, parts, axis=1)


def _draw_base(params: ViewParams) -> BaseParams:
    batch = params.batch_size
    base = BaseParams(
        crop_x_px=np.empty(batch, np.int64),
        crop_y_px=np.empty(batch, np.int64),
        flip=np.empty(batch, np.bool_),
        jitter_order=np.empty(batch, np.int64),
        brightness=np.empty(batch, np.float32),
        contrast=np.empty(batch, np.float32),
        saturation=np.empty(batch, np.float32),
        angle=np.empty(batch, np.int64),
    )
    draws.fill_base(params.indices, params.settings, base)
    return base


def empty_augmix(params: ViewParams) -> AugMixParams:
    """The arrays of `params.augmix`, not drawn yet: an engine may draw them itself, with `draws.draw_augmix`."""
    settings = params.settings
    shape = (settings.num_augmix, params.batch_size, settings.mixture_width)
    return AugMixParams(
        ops=np.empty((*shape, settings.max_depth), np.int8),
        magnitudes=np.empty((*shape, settings.max_depth), np.float64),
        chain_weights=np.empty(shape, np.float32),
        mix_weight=np.empty(shape[:2], np.float32),
    )


def _draw_augmix(params: ViewParams) -> AugMixParams:
    augmix = empty_augmix(params)
    draws.fill_augmix(params.indices, params.settings, augmix)
    return augmix


def num_operations(augment: AugmentConfig) -> int:
    """The number of operations that are drawn from: ids 0..num_operations - 1."""
    return len(OPERATIONS) if augment.all_operations else NUM_AUGMIX_OPERATIONS
