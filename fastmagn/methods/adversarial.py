"""Adversarial training: AT and TRADES, with projected gradient descent (PGD) in the l_inf ball.

Random stream: STREAM_ATTACK, view 0 holds the elements of each sample's starting point.

Shape letters: B batch, K classes, C H W image.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastmagn.config.schema import AttackConfig, LossConfig
from fastmagn.losses.divergences import kl_divergence, log_softmax
from fastmagn.machine.hardware import precision
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout, LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss
from fastmagn.models import evaluation_mode
from fastmagn_kernels.random.rng import STREAM_ATTACK

TRADES_START_STD = 1e-3  # at the clean image itself, the gradient of TRADES is 0


def pgd(
    logits_of: Callable[[Tensor], Tensor],
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    start: Tensor,
    attack: AttackConfig,
    in_float16: bool = False,
) -> Tensor:
    """Find images near `images` that maximise an objective: `attack.steps` projected steps along the gradient's sign.

    x <- clip(x + alpha sign(grad), max(0, images - epsilon), min(1, images + epsilon)),
    alpha = step_scale epsilon / steps

    Source: A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018; the paper's
    section 2. The `.grad` of the parameters is not touched.

    Args:
        logits_of: float32 images [B, C, H, W] -> logits [B, K].
        objective: Logits, float32 [B, K] -> scalar to maximise, a sum over the examples.
        images: float32 [B, C, H, W] in [0, 1].
        start: The starting point, shaped like `images`; it is projected first.
        attack: epsilon, steps, step_scale.
        in_float16: Whether parts of `logits_of` compute in float16, so that small gradients have to be scaled.

    Returns:
        float32 [B, C, H, W] in [0, 1], within epsilon of `images`, detached.
    """
    lowest = (images - attack.epsilon).clamp_(min=0)
    highest = (images + attack.epsilon).clamp_(max=1)
    step_size = attack.step_scale * attack.epsilon / attack.steps
    adversarial = start.clamp(lowest, highest)
    for _ in range(attack.steps):
        adversarial.requires_grad_()
        gradient = (_scaled_gradient if in_float16 else _gradient)(logits_of(adversarial), objective, adversarial)
        adversarial = (adversarial.detach() + step_size * gradient.sign()).clamp_(lowest, highest)
    return adversarial


def _gradient(logits: Tensor, objective: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.autograd.grad(objective(logits.float()), images)[0]


def _scaled_gradient(logits: Tensor, objective: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The gradient of each image times a positive number of its own, which leaves its sign as it is.

    Unscaled, that of a confident prediction would be 0: float16 has nothing below 6e-8.
    """
    full = logits.detach().float().requires_grad_()
    (rows,) = torch.autograd.grad(objective(full), full)
    largest = rows.abs().amax(dim=1, keepdim=True)
    rows = torch.where(largest > 0, rows / largest, 0).to(logits.dtype)
    return torch.autograd.grad(logits, images, rows)[0]


def attack_labels(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """AT: replace the clean view with the images that maximise the cross-entropy.

    Madry et al. start at a uniformly random point of the ball. With `attack.random_start` off, the attack starts at the
    image.

    Args:
        images: Clean view, float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        Adversarial view [B, C, H, W], and the labels.
    """
    attack = context.config.attack
    start = images
    if attack.random_start:
        start = images + attack.epsilon * (2 * context.uniforms_like(images, STREAM_ATTACK) - 1)
    with evaluation_mode(context.model):
        adversarial = pgd(
            lambda x: _logits(context, x),
            lambda logits: F.cross_entropy(logits, labels, reduction="sum"),
            images,
            start,
            attack,
            in_float16=context.config.train.amp == "fp16",
        )
    return adversarial, labels


def attack_predictions(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """TRADES: the clean view, then the images that maximise KL(p(clean) || p(x)). The start adds normals of std 1e-3.

    Source: H. Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019.

    Args:
        images: Clean view, float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.

    Returns:
        Clean and adversarial views [2B, C, H, W], and the labels.
    """
    start = images + TRADES_START_STD * context.normals_like(images, STREAM_ATTACK)
    with evaluation_mode(context.model):
        with torch.no_grad():
            clean = log_softmax(_logits(context, images))
        adversarial = pgd(
            lambda x: _logits(context, x),
            lambda logits: kl_divergence(clean, log_softmax(logits)).sum(),
            images,
            start,
            context.config.attack,
            in_float16=context.config.train.amp == "fp16",
        )
    return torch.cat([images, adversarial]), labels


def _logits(context: StepContext, images: Tensor) -> Tensor:
    with precision(images.device, context.config.train.amp):
        return context.model(images)


def adversarial_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (2): cross-entropy of the adversarial view."""
    return standard_loss(logits._replace(clean=logits.adversarial[0]), labels, weights)


def trades_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (3): cross-entropy of the clean view + lambda KL(clean || adversarial)."""
    loss, parts = standard_loss(logits, labels, weights)
    divergence = kl_divergence(log_softmax(logits.clean), log_softmax(logits.adversarial[0])).mean()
    return loss + weights.trades_weight * divergence, parts | {"adversarial_divergence": divergence}


_READ = frozenset({"attack.epsilon", "attack.steps", "attack.step_scale"})
AT = Method(
    title="AT",
    loss=adversarial_loss,
    prepare=attack_labels,
    forwarded=Layout(clean=0, adversarial=1),
    reads=_READ | {"attack.random_start"},
)
TRADES = Method(
    title="TRADES",
    loss=trades_loss,
    prepare=attack_predictions,
    forwarded=Layout(adversarial=1),
    reads=_READ | {"loss.trades_weight"},
)
