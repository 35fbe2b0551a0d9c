"""AugMix for any training loop."""

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.engines import AUGMIX_BACKENDS, CUDA_AUGMIX_BACKENDS
from fastmagn.augment.image_memory import in_order
from fastmagn.augment.image_transform import ImageTransform
from fastmagn.augment.params import ViewParams, ViewSpec, identity_base
from fastmagn.augment.views import choose_engine, make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import check, is_integer
from fastmagn.registry import resolve

_ONE_AUGMIX_VIEW = ViewSpec(num_augmix_views=1, num_noise_views=0)


class AugMix(ImageTransform):
    """AugMix (D. Hendrycks et al., ICLR 2020) of a batch, on the batch's device; every image gets its own chains.

    Chains work on uint8 and equal Pillow's to the bit (`fastmagn.augment.operations`); the mixture is computed in
    float32 and rounded to the images' dtype. Each call draws anew; the same seed draws the same sequence on every
    device.

    Examples:
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
        >>> again = torch.empty_like(images)
        >>> augmix(images, out=again) is again
        True
        >>> keyed = augmix(images, indices=range(8), epoch=3)
        >>> torch.equal(augmix(images[5], indices=5, epoch=3), keyed[5])
        True

    It runs in a `DataLoader`'s workers (fork, spawn and forkserver; per image or in `collate_fn`), there on one thread.
    Every worker and, without persistent workers, every epoch draws anew; the loader's generator or `torch.manual_seed`
    makes that repeatable. It runs inside `torch.compile` on plain tensors, as one opaque operator, with the draws of
    eager mode; give `indices` as a tensor there, since new numbers in a list compile anew. A copy or a pickle has a
    generator of its own, in the state that the original's had; transforms that share a generator and are copied
    together share the copy. `state_dict` has no entry for it.

    Args:
        aug_severity: Strength, 1..10: an operation's level is uniform in [0.1, aug_severity]. AugMix uses 3 for CIFAR
            and 1 for ImageNet.
        random_aug_severity: Draw the strength uniformly from 1..aug_severity for each image.
        mixture_width: Number of chains, 1..8.
        mixture_depth: Number of operations in a chain, 1..8; -1 draws it uniformly from 1, 2, 3.
        all_operations: Add the four operations that overlap the usual test corruptions.
        seed: The seed of the draws: an integer in 0..2^64 - 1, or a torch.Generator on the CPU (to resume, save and
            restore its state; PyTorch gives those of seeds with the same low 32 bits the same draws). Give each process
            of a distributed training its own, or use the keyed form.
        backend: auto (the fastest exact engine for the batch's device), numba, kornia, dali or pil.

    Raises:
        InputError: An argument has another type or is out of range.
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
        integers = {"aug_severity": aug_severity, "mixture_width": mixture_width, "mixture_depth": mixture_depth}
        for name, value in integers.items():
            check(is_integer(value), f"augment.{name}", value, "an integer")
        flags = {"random_aug_severity": random_aug_severity, "all_operations": all_operations}
        for name, value in flags.items():
            check(isinstance(value, bool | np.bool_), f"augment.{name}", value, "True or False")
        super().__init__(
            augment=AugmentConfig(
                aug_severity=int(aug_severity),
                mixture_width=int(mixture_width),
                mixture_depth=int(mixture_depth),
                random_aug_severity=bool(random_aug_severity),
                all_operations=bool(all_operations),
            ),
            view_spec=_ONE_AUGMIX_VIEW,
            moves="AugMix moves an image in several ways at once and cannot move these with it",
            seed=seed,
            backend=backend,
        )

    def fill_compiled(self, images: Tensor, params: ViewParams, out: Tensor) -> bool:
        return resolve(AUGMIX_BACKENDS, "numba", "augment.backend")(images, params, out)

    def fill(self, images_u8: Tensor, params: ViewParams, out: Tensor) -> None:
        # Equal channels stay equal in every operation, so a grey image may pass as an RGB one.
        images_u8, channels = images_u8.expand(-1, 3, -1, -1), images_u8.shape[1]
        params, engine = identity_base(params), choose_engine(self.backend, images_u8.device)
        if engine.device == "cuda" and engine.backend in CUDA_AUGMIX_BACKENDS:
            mixed = self._on_cuda(images_u8, params, out)
        else:
            mixed = make_views(images_u8, params, self.backend)[len(images_u8) :]
            mixed = mixed.mul_(255).round_() if out.dtype == torch.uint8 else mixed
        if mixed is not out:
            out.copy_(mixed[:, :channels])

    def _on_cuda(self, images_u8: Tensor, params: ViewParams, out: Tensor) -> Tensor:
        """The views of images uint8 [B, 3, H, W], uint8 or float32: in `out`, if the kernel can write there."""
        batch, _, height, width = images_u8.shape
        dtype = torch.uint8 if out.dtype == torch.uint8 else torch.float32
        in_form = out.shape[1] == 3 and out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)
        fits = in_form and out.data_ptr() % 16 == 0  # as the kernel stores up to 16 bytes at once
        pixels = out if fits else out.new_empty((batch, height, width, 3), dtype=dtype).permute(0, 3, 1, 2)
        images = in_order(images_u8, planar=False).permute(0, 2, 3, 1)
        fill_augmix = resolve(CUDA_AUGMIX_BACKENDS, "numba", "augment.backend")
        fill_augmix(images, params, pixels.permute(0, 2, 3, 1))
        return pixels

    def extra_repr(self) -> str:
        augment = self.augment
        return f"aug_severity={augment.aug_severity}, mixture_width={augment.mixture_width}, backend={self.backend!r}"
