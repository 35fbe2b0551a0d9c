"""PRIME: views of random filters, colour curves and smooth displacements, mixed as AugMix mixes its operations.

Source: A. Modas et al., "PRIME: A few primitives can boost robustness to common corruptions", ECCV 2022, and its code.
Random stream: STREAM_PRIME; `fastmagn_kernels.random.prime` says what is drawn.

Shape letters: J PRIME views, B batch, W chains, D primitives of a chain, C H W image.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.engines import host_memory
from fastmagn.augment.prime import displaced, filtered, recolored
from fastmagn.config.prime_schema import PrimeConfig
from fastmagn.config.schema import LossConfig
from fastmagn.losses import jensen_shannon
from fastmagn.methods.context import StepContext, on_device
from fastmagn.methods.method import Layout, LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss
from fastmagn_kernels.prime_cpu.views import prime_views_batch
from fastmagn_kernels.random import prime
from fastmagn_kernels.random.rng import key_words
from fastmagn_kernels.threads import over_chunks

NUM_VIEWS = 2
_MAX_VALUES = 2**25  # of the chains that a device works on at once, 256 MiB
_CHUNK_DRAWS = 32

Draw = Callable[..., None]


def add_prime_views(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Two PRIME views beside the clean one.

    Args:
        images: Clean view, float32 [B, 3, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        The clean view, then two PRIME views, float32 [3B, 3, H, W] in [0, 1]; and the labels.
    """
    return prime_views(images, NUM_VIEWS, context, with_clean=True), labels


def replace_by_prime_view(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """One PRIME view, float32 [B, 3, H, W] in [0, 1], in place of the clean view; and the labels."""
    return prime_views(images, 1, context, with_clean=False), labels


def prime_views(images: Tensor, num_views: int, context: StepContext, *, with_clean: bool) -> Tensor:
    """PRIME views of the clean view, (1 - m) x + m sum_w weight_w chain_w(x), after the clean view itself if wanted.

    On the host numba makes them, on other devices torch; they differ by less than 1e-5. A value outside [0, 1], which a
    noise patch may leave, is clipped first.

    Args:
        images: Clean view, float32 [B, 3, H, W]; channels last in memory needs no copy.
        num_views: J.
        context: The step, of B samples.
        with_clean: Whether the clean view comes first.

    Returns:
        float32 [J*B, 3, H, W] or [(1 + J)*B, 3, H, W], on the images' device, channels last in memory.
    """
    settings = draw_settings(context, *images.shape[2:])
    if images.device.type == "cpu":
        return _views_on_host(images, num_views, context.indices, settings, with_clean)
    views = views_in_torch(images, num_views, context.indices, settings)
    return torch.cat([images, views]) if with_clean else views


def draw_settings(context: StepContext, height: int, width: int) -> prime.Settings:
    """What the draws of a step depend on, for images of this size."""
    config = context.config
    key_0, key_1 = key_words(config.train.seed)
    return prime.Settings(
        epoch=context.epoch,
        key_0=key_0,
        key_1=key_1,
        height=height,
        width=width,
        mixture_width=config.augment.mixture_width,
        mixture_depth=config.augment.mixture_depth,
        color_frequencies=config.prime.color_frequencies,
        color_variance=config.prime.color_variance,
        displacement_cut=config.prime.displacement_cut,
        filter_std=config.prime.filter_std,
        official=config.prime.official,
    )


def _views_on_host(
    images: Tensor, num_views: int, indices: np.ndarray, settings: prime.Settings, with_clean: bool
) -> Tensor:
    batch, channels, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).contiguous()
    out = host_memory.empty(((with_clean + num_views) * batch, height, width, channels))
    if with_clean:
        out[:batch] = pixels
    made = out[-num_views * batch :].numpy().reshape(num_views, batch, -1, channels)
    prime_views_batch(made, pixels.numpy().reshape(batch, -1, channels), indices, settings)
    return out.permute(0, 3, 1, 2)


