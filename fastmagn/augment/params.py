"""All randomness of the views: a pure function of (seed, epoch, sample index, view), the same for every engine.

Legend: B batch, J AugMix views, N noise views, W chains (mixture_width), D operations of a chain, H W image size.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from fastmagn.augment.operations import NUM_AUGMIX_OPERATIONS, OPERATIONS
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import check
from fastmagn_kernels.random import draws, rng

JITTER_PARTS = ("brightness", "contrast", "saturation")
# jitter_order -> the order in which the colour jitter applies its three parts.
JITTER_ORDERS = tuple(permutations(JITTER_PARTS))


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
class BaseParams:
    """What makes a clean view of an image.

    Args:
        crop_x_px: Left edge of the crop in the padded image, int64 [B], 0..2 crop_padding_px.
        crop_y_px: Top edge, likewise.
        flip: Left to right, bool [B].
        jitter_order: Index into JITTER_ORDERS, int64 [B].
        brightness: Factor, float32 [B].
        contrast: Factor, float32 [B].
        saturation: Factor, float32 [B].
        angle: Counter-clockwise rotation in 1/64 degree, int64 [B].
    """

    crop_x_px: np.ndarray
    crop_y_px: np.ndarray
    flip: np.ndarray
    jitter_order: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AugMixParams:
    """What makes the AugMix views of an image.

    Args:
        ops: Operations, ids of `ops.OPERATIONS`, int8 [J, B, W, D]; -1 beyond a chain's drawn depth.
        magnitudes: Their signed magnitudes in the operation's unit, float64 [J, B, W, D].
        chain_weights: Dirichlet(1), float32 [J, B, W].
        mix_weight: Beta(1, 1), the share of the chains, float32 [J, B].
    """

    ops: np.ndarray
    magnitudes: np.ndarray
    chain_weights: np.ndarray
    mix_weight: np.ndarray


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
    """

    seed: int
    epoch: int
    indices: np.ndarray
    view_spec: ViewSpec
    augment: AugmentConfig
    image_size: tuple[int, int]

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.indices)

    @cached_property
    def base(self) -> BaseParams:
        """The parameters of the clean views."""
        return _draw_base(self)

    @cached_property
    def augmix(self) -> AugMixParams:
        """The parameters of the AugMix views."""
        return _draw_augmix(self)

    @cached_property
    def sigma(self) -> np.ndarray:
        """Standard deviations of the noise, float32 [N, B], pixels in [0, 1]."""
        sigma = np.empty((self.view_spec.num_noise_views, self.batch_size), np.float32)
        draws.fill_sigma(self.indices, self.epoch, *rng.key_words(self.seed), float(self.augment.sigma_max), sigma)
        return sigma


def sample_view_params(
    seed: int, epoch: int, indices: np.ndarray, view_spec: ViewSpec, augment: AugmentConfig, image_size: tuple[int, int]
) -> ViewParams:
    """The parameters of a batch's views.

    Args:
        seed: The run's seed, 0..2^64 - 1.
        epoch: 0..2^32 - 1.
        indices: Sample indices, integers [B] in 0..2^32 - 1 (numpy, or a torch tensor on the CPU).
        view_spec: The numbers of AugMix and noise views.
        augment: Their distributions.
        image_size: (H, W), px.

    Raises:
        InputError: An argument is out of range.
    """
    check(0 <= seed < 2**64, "seed", seed, "0..2^64 - 1")
    check(0 <= epoch < 2**32, "epoch", epoch, "0..2^32 - 1")
    indices = np.asarray(indices)
    is_list = indices.ndim == 1 and np.issubdtype(indices.dtype, np.integer)
    check(is_list, "indices", f"{indices.dtype} {list(indices.shape)}", "integers [B], the sample's number each")
    indices = np.ascontiguousarray(indices, np.int64)
    in_range = indices.size == 0 or (indices.min() >= 0 and indices.max() < 2**32)
    check(in_range, "indices", f"{indices.min(initial=0)}..{indices.max(initial=0)}", "0..2^32 - 1")
    height, width = image_size
    return ViewParams(
        seed=seed,
        epoch=epoch,
        indices=indices,
        view_spec=view_spec,
        augment=augment,
        image_size=(height, width),
    )


