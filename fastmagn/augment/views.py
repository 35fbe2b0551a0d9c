"""uint8 images and their drawn parameters -> the float views that the model sees.

Legend: V views, B batch, J AugMix views, N noise views, C H W image.
"""

from dataclasses import dataclass

import torch

from fastmagn.augment.params import ViewParams
from fastmagn.errors import InputError, check
from fastmagn.registry import resolve

# name -> (images uint8 [B, H, W, C], ViewParams, out float32 [V*B, H, W, C]) -> None, numpy arrays on the host.
BACKENDS = {
    "numba": "fastmagn.augment.numba_backend:fill_views",
    "pil": "fastmagn.augment.pil:fill_views",
}


@dataclass(frozen=True)
class Views:
    """All views of a batch, ready for one fused forward.

    Args:
        images: float32 [V*B, C, H, W], channels last in memory; clean | AugMix x J | noise x N. Pixels in [0, 1],
            but noise is not clipped.
        num_views: V.
    """

    images: torch.Tensor
    num_views: int

    def split(self, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cut what the model made of `images`, [V*B, ...], into V tensors [B, ...]: clean, AugMix x J, noise x N."""
        assert len(logits) % self.num_views == 0
        return logits.chunk(self.num_views)


def make_views(images_u8: torch.Tensor, params: ViewParams, backend: str = "auto") -> Views:
    """Make the clean, AugMix and noise views of a batch.

    The base transform (crop, flip, colour jitter, rotation) and AugMix's operations work on uint8 as Pillow does;
    AugMix mixes `(1 - m) x + m sum_i w_i chain_i` and noise adds `sigma z`, both to the clean view in [0, 1].

    Args:
        images_u8: uint8 [B, 3, H, W]; channels last in memory costs no copy. Images on a CUDA device are fetched, their
            views made on the host, and copied back from pinned memory without waiting.
        params: From `sample_view_params`, for this batch and image size.
        backend: auto (numba), or a name in BACKENDS.

    Returns:
        Views on `images_u8`'s device.

    Raises:
        InputError: If the images are not uint8 [B, 3, H, W] with B >= 1, do not match `params`, or the backend is
            unknown.
    """
    fill_views = resolve(BACKENDS, "numba" if backend == "auto" else backend, "augment.backend")
    _check_images(images_u8, params)
    device = images_u8.device
    batch, channels, height, width = images_u8.shape
    num_views = params.view_spec.num_views
    images = images_u8.permute(0, 2, 3, 1).cpu().contiguous().numpy()
    shape = (num_views * batch, height, width, channels)
    out = torch.empty(shape, dtype=torch.float32, pin_memory=device.type == "cuda")
    fill_views(images, params, out.numpy())
    return Views(out.to(device, non_blocking=True).permute(0, 3, 1, 2), num_views)


def _check_images(images_u8: torch.Tensor, params: ViewParams) -> None:
    check(images_u8.dtype == torch.uint8, "images_u8.dtype", images_u8.dtype, "torch.uint8 (pixels 0..255)")
    check(images_u8.ndim == 4, "images_u8", f"{images_u8.ndim} dimensions", "4: [B, 3, H, W]")
    batch, channels, height, width = images_u8.shape
    if channels != 3:
        hint = " These look like [B, H, W, 3]: permute(0, 3, 1, 2)." if width == 3 else ""
        raise InputError(f"images_u8: got {channels} channels; expected 3 (RGB), as [B, 3, H, W].{hint}")
    check(
        min(batch, height, width) >= 1, "images_u8", list(images_u8.shape), "at least one image of at least one pixel"
    )
    check(batch == params.batch_size, "images_u8", f"{batch} images", f"{params.batch_size}, as params has indices")
    size = (height, width)
    check(size == params.image_size, "images_u8", f"height and width {size}", f"{params.image_size}, as params has")