def views_in_torch(images: Tensor, num_views: int, indices: np.ndarray, settings: prime.Settings) -> Tensor:
    """PRIME views in torch operations, on the images' device; the draws are made on the host.

    Args:
        images: Clean view, float32 [B, 3, H, W].
        num_views: J.
        indices: The samples' indices, int64 [B].
        settings: What the draws depend on.

    Returns:
        float32 [J*B, 3, H, W], channels last in memory.
    """
    values = num_views * settings.mixture_width * images[0].numel()
    step = max(1, _MAX_VALUES // values)
    parts = [
        _mixed(images[start : start + step], num_views, indices[start : start + step], int(indices[0]), settings)
        for start in range(0, len(images), step)
    ]
    return torch.cat(parts, dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _mixed(images: Tensor, num_views: int, indices: np.ndarray, first: int, settings: prime.Settings) -> Tensor:
    """The views of a part of a batch, float32 [J, B, 3, H, W]."""
    shape = (num_views, len(images), settings.mixture_width)
    plan = prime.Plan(
        primitives=np.empty((*shape, settings.max_depth), np.int8),
        chain_weights=np.empty(shape, np.float32),
        mix_weight=np.empty(shape[:2], np.float32),
    )
    prime.fill_plan(plan, indices, settings)
    clean = images.double().clamp_(0, 1).contiguous()
    chains = clean[None, :, None].repeat(num_views, 1, shape[2], 1, 1, 1)
    flat = chains.view(-1, *clean.shape[1:])
    for rows, change, drawn in _primitives(plan, indices, first, settings):
        chosen = on_device(rows, images.device)
        flat[chosen] = change(flat[chosen], on_device(drawn, images.device))
    weights = on_device(plan.chain_weights, images.device).double()
    share = on_device(plan.mix_weight, images.device).double()[..., None, None, None]
    return ((1 - share) * clean + share * torch.einsum("jbw,jbwchk->jbchk", weights, chains)).float()


def _primitives(
    plan: prime.Plan, indices: np.ndarray, first: int, settings: prime.Settings
) -> Iterator[tuple[np.ndarray, Callable[[Tensor, Tensor], Tensor], np.ndarray]]:
    """The primitives in their order: which chains, int64 [N], the function, and what it is given, float64 [N, ...]."""
    kinds: tuple[tuple[Callable[[Tensor, Tensor], Tensor], Draw, tuple[int, ...]], ...] = (
        (displaced, prime.fill_displacements, (2, *settings.num_modes)),
        (recolored, prime.fill_colors, (3, settings.color_frequencies)),
        (filtered, prime.fill_filters, (prime.NUM_TAPS,)),
    )
    for step in range(settings.max_depth):
        for primitive, (change, fill, shape) in enumerate(kinds):
            chosen = plan.primitives[..., step] == primitive
            places = np.insert(np.argwhere(chosen), 3, step, axis=1)
            if len(places):
                drawn = np.empty((len(places), *shape))
                _fill_on_threads(fill, drawn, places, indices, first, settings)
                yield np.flatnonzero(chosen), change, drawn


def _fill_on_threads(
    fill: Draw, drawn: np.ndarray, places: np.ndarray, indices: np.ndarray, first: int, settings: prime.Settings
) -> None:
    def work(rows: slice) -> None:
        fill(drawn[rows], places[rows], indices, first, settings)

    over_chunks(work, len(places), _CHUNK_DRAWS)


def prime_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Cross-entropy of the clean view + lambda_2 JS(clean; PRIME; PRIME)."""
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *logits.augmented)
    return loss + weights.jsd_weight * divergence, parts | {"jensen_shannon": divergence}


_READ = frozenset(f"prime.{field.name}" for field in dataclasses.fields(PrimeConfig)) | {
    "augment.mixture_width",
    "augment.mixture_depth",
}
PRIME = Method(
    title="PRIME",
    loss=prime_loss,
    prepare=add_prime_views,
    forwarded=Layout(augmented=NUM_VIEWS),
    reads=_READ | {"loss.jsd_weight"},
)
PRIME_NO_JSD = Method(title="PRIME (no JSD)", loss=standard_loss, prepare=replace_by_prime_view, reads=_READ)