def identity_base(params: ViewParams) -> ViewParams:
    """The same AugMix and noise draws on the unchanged images: without crop, flip, jitter and rotation.

    Turning one quantity off does not change the draws of the others.
    """
    unchanged = dataclasses.replace(
        params.augment, crop_padding_px=0, horizontal_flip=False, color_jitter=0.0, rotation_deg=0.0
    )
    return dataclasses.replace(params, augment=unchanged)


def jitter_steps(base: BaseParams) -> tuple[np.ndarray, np.ndarray]:
    """The colour jitter of each image, step by step.

    Returns:
        The part of each step, an index into JITTER_PARTS, int64 [B, 3]; its factor, float32 [B, 3].
    """
    orders = np.array([[JITTER_PARTS.index(part) for part in order] for order in JITTER_ORDERS])
    parts = orders[base.jitter_order]
    factors = np.stack([getattr(base, part) for part in JITTER_PARTS], axis=1)
    return parts, np.take_along_axis(factors, parts, axis=1)


def _draw_base(params: ViewParams) -> BaseParams:
    batch, augment = params.batch_size, params.augment
    arrays = {
        "crop_x_px": np.empty(batch, np.int64),
        "crop_y_px": np.empty(batch, np.int64),
        "flip": np.empty(batch, np.bool_),
        "jitter_order": np.empty(batch, np.int64),
        "brightness": np.empty(batch, np.float32),
        "contrast": np.empty(batch, np.float32),
        "saturation": np.empty(batch, np.float32),
        "angle": np.empty(batch, np.int64),
    }
    draws.fill_base(
        params.indices,
        params.epoch,
        *rng.key_words(params.seed),
        augment.crop_padding_px,
        augment.horizontal_flip,
        float(augment.color_jitter),
        max_angle_units(augment),
        *arrays.values(),
    )
    return BaseParams(**arrays)


def empty_augmix(params: ViewParams) -> AugMixParams:
    """The arrays of `params.augmix`, not drawn yet: an engine may draw them itself, with `draws.draw_augmix`."""
    shape = (params.view_spec.num_augmix_views, params.batch_size, params.augment.mixture_width)
    depth = max_depth(params.augment)
    return AugMixParams(
        ops=np.empty((*shape, depth), np.int8),
        magnitudes=np.empty((*shape, depth), np.float64),
        chain_weights=np.empty(shape, np.float32),
        mix_weight=np.empty(shape[:2], np.float32),
    )


def augmix_distributions(augment: AugmentConfig) -> tuple[int, bool, int, int]:
    """What `draws.draw_augmix` has to know of the configuration."""
    return augment.aug_severity, augment.random_aug_severity, augment.mixture_depth, num_operations(augment)


def _draw_augmix(params: ViewParams) -> AugMixParams:
    augmix = empty_augmix(params)
    draws.fill_augmix(
        params.indices,
        params.epoch,
        *rng.key_words(params.seed),
        *augmix_distributions(params.augment),
        *params.image_size,
        *vars(augmix).values(),
    )
    return augmix


def max_angle_units(augment: AugmentConfig) -> int:
    """The base rotation's extent in 1/64 degree."""
    return int(augment.rotation_deg * draws.ANGLE_UNITS_PER_DEGREE)


def max_depth(augment: AugmentConfig) -> int:
    """D, the longest chain."""
    return draws.RANDOM_DEPTH if augment.mixture_depth == -1 else augment.mixture_depth


def num_operations(augment: AugmentConfig) -> int:
    """The number of operations that are drawn from: ids 0..num_operations - 1."""
    return len(OPERATIONS) if augment.all_operations else NUM_AUGMIX_OPERATIONS
