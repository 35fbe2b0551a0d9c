"""A policy of images uint8 -> uint8, without clean views, in the memory format in which they come."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastmagn.augment.engines import CUDA_POLICY_BACKENDS
from fastmagn.augment.engines.pil_operations import apply_operation
from fastmagn.augment.params import ViewParams
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
    """Apply a policy to images uint8 [B, 3, H, W], B >= 1, with the draws of `params`.

    Args:
        images_u8: Contiguous and channels last need no copy. The compiled engine works on CUDA where the images are on
            CUDA and numba-cuda can be used, else on the host.
        params: For this batch and image size.
        policy: The policy.
        backend: numba or auto (the compiled engine), or pil (torchvision on Pillow's images).

    Returns:
        uint8 [B, 3, H, W], on the images' device, contiguous or channels last as they are.
    """
    check(backend in BACKENDS, "backend", backend, ", ".join(BACKENDS))
    on_cuda = backend != "pil" and choose_engine("auto", images_u8.device, with_recipe=True).device == "cuda"
    images = images_u8 if on_cuda else images_u8.to("cpu")
    planar = images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last)
    images = images.contiguous() if planar else images.permute(0, 2, 3, 1)
    compiled = resolve(CUDA_POLICY_BACKENDS, "numba", "backend") if on_cuda else _apply_compiled
    apply = _apply_with_pillow if backend == "pil" else compiled
    out = apply(images, params, policy, planar)
    return (out if planar else out.permute(0, 3, 1, 2)).to(images_u8.device)


def _apply_compiled(images: Tensor, params: ViewParams, policy: Policy, planar: bool) -> Tensor:
    height, width = params.image_size
    out, batch = torch.empty_like(images), len(images)
    settings = params.settings
    work = Images(
        images=images.numpy().reshape(batch, -1),
        out=out.numpy().reshape(batch, -1),
        planar=planar,
        height=height,
        width=width,
        indices=params.indices,
        epoch=settings.epoch,
        key_0=settings.key_0,
        key_1=settings.key_1,
        next_image=np.zeros(1, np.int64),
    )
    table = make_table(policy, height, width)
    threads.run_on_threads(
        lambda: change_images(work, table, own_scratch(height, width)), min(threads.num_threads(), batch)
    )
    return out


def _apply_with_pillow(images: Tensor, params: ViewParams, policy: Policy, planar: bool) -> Tensor:
    choices = list_rows(policy.definition, *params.image_size).choices
    settings = params.settings
    key = (settings.epoch, settings.key_0, settings.key_1)
    drawn = draw_rows(make_table(policy, *params.image_size), params.indices, key, params.image_size)
    pixels = (images.permute(0, 2, 3, 1) if planar else images).numpy()
    out = np.empty_like(pixels, order="C")
    for i, rows in enumerate(drawn):
        image = Image.fromarray(np.ascontiguousarray(pixels[i]))
        for row in rows:
            if row != policies.NO_ROW:
                image = apply_operation(image, *choices[row][:2], bilinear=policy.bilinear, fill=policy.fill)
        out[i] = np.asarray(image)
    made = torch.from_numpy(out)
    return made.permute(0, 3, 1, 2).contiguous() if planar else made
