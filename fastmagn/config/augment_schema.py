"""The section `augment` of a run's configuration; see schema.py."""

from dataclasses import dataclass
from typing import Literal

from fastmagn.errors import InputError, check, nearest

POLICY_NAMES = (
    *("none", "trivialaugment", "randaugment"),
    *("autoaugment_cifar10", "autoaugment_imagenet", "autoaugment_svhn"),
)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How views are made: the base transform of the clean view, AugMix, Gaussian noise.

    A policy and erasing change the clean view after its rotation, and so every view that is made from it. A noise patch
    changes the clean view alone.

    Args:
        backend: Engine that makes the views: auto (the fastest exact engine for the device), numba, kornia, dali, pil.
        aug_severity: Strength of AugMix, 1..10. The level of an operation is uniform in [0.1, aug_severity].
        random_aug_severity: Draw the strength uniformly from 1..aug_severity for each image and view.
        mixture_width: Number of chains that an AugMix or PRIME view mixes, 1..8.
        mixture_depth: Number of operations in a chain, 1..8; -1 draws it uniformly from 1, 2, 3 for each chain.
        all_operations: Add colour, contrast, brightness and sharpness to AugMix's nine operations. These four overlap
            with the test corruptions.
        num_noise_samples: Number of noisy views of each image for magn, magn_augmix, NAME+magn and dign, 1..8. MAGN
            averages their divergences.
        sigma_max: Largest standard deviation of the Gaussian noise, for pixels in [0, 1], 0..10. Each noisy view of
            each image draws its own standard deviation.
        rse_sigma: Standard deviation of rse's noise in training and testing, for pixels in [0, 1], 0..10.
        crop_padding_px: Width of the black border that is added before the random crop, 0..64 px; 0 turns the crop off.
        horizontal_flip: Flip an image left to right with probability 1/2.
        color_jitter: Strength of the colour jitter, 0..1: factors of brightness, contrast and saturation are uniform in
            [1 - color_jitter, 1 + color_jitter].
        rotation_deg: Largest rotation of the clean view, 0..30 degrees. The angle is uniform in +-rotation_deg.
        policy: Policy of the clean view: none, trivialaugment, randaugment, autoaugment_cifar10, autoaugment_imagenet,
            autoaugment_svhn, or a YAML file of your own (docs/policies.md). It works with every method.
        policy_interpolation: How a named policy's geometric operations sample: nearest, as published, or bilinear.
        randaugment_num_ops: Number of operations that randaugment applies, 1..8.
        randaugment_magnitude: Strength of randaugment's operations, 0..30.
        erase_probability: Probability that an area of the clean view is erased, 0..1 (random erasing, cutout).
        erase_fill: What fills the erased area: zeros, the data set's mean, or noise (uniform in 0..255).
        erase_min_area: Smallest erased share of the image's area, in (0, 1].
        erase_max_area: Largest erased share, erase_min_area..1. Height over width is log-uniform in [0.3, 3.3].
        erase_square_px: Side of a square that is erased instead, around a drawn pixel, 0..256 px; 0 erases a rectangle.
        patch_probability: Probability that the clean view has a noise patch, 0..1, if a strength below is above 0. One
            of those noises is drawn for each image, at a strength that is uniform between 0 and the given one.
        patch_linf: Strength of noise that is uniform in each value within +-patch_linf, for pixels in [0, 1], 0..1.
        patch_l2: Radius of noise that is uniform in the l_2 ball of the whole image, 0..1e30.
        patch_l1: Radius of noise that is uniform in the l_1 ball, 0..1e30.
        patch_l05: Radius of noise that is uniform in the l_0.5 ball, 0..1e30.
        patch_impulse: Share of values that become uniform in [0, 1], 0..1.
        patch_gaussian: Standard deviation of Gaussian noise, 0..10.
        patch_min_area: Smallest share of the image's area that a patch has, in (0, 1].
        patch_max_area: Largest share, patch_min_area..1.
        patch_max_left_out: Largest share of a patch's values that keep their value, 0..1; it is uniform up to that.
        patch_clip: Clip the patch's values to [0, 1].
    """

    backend: Literal["auto", "numba", "kornia", "dali", "pil"] = "auto"
    aug_severity: int = 3
    random_aug_severity: bool = False
    mixture_width: int = 3
    mixture_depth: int = -1
    all_operations: bool = False
    num_noise_samples: int = 1
    sigma_max: float = 0.2
    rse_sigma: float = 0.1
    crop_padding_px: int = 4
    horizontal_flip: bool = False
    color_jitter: float = 0.0
    rotation_deg: float = 2.0
    policy: str = "none"
    policy_interpolation: Literal["nearest", "bilinear"] = "nearest"
    randaugment_num_ops: int = 2
    randaugment_magnitude: int = 9
    erase_probability: float = 0.0
    erase_fill: Literal["zeros", "mean", "noise"] = "zeros"
    erase_min_area: float = 0.02
    erase_max_area: float = 0.33
    erase_square_px: int = 0
    patch_probability: float = 1.0
    patch_linf: float = 0.0
    patch_l2: float = 0.0
    patch_l1: float = 0.0
    patch_l05: float = 0.0
    patch_impulse: float = 0.0
    patch_gaussian: float = 0.0
    patch_min_area: float = 0.2
    patch_max_area: float = 0.7
    patch_max_left_out: float = 1.0
    patch_clip: bool = True

    def __post_init__(self) -> None:
        check(1 <= self.aug_severity <= 10, "augment.aug_severity", self.aug_severity, "1..10")
        check(1 <= self.mixture_width <= 8, "augment.mixture_width", self.mixture_width, "1..8")
        depth_ok = self.mixture_depth == -1 or 1 <= self.mixture_depth <= 8
        check(depth_ok, "augment.mixture_depth", self.mixture_depth, "-1 (drawn from 1, 2, 3) or 1..8")
        check(1 <= self.num_noise_samples <= 8, "augment.num_noise_samples", self.num_noise_samples, "1..8")
        check(0 <= self.sigma_max <= 10, "augment.sigma_max", self.sigma_max, "0..10")
        check(0 <= self.rse_sigma <= 10, "augment.rse_sigma", self.rse_sigma, "0..10")
        check(0 <= self.crop_padding_px <= 64, "augment.crop_padding_px", self.crop_padding_px, "0..64")
        check(0 <= self.color_jitter <= 1, "augment.color_jitter", self.color_jitter, "0..1")
        check(0 <= self.rotation_deg <= 30, "augment.rotation_deg", self.rotation_deg, "0..30")
        self._check_recipe()

    def _check_recipe(self) -> None:
        """The policy, erasing and noise patches."""
        if self.policy not in POLICY_NAMES and not self.policy.endswith((".yaml", ".yml")):
            raise InputError(
                f"augment.policy: got {self.policy!r}; expected {', '.join(POLICY_NAMES)} or a YAML file."
                f"{nearest(self.policy, POLICY_NAMES)}"
            )
        check(1 <= self.randaugment_num_ops <= 8, "augment.randaugment_num_ops", self.randaugment_num_ops, "1..8")
        magnitude = self.randaugment_magnitude
        check(0 <= magnitude <= 30, "augment.randaugment_magnitude", magnitude, "0..30")
        for name in ("erase_probability", "patch_probability", "patch_max_left_out", "patch_linf", "patch_impulse"):
            check(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "0..1")
        for name in ("patch_l2", "patch_l1", "patch_l05"):
            check(0 <= getattr(self, name) <= 1e30, f"augment.{name}", getattr(self, name), "0..1e30")
        check(0 <= self.patch_gaussian <= 10, "augment.patch_gaussian", self.patch_gaussian, "0..10")
        for kind in ("erase", "patch"):
            low, high = getattr(self, f"{kind}_min_area"), getattr(self, f"{kind}_max_area")
            check(0 < low <= 1, f"augment.{kind}_min_area", low, "a share of the area in (0, 1]")
            check(low <= high <= 1, f"augment.{kind}_max_area", high, f"a share of the area in {low:g}..1")
        check(0 <= self.erase_square_px <= 256, "augment.erase_square_px", self.erase_square_px, "0 (none) or 1..256")
