"""NoisyMix: AugMix whose three views are mixed with a partner's and disturbed, at the input or at a layer.

Random stream:

    STREAM_NOISYMIX
        slot 0        words: the share, the layer, the sort key that decides the partner (two)
        slot 1 + v    words of view v: strength of the additive and of the multiplicative noise, the noises' seed (two)

Share, layer and noises of a sample depend on (seed, epoch, sample index) only. Its partner is an image of the same
forward pass that has drawn the same layer, so NoisyMix depends on train.batch_size, train.accumulation_steps and the
number of processes.

Source: N. B. Erichson et al., "NoisyMix: Boosting model robustness to common corruptions", AISTATS 2024. Shape letters:
V views, B batch, E values of an image or its feature maps, C H W of them.
"""

import dataclasses

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from fastmagn.config.noisymix_schema import NoisyMixConfig
from fastmagn.methods.augmix import augmix_loss
from fastmagn.methods.context import StepContext, on_device
from fastmagn.methods.method import Method
from fastmagn.methods.mixing import draw_lambda, mix_labels
from fastmagn_kernels.random.rng import STREAM_NOISYMIX

NUM_VIEWS = 3
NUM_LAYERS = 4  # the input, and the ends of the first three stages
_VALUES_AT_ONCE = 2**16
_STRENGTH_SHAPE = (2, 5)  # of the Beta distribution of the noises' strengths
_TWO_TO_MINUS_32 = 2.0**-32
# SplitMix64 (G. L. Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014), as int64.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def draw_plan(context: StepContext) -> tuple[np.ndarray, np.ndarray]:
    """What is done to each view of each image; a row holds V*B values, view by view.

    Returns:
        Layer in 0..3, position of the partner, seed of the noises: int64 [3, V*B]. Share, strengths of the additive and
        the multiplicative noise, share of values without noise: float32 [4, V*B].
    """
    settings: NoisyMixConfig = context.config.noisymix
    words = np.stack([context.words(slot, STREAM_NOISYMIX) for slot in range(1 + NUM_VIEWS)])
    batch = words.shape[1]
    seeds = (words[1:, :, 2].astype(np.uint64) << np.uint64(32) | words[1:, :, 3]).view(np.int64)
    keys = words[0, :, 2].astype(np.uint64) << np.uint64(32) | words[0, :, 3]
    if settings.official:
        words = np.broadcast_to(words[:, :1], words.shape)
    layers = (words[0, :, 1].astype(np.uint64) * np.uint64(NUM_LAYERS) >> np.uint64(32)).astype(np.int64)
    partners = draw_partners(layers, keys) + batch * np.arange(NUM_VIEWS)[:, None]
    strengths = betaincinv(*_STRENGTH_SHAPE, (words[1:, :, :2] + 0.5) * _TWO_TO_MINUS_32)
    additive = settings.additive_noise * np.arange(1, NUM_VIEWS + 1)[:, None] * strengths[..., 0]
    real = np.empty((4, NUM_VIEWS, batch), np.float32)
    real[0], real[1] = draw_lambda(words[0], settings.alpha), additive
    real[2], real[3] = settings.multiplicative_noise * strengths[..., 1], settings.noise_sparsity
    whole = np.stack([np.broadcast_to(layers, partners.shape), partners, seeds])
    return whole.reshape(3, -1), real.reshape(4, -1)


