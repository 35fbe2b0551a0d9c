"""uint8 images and their drawn parameters -> the float views that the model sees.

Shape letters: V views, B batch, J AugMix views, N noise views, C H W image.
"""

import functools
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from fastmagn.augment.engines import BACKENDS, CUDA_BACKENDS, WITHOUT_RECIPES, host_memory
from fastmagn.augment.forks import torch_on_one_thread_in_forks
from fastmagn.augment.params import ViewParams
from fastmagn.augment.policies.recipe import has_recipe
from fastmagn.errors import InputError, check, counted, one_line, warn_caller
from fastmagn.registry import resolve

FillViews = Callable[[Tensor, ViewParams, Tensor], None]

VIEW_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Engine(NamedTuple):
    """The code that makes views.

    Args:
        backend: The backend's name.
        device: The type of the device it works on: `cpu` (the host) or `cuda`.
        fill_views: (images, params, out) -> None, as `fastmagn.augment.engines` describes.
    """

    backend: str
    device: str
    fill_views: FillViews

    def __str__(self) -> str:
        return f"{self.backend} on {self.device}"


def choose_engine(backend: str, device: torch.device, with_recipe: bool = False) -> Engine:
    """The engine that makes the views of images on `device`.

    Args:
        backend: A name in BACKENDS, or auto: the fastest exact one. That is numba's: on the device where numba-cuda
            can be used, else on the host.
        device: The images' device.
        with_recipe: Whether a policy, erasing or noise patches change the clean views (`policies.recipe.has_recipe`).
            The engines kornia and dali know none of them.

    Raises:
        InputError: The backend is unknown or not installed, or knows no policies.
    """
    if with_recipe:
        check(
            backend not in WITHOUT_RECIPES,
            "augment.backend",
            backend,
            "auto, numba or pil with a policy, erasing or noise patches",
        )
    if device.type == "cuda":
        fault = numba_cuda_fault() if backend in ("auto", "numba") else None
        if backend == "numba" and fault is not None:
            raise InputError(
                f"augment.backend: got numba with images on CUDA, which needs numba-cuda; it {fault}. Install"
                " 'fastmagn[cuda]', or use auto, which makes the views on the host."
            )
        name = "numba" if backend == "auto" and fault is None else backend
        if name in CUDA_BACKENDS:
            return Engine(backend=name, device="cuda", fill_views=resolve(CUDA_BACKENDS, name, "augment.backend"))
    name = "numba" if backend == "auto" else backend
    return Engine(backend=name, device="cpu", fill_views=resolve(BACKENDS, name, "augment.backend"))


@functools.cache
def numba_cuda_fault() -> str | None:
    """What is wrong with numba-cuda, phrased to follow its name; None if it compiles for CUDA here.

    One that is installed may still not fit this numba, or lack libNVVM; there is one warning of that.
    """
    if find_spec("numba_cuda") is None:
        return "is not installed"
    try:
        resolve(CUDA_BACKENDS, "numba", "augment.backend")
        importlib.import_module("fastmagn_kernels.augmix_cuda.compiling").load_compiler()
    except Exception as error:  # of many types: a version that does not fit, a library that is missing
        fault = f"cannot be used ({one_line(error)})"
        warn_caller(f"numba-cuda {fault}: augment.backend auto makes the views of images on CUDA on the host.")
        return fault
    return None


@torch_on_one_thread_in_forks
def make_views(
    images_u8: Tensor, params: ViewParams, backend: str = "auto", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Make the clean, AugMix and noise views of a batch.

    The base transform (crop, flip, colour jitter, rotation, then policy and erasing) and AugMix's operations work on
    uint8 as Pillow does; a noise patch is added to the clean view in [0, 1], after the others have been made from it;
    AugMix mixes `(1 - m) x + m sum_i w_i chain_i` and noise adds `sigma z`, both to the clean view in [0, 1].

    Args:
        images_u8: uint8 [B, 3, H, W]; channels last in memory needs no copy. If the engine works on the host and the
            images are on a CUDA device, they are copied to the host, and the views are copied back from pinned memory
            without waiting.
        params: From `sample_view_params`, for this batch and image size.
        backend: auto, or a name in BACKENDS.
        dtype: The views' dtype, one of VIEW_DTYPES; they are computed in float32 and rounded to nearest.

    Returns:
        All views for one fused forward: [V*B, C, H, W] of `dtype`, on `images_u8`'s device, channels last in memory;
        clean | AugMix x J | noise x N, so that `chunk(V)` separates them. Pixels are in [0, 1], but noise is not
        clipped.

    Raises:
        InputError: The images are not uint8 [B, 3, H, W] with B >= 1 or do not match `params`, or the backend is
            unknown or not installed.
    """
    check(dtype in VIEW_DTYPES, "dtype", dtype, ", ".join(map(str, VIEW_DTYPES)))
    _check_images(images_u8, params)
    device = images_u8.device
    engine = choose_engine(backend, device, has_recipe(params.augment))
    batch, channels, height, width = images_u8.shape
    there = device if engine.device == device.type else engine.device  # "cuda" alone is the current device
    images = images_u8.permute(0, 2, 3, 1).to(there).contiguous()
    shape = (params.view_spec.num_views * batch, height, width, channels)
    if engine.device == "cuda":
        out = torch.empty(shape, dtype=dtype, device=device)
    elif device.type == "cuda":
        out = torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=True)
    else:
        out = host_memory.empty(shape)
    engine.fill_views(images, params, out)
    return out.to(device, dtype, non_blocking=True).permute(0, 3, 1, 2)


def _check_images(images_u8: Tensor, params: ViewParams) -> None:
    check(isinstance(images_u8, Tensor), "images_u8", f"a {type(images_u8).__name__}", "a tensor uint8 [B, 3, H, W]")
    check(images_u8.dtype == torch.uint8, "images_u8.dtype", images_u8.dtype, "torch.uint8 (pixels 0..255)")
    check(images_u8.ndim == 4, "images_u8", f"{images_u8.ndim} dimensions", "4: [B, 3, H, W]")
    batch, channels, height, width = images_u8.shape
    if channels != 3:
        hint = " These look like [B, H, W, 3]: permute(0, 3, 1, 2)." if width == 3 else ""
        raise InputError(f"images_u8: got {channels} channels; expected 3 (RGB), as [B, 3, H, W].{hint}")
    check(
        min(batch, height, width) >= 1, "images_u8", list(images_u8.shape), "at least one image of at least one pixel"
    )
    check(
        batch == params.batch_size, "images_u8", counted(batch, "image"), f"{params.batch_size}, as params has indices"
    )
    size = (height, width)
    check(size == params.image_size, "images_u8", f"height and width {size}", f"{params.image_size}, as params has")
