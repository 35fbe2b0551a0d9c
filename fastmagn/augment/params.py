"""All randomness of the views: a pure function of (seed, epoch, sample index, view), the same for every backend.

Legend: B batch, J AugMix views, N noise views, W chains (mixture_width), D operations of a chain, H W image size.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from fastmagn.augment.ops import NUM_AUGMIX_OPERATIONS, OPERATIONS
from fastmagn.config import AugmentConfig
from fastmagn.errors import check
from fastmagn_kernels import draws, rng

# jitter_order -> the order in which the colour jitter applies its three parts.
JITTER_ORDERS = (
    ("brightness", "contrast", "saturation"),
    ("brightness", "saturation", "contrast"),
    ("contrast", "brightness", "saturation"),
    ("contrast", "saturation", "brightness"),
    ("saturation", "brightness", "contrast"),
    ("saturation", "contrast", "brightness"),
)


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """What a method needs: `num_augmix_views` (J) and `num_noise_views` (N) beside the clean view."""

    num_augmix_views: int
    num_noise_views: int

    @property
    def num_views(self) -> int:
        """V: the clean view and all others."""
        return 1 + self.num_augmix_views + self.num_noise_views


@dataclass(frozen=True, kw_only=True)
class ViewParams:
    """Everything that is random about the views of a batch.

    Args:
        seed: The run's, 0..2^64 - 1; with `epoch` and `indices` it also gives the noise itself.
        epoch: Epoch, from 0.
        indices: Sample indices, int64 [B].
        view_spec: How many views.
        image_size: (H, W) the magnitudes were made for, px.
        crop_padding_px: Width of the zero border that the crop's offsets count from.
        crop_x_px: Left edge of the crop in the padded image, int64 [B], 0..2 crop_padding_px.
        crop_y_px: Top edge, likewise.
        flip: Left to right, bool [B].
        jitter_order: Index into JITTER_ORDERS, int64 [B].
        brightness: Factor, float32 [B].
        contrast: Factor, float32 [B].
        saturation: Factor, float32 [B].
        angle: Counter-clockwise rotation in 1/64 degree, int64 [B].
        ops: AugMix's operations, ids of `ops.OPERATIONS`, int8 [J, B, W, D]; -1 beyond a chain's drawn depth.
        magnitudes: Their signed magnitudes in the operation's unit, float64 [J, B, W, D].
        chain_weights: Dirichlet(1), float32 [J, B, W].
        mix_weight: Beta(1, 1), the share of the chains, float32 [J, B].
        sigma: Standard deviation of the noise, float32 [N, B], pixels in [0, 1].
    """

    seed: int
    epoch: int
    indices: np.ndarray
    view_spec: ViewSpec
    image_size: tuple[int, int]
    crop_padding_px: int
    crop_x_px: np.ndarray
    crop_y_px: np.ndarray
    flip: np.ndarray
    jitter_order: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    angle: np.ndarray
    ops: np.ndarray
    magnitudes: np.ndarray
    chain_weights: np.ndarray
    mix_weight: np.ndarray
    sigma: np.ndarray

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.indices)


def sample_view_params(
    seed: int, epoch: int, indices: np.ndarray, view_spec: ViewSpec, augment: AugmentConfig, image_size: tuple[int, int]
) -> ViewParams:
    """Draw the parameters of a batch's views.

    Args:
        seed: The run's, 0..2^64 - 1.
        epoch: 0..2^32 - 1.
        indices: Sample indices, integers [B] in 0..2^32 - 1 (numpy, or a torch tensor on the CPU).
        view_spec: How many AugMix and noise views.
        augment: Their distributions.
        image_size: (H, W), px; translations are fractions of it.

    Raises:
        InputError: If an argument is out of range.
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
    key = rng.key_words(seed)
    return ViewParams(
        seed=seed,
        epoch=epoch,
        indices=indices,
        view_spec=view_spec,
        image_size=(height, width),
        crop_padding_px=augment.crop_padding_px,
        **_base_params(epoch, indices, key, augment),
        **_augmix_params(epoch, indices, key, view_spec.num_augmix_views, augment, height, width),
        sigma=_sigma(epoch, indices, key, view_spec.num_noise_views, augment.sigma_max),
    )


def identity_base(params: ViewParams) -> ViewParams:
    """The same AugMix and noise draws on the images as they are: no crop, flip, jitter or rotation."""
    batch = params.batch_size
    centre = np.full(batch, params.crop_padding_px, np.int64)
    one = np.ones(batch, np.float32)
    return dataclasses.replace(
        params,
        crop_x_px=centre,
        crop_y_px=centre,
        flip=np.zeros(batch, np.bool_),
        brightness=one,
        contrast=one,
        saturation=one,
        angle=np.zeros(batch, np.int64),
    )


def _base_params(
    epoch: int, indices: np.ndarray, key: tuple[np.uint32, np.uint32], augment: AugmentConfig
) -> dict[str, np.ndarray]:
    batch = len(indices)
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
    max_angle = int(augment.rotation_deg * draws.ANGLE_UNITS_PER_DEGREE)
    draws.fill_base(
        indices,
        epoch,
        *key,
        augment.crop_padding_px,
        augment.horizontal_flip,
        float(augment.color_jitter),
        max_angle,
        *arrays.values(),
    )
    return arrays


def _augmix_params(
    epoch: int,
    indices: np.ndarray,
    key: tuple[np.uint32, np.uint32],
    num_views: int,
    augment: AugmentConfig,
    height: int,
    width: int,
) -> dict[str, np.ndarray]:
    max_depth = draws.RANDOM_DEPTH if augment.mixture_depth == -1 else augment.mixture_depth
    shape = (num_views, len(indices), augment.mixture_width)
    arrays = {
        "ops": np.empty((*shape, max_depth), np.int8),
        "magnitudes": np.empty((*shape, max_depth), np.float64),
        "chain_weights": np.empty(shape, np.float32),
        "mix_weight": np.empty(shape[:2], np.float32),
    }
    draws.fill_augmix(
        indices,
        epoch,
        *key,
        augment.aug_severity,
        augment.random_aug_severity,
        augment.mixture_depth,
        len(OPERATIONS) if augment.all_operations else NUM_AUGMIX_OPERATIONS,
        height,
        width,
        *arrays.values(),
    )
    return arrays


def _sigma(
    epoch: int, indices: np.ndarray, key: tuple[np.uint32, np.uint32], num_views: int, sigma_max: float
) -> np.ndarray:
    sigma = np.empty((num_views, len(indices)), np.float32)
    draws.fill_sigma(indices, epoch, *key, float(sigma_max), sigma)
    return sigma
