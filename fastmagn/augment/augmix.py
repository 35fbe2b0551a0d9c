"""AugMix for any training loop."""

import torch
from torch import Tensor, nn

from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import choose_engine, make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import check

_ONE_AUGMIX_VIEW = ViewSpec(num_augmix_views=1, num_noise_views=0)
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class AugMix(nn.Module):
    """AugMix (D. Hendrycks et al., ICLR 2020) of a batch, on the batch's device; every image gets its own chains.

    Chains work on uint8 and equal Pillow's to the bit (`fastmagn.augment.operations`); the mixture is computed in
    float32 and rounded to the images' dtype. Each call draws anew; the same seed draws the same sequence on every
    device.

    >>> import torch
    >>> from fastmagn import AugMix
    >>> images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> augmix = AugMix(seed=0)
    >>> first, second = augmix(images), augmix(images)
    >>> first.shape, first.dtype, torch.equal(first, second)
    (torch.Size([8, 3, 32, 32]), torch.uint8, False)
    >>> torch.equal(AugMix(seed=0)(images), first)
    True
    >>> augmix(images / 255).dtype
    torch.float32

    Args:
        aug_severity: Strength, 1..10: an operation's level is uniform in [0.1, aug_severity]. AugMix uses 3 for CIFAR
            and 1 for ImageNet.
        random_aug_severity: Draw the strength uniformly from 1..aug_severity for each image.
        mixture_width: Number of chains, 1..8.
        mixture_depth: Number of operations in a chain, 1..8; -1 draws it uniformly from 1, 2, 3.
        all_operations: Add the four operations that overlap the usual test corruptions.
        seed: The seed of the draws: an integer, or a torch.Generator on the CPU (to resume, save and restore its
            state).
        backend: auto (the fastest exact engine for the batch's device), numba, kornia, dali or pil.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        aug_severity: int = 3,
        random_aug_severity: bool = False,
        mixture_width: int = 3,
        mixture_depth: int = -1,
        all_operations: bool = False,
        seed: int | torch.Generator = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.augment = AugmentConfig(
            aug_severity=aug_severity,
            random_aug_severity=random_aug_severity,
            mixture_width=mixture_width,
            mixture_depth=mixture_depth,
            all_operations=all_operations,
        )
        choose_engine(backend, torch.device("cpu"))
        self.backend = backend
        is_generator = isinstance(seed, torch.Generator)
        self.generator = seed if is_generator else torch.Generator().manual_seed(seed)
        check(self.generator.device.type == "cpu", "seed", f"a generator on {self.generator.device}", "one on the CPU")

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: [B, 3, H, W] or [B, 1, H, W]; uint8, or floats in [0, 1], which are first rounded to 256 levels.

        Returns:
            The mixed images, of the same shape, dtype and device, channels last in memory.

        Raises:
            InputError: The images have another shape or dtype.
        """
        allowed = "uint8 or float [B, 3, H, W] or [B, 1, H, W]"
        is_batch = images.ndim == 4 and images.shape[1] in (1, 3)
        check(is_batch and images.dtype in (torch.uint8, *_FLOATS), "images", _form(images), allowed)
        channels, is_uint8 = images.shape[1], images.dtype == torch.uint8
        images_u8 = images if is_uint8 else (images.float() * 255).round_().clamp_(0, 255).to(torch.uint8)
        key = int(torch.randint(2**63 - 1, (), generator=self.generator))
        batch, _, height, width = images.shape
        params = sample_view_params(key, 0, torch.arange(batch), _ONE_AUGMIX_VIEW, self.augment, (height, width))
        # Equal channels stay equal in every operation, so a grey image may pass as an RGB one.
        views = make_views(images_u8.expand(-1, 3, -1, -1), identity_base(params), self.backend)
        mixed = views[batch:, :channels]
        return (mixed * 255).round_().to(torch.uint8) if is_uint8 else mixed.to(images.dtype)

    def extra_repr(self) -> str:
        augment = self.augment
        return f"aug_severity={augment.aug_severity}, mixture_width={augment.mixture_width}, backend={self.backend!r}"


def _form(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
