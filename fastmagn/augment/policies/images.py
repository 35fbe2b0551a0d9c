"""A policy of images, without clean views, in the dtype and the memory format in which they come."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastmagn.augment.engines import CUDA_POLICY_BACKENDS
from fastmagn.augment.engines.host_forms import form_of
from fastmagn.augment.engines.pil_operations import apply_operation
from fastmagn.augment.image_memory import empty_like, in_order, is_planar
from fastmagn.augment.params import ViewParams
from fastmagn.augment.pixel_range import HIGHEST, LOWEST
from fastmagn.augment.policies.recipe import draw_rows
from fastmagn.augment.policies.table import Policy, list_rows, make_table
from fastmagn.augment.views import choose_engine
from fastmagn.errors import check
from fastmagn.registry import resolve
from fastmagn_kernels import threads
from fastmagn_kernels.augmix_cpu.views import own_scratch
from fastmagn_kernels.policy_cpu.images import Images, change_images
from fastmagn_kernels.random import policies

BACKENDS = ("auto", "numba", "pil")


def apply_policy(images_u8: Tensor, params: ViewParams, policy: Policy, backend: str) -> Tensor:
    """`fill_policy` into new memory: uint8 [B, 3, H, W], contiguous or channels last as the images are."""
    out = empty_like(images_u8, torch.uint8)
    fill_policy(images_u8, params, policy, backend, out)
    return out


def fill_policy(images_u8: Tensor, params: ViewParams, policy: Policy, backend: str, out: Tensor) -> None:
    """Apply a policy to images uint8 [B, 3, H, W], B >= 1, with the draws of `params`.

    Args:
        images_u8: Those that are in the order of `out` in memory need no copy. The compiled engine works on CUDA where
            the images are on CUDA and numba-cuda can be used, else on the host.
        params: For this batch and image size.
        policy: The policy.
        backend: numba or auto (the compiled engine), or pil (torchvision on Pillow's images).
        out: What becomes of them, uint8 [B, 3, H, W], on the images' device, contiguous or channels last.
    """
    check(backend in BACKENDS, "backend", backend, ", ".join(BACKENDS))
    on_cuda = backend != "pil" and choose_engine("auto", images_u8.device, with_recipe=True).device == "cuda"
    on_host = out.device.type == "cpu"
    here = out if on_cuda or on_host else torch.empty_like(out, device="cpu")
    images = in_order(images_u8.to(here.device), is_planar(here))
    compiled = resolve(CUDA_POLICY_BACKENDS, "numba", "backend") if on_cuda else change_on_host
    apply = _apply_with_pillow if backend == "pil" else compiled
    apply(images, params, policy, here)
    if here is not out:
        out.copy_(here)


def change_on_host(images: Tensor, params: ViewParams, policy: Policy, out: Tensor) -> bool:
    """Fill `out` by the compiled engine on the host.

    Args:
        images: uint8, or float32 in [0, 1], which are rounded to 256 levels; [B, C, H, W], C 1 or 3, contiguous or
            channels last.
        params: For this batch and image size.
        policy: The policy.
        out: Of the images' shape and dtype, contiguous or channels last; floats are levels / 255.

    Returns:
        False if a float is out of range; not all images are then made.
    """
    height, width = params.image_size
    settings = params.settings
    work = Images(
        source=form_of(images),
        target=form_of(out),
        low=LOWEST,
        high=HIGHEST,
        height=height,
        width=width,
        indices=params.indices,
        epoch=settings.epoch,
        key_0=settings.key_0,
        key_1=settings.key_1,
        next_image=np.zeros(1, np.int64),
        refused=np.zeros(1, np.int64),
    )
    table = make_table(policy, height, width)
    threads.run_on_threads(
        lambda: change_images(work, table, own_scratch(height, width)), min(threads.num_threads(), len(images))
    )
    return not work.refused[0]


def _apply_with_pillow(images: Tensor, params: ViewParams, policy: Policy, out: Tensor) -> None:
    choices = list_rows(policy.definition, *params.image_size).choices
    settings = params.settings
    key = (settings.epoch, settings.key_0, settings.key_1)
    drawn = draw_rows(make_table(policy, *params.image_size), params.indices, key, params.image_size)
    pixels, made = (tensor.permute(0, 2, 3, 1).numpy() for tensor in (images, out))
    for i, rows in enumerate(drawn):
        image = Image.fromarray(np.ascontiguousarray(pixels[i]))
        for row in rows:
            if row != policies.NO_ROW:
                image = apply_operation(image, *choices[row][:2], bilinear=policy.bilinear, fill=policy.fill)
        made[i] = np.asarray(image)