def draw_partners(layers: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The partner of each image, a permutation int64 [B] that stays within each layer: the order of the keys."""
    partners = np.empty(len(layers), np.int64)
    for layer in np.unique(layers):
        (members,) = np.nonzero(layers == layer)
        partners[members] = members[np.argsort(keys[members], kind="stable")]
    return partners


def mix_and_disturb(maps: Tensor, layer: int, whole: Tensor, real: Tensor) -> Tensor:
    """Mix and disturb the maps of those images that have drawn this layer; the others stay as they are.

        x_i <- (1 + m_i (2 u - 1)) (lambda_i x_i + (1 - lambda_i) x_j) + a_i z,   u uniform, z normal

    for each value by itself; a share `noise_sparsity` of the values has u = 1/2, and as many have z = 0. Values are
    counted along C, then W, then H.

    Args:
        maps: The input or feature maps, float [V*B, C, H, W].
        layer: 0 for the input, else the stage that they are from.
        whole: From `draw_plan`, int64 [3, V*B], on the maps' device.
        real: From `draw_plan`, float32 [4, V*B], likewise.

    Returns:
        Shaped like `maps`, of the same dtype; computed in float32.
    """
    _, channels, height, width = maps.shape
    chosen = whole[0] == layer
    values = maps.permute(0, 2, 3, 1).flatten(1)  # no copy if they are channels last
    if maps.device.type == "cpu" and not torch.compiler.is_compiling():  # a graph's shapes are fixed
        (rows,) = chosen.nonzero(as_tuple=True)
        own, partners = values.index_select(0, torch.cat([rows, whole[1, rows]])).chunk(2)
        noises = _noises_in_parts(whole[2, rows], real[:, rows], values.shape[1])
        changed = values.index_copy(0, rows, _disturbed(own, partners, real[0, rows], *noises))
    else:
        noises = _noises(whole[2], real, values.shape[1])
        partners = values.index_select(0, whole[1])
        changed = torch.where(chosen[:, None], _disturbed(values, partners, real[0], *noises), values)
    return changed.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _disturbed(own: Tensor, partners: Tensor, share: Tensor, factors: Tensor, added: Tensor) -> Tensor:
    """The equation for values [N, E] and shares [N]."""
    mixed = torch.lerp(partners.float(), own.float(), share[:, None])
    return torch.addcmul(added, factors, mixed).to(own.dtype)


def _noises(seeds: Tensor, real: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The factors 1 + m (2 u - 1) and the summands a z of `count` values of each image, float32 [N, E]."""
    _, additive, multiplicative, sparsity = real[..., None]
    first, second = uniforms(seeds, count)
    factors = _spread(second, sparsity).mul_(2).sub_(1).mul_(multiplicative).add_(1)
    return factors, _spread(first, sparsity).mul_(2).sub_(1).erfinv_().mul_(2**0.5).mul_(additive)


def _noises_in_parts(seeds: Tensor, real: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`_noises`, a few images at a time, so that the steps between stay in a core's cache."""
    images = max(1, _VALUES_AT_ONCE // count)
    parts = zip(seeds.split(images), real.split(images, dim=1), strict=True)
    factors, added = zip(*(_noises(*part, count) for part in parts), strict=True)
    return torch.cat(factors), torch.cat(added)


def _spread(uniform: Tensor, sparsity: Tensor) -> Tensor:
    """Uniforms in (0, 1), of which a share `sparsity` is 1/2 instead; from other uniforms, of which each is used up."""
    rest = (uniform - sparsity).div_(1 - sparsity).clamp_(min=2.0**-24)
    return rest.masked_fill_(uniform < sparsity, 0.5)


def uniforms(seeds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Two uniforms in (0, 1) for each of `count` values of each image: two float32 [N, E].

    Value e has the e-th number of SplitMix64, whose state starts at golden times the seed, int64 [N]: the number's
    highest 23 bits, and the next 23. torch's int64 wraps as the generator's unsigned numbers do.
    """
    # Not golden * seeds + golden * arange: a compiler of loops takes it that their counter's products do not overflow.
    bits = (seeds[:, None] + torch.arange(1, count + 1, device=seeds.device)).mul_(_GOLDEN)
    bits = bits.bitwise_xor_(_shifted(bits, 30)).mul_(_FIRST)
    bits = bits.bitwise_xor_(_shifted(bits, 27)).mul_(_SECOND)
    bits = bits.bitwise_xor_(_shifted(bits, 31))
    first, second = (_shifted(bits, after).bitwise_and_(0x7FFFFF).float() for after in (41, 18))
    return first.add_(0.5).mul_(2.0**-23), second.add_(0.5).mul_(2.0**-23)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """The bits as an unsigned number, shifted right; torch's own shift fills in the sign."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)


def mix_input(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, ...]:
    """Draw the plan, and carry it out at the input, in the values 2 x - 1 of the authors' normalisation.

    Args:
        images: Clean and AugMix views, float32 [V*B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        The views; soft targets float32 [B, K]; the plan, for `mix_maps`.
    """
    plan = draw_plan(context)
    whole, real = (on_device(part, images.device) for part in plan)
    partners, share = whole[1, : len(labels)], real[0, : len(labels)]
    changed = (mix_and_disturb(2 * images - 1, 0, whole, real) + 1) / 2
    views = torch.where((whole[0] == 0)[:, None, None, None], changed, images)
    return views, mix_labels(labels, partners, share, context.num_classes), whole, real


def mix_maps(stage: int, maps: Tensor, whole: Tensor, real: Tensor) -> Tensor:
    """Carry out the plan of `mix_input` on the feature maps after a stage, counted from 1.

    Noisy views, which `noisymix+magn` has after the others, are changed as the clean view is.
    """
    if stage >= NUM_LAYERS:
        return maps
    batch = whole.shape[1] // NUM_VIEWS
    clean, strengths = whole[:, :batch], real[:, :batch]
    for first in range(whole.shape[1], len(maps), batch):
        noisy = torch.stack([clean[0], clean[1] + first, clean[2]])
        whole, real = torch.cat([whole, noisy], dim=1), torch.cat([real, strengths], dim=1)
    return mix_and_disturb(maps, stage, whole, real)


NOISYMIX = Method(
    title="NoisyMix",
    loss=augmix_loss,
    num_augmix_views=NUM_VIEWS - 1,
    prepare=mix_input,
    between_stages=mix_maps,
    reads=frozenset(f"noisymix.{field.name}" for field in dataclasses.fields(NoisyMixConfig)) | {"loss.jsd_weight"},
)
