"""Methods, by name: the views a method needs, how it changes them, its loss. The paper's rows and their rivals.

Shape letters: V views, B batch, K classes, C H W image. Targets are labels int64 [B], or probabilities float32 [B, K].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastmagn.attacks import attack_labels, attack_predictions
from fastmagn.augment.params import ViewSpec
from fastmagn.config import AugmentConfig, Config, LossConfig
from fastmagn.context import StepContext
from fastmagn.ensemble import MirrorEnsemble, add_noise, noise_ensemble
from fastmagn.losses import jensen_shannon, kl_divergence, magn_consistency
from fastmagn.losses.divergences import log_softmax
from fastmagn.mixing import cutmix, cutout, mixup
from fastmagn.policies import autoaugment, trivialaugment
from fastmagn.registry import resolve

METHODS = {
    "standard": "fastmagn.methods:STANDARD",
    "at": "fastmagn.methods:AT",
    "trades": "fastmagn.methods:TRADES",
    "rse": "fastmagn.methods:RSE",
    "augmix": "fastmagn.methods:AUGMIX",
    "magn": "fastmagn.methods:MAGN",
    "magn_augmix": "fastmagn.methods:MAGN_AUGMIX",
    "cutout": "fastmagn.methods:CUTOUT",
    "mixup": "fastmagn.methods:MIXUP",
    "cutmix": "fastmagn.methods:CUTMIX",
    "autoaugment": "fastmagn.methods:AUTOAUGMENT",
    "trivialaugment": "fastmagn.methods:TRIVIALAUGMENT",
    "dign": "fastmagn.methods:DIGN",
}


class Layout(NamedTuple):
    """How many views of each kind a forward pass takes, in this order; `clean` is 0 or 1."""

    clean: int = 1
    augmix: int = 0
    noisy: int = 0
    adversarial: int = 0

    @property
    def num_views(self) -> int:
        """V."""
        return sum(self)


class LogitViews(NamedTuple):
    """The logits of a fused forward pass by the view they belong to, each [B, K], float32; `clean` may be None."""

    clean: Tensor | None
    augmix: tuple[Tensor, ...] = ()
    noisy: tuple[Tensor, ...] = ()
    adversarial: tuple[Tensor, ...] = ()


LossParts = dict[str, Tensor]
Loss = Callable[[LogitViews, Tensor, LossConfig], tuple[Tensor, LossParts]]
Prepare = Callable[[Tensor, Tensor, StepContext], tuple[Tensor, Tensor]]
TestTime = Callable[[nn.Module, Config, tuple[int, int]], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the paper, or a rival.

    Args:
        loss: (logits, targets, weights) -> (scalar to minimise, its parts before weighting, for the log).
        num_augmix_views: AugMix views of each image.
        uses_noise: Whether there are MAGN's noisy views, `augment.num_noise_samples` of them.
        prepare: (views float32 [V*B, C, H, W] as `view_spec` has them, labels int64 [B], context) -> (views as `layout`
            has them, targets); None forwards the views as they are made.
        forwarded: The views that `prepare` returns where they are not the kinds that were made.
        test_time: (model, config, image size) -> the model that is measured; None measures the model itself.
    """

    loss: Loss
    num_augmix_views: int = 0
    uses_noise: bool = False
    prepare: Prepare | None = None
    forwarded: Layout | None = None
    test_time: TestTime | None = None

    def view_spec(self, augment: AugmentConfig) -> ViewSpec:
        """The views that are made of a batch for this method."""
        num_noise_views = augment.num_noise_samples if self.uses_noise else 0
        return ViewSpec(num_augmix_views=self.num_augmix_views, num_noise_views=num_noise_views)

    def layout(self, augment: AugmentConfig) -> Layout:
        """The views that are forwarded."""
        if self.forwarded is not None:
            return self.forwarded
        made = self.view_spec(augment)
        return Layout(augmix=made.num_augmix_views, noisy=made.num_noise_views)


def get_method(name: str) -> Method:
    """The method registered as `name`; an InputError that names `method` otherwise."""
    return resolve(METHODS, name, "method")


def split_logits(logits: Tensor, layout: Layout) -> LogitViews:
    """Fused logits [V*B, K], in `layout`'s order, apart."""
    views = iter(logits.float().chunk(layout.num_views))
    clean = next(views) if layout.clean else None
    kinds = (layout.augmix, layout.noisy, layout.adversarial)
    return LogitViews(clean, *(tuple(next(views) for _ in range(count)) for count in kinds))


def model_for_test(model: nn.Module, config: Config, image_size: tuple[int, int]) -> nn.Module:
    """What is measured of a run's trained model: itself, its method's ensemble, or that of an image's mirror image.

    Args:
        model: Images [B, 3, H, W] in [0, 1] -> logits [B, K].
        config: The run's.
        image_size: (H, W), px.
    """
    test_time = get_method(config.method).test_time
    model = model if test_time is None else test_time(model, config, image_size)
    return MirrorEnsemble(model) if config.eval.test_time_flip else model


def standard_loss(logits: LogitViews, targets: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (1): cross-entropy of the clean view, however it was augmented or mixed."""
    cross_entropy = F.cross_entropy(logits.clean, targets, label_smoothing=weights.label_smoothing)
    return cross_entropy, {"cross_entropy": cross_entropy}


def adversarial_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (2): cross-entropy of the adversarial view."""
    cross_entropy = F.cross_entropy(logits.adversarial[0], labels)
    return cross_entropy, {"cross_entropy": cross_entropy}


def trades_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (3): cross-entropy of the clean view + lambda KL(clean || adversarial)."""
    loss, parts = standard_loss(logits, labels, weights)
    divergence = kl_divergence(log_softmax(logits.clean), log_softmax(logits.adversarial[0])).mean()
    return loss + weights.trades_weight * divergence, parts | {"adversarial_divergence": divergence}


def noise_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (4): cross-entropy of the noisy view."""
    cross_entropy = F.cross_entropy(logits.noisy[0], labels)
    return cross_entropy, {"cross_entropy": cross_entropy}


def augmix_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (5): cross-entropy + lambda_2 JS(clean; AugMix; AugMix)."""
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *logits.augmix)
    return loss + weights.jsd_weight * divergence, parts | {"jensen_shannon": divergence}


def magn_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (6) with lambda_2 = 0: cross-entropy + lambda_1 p_y KL(clean || noisy), averaged over noisy views."""
    loss, parts = standard_loss(logits, labels, weights)
    consistency = _consistency(logits, labels, weights)
    return loss + weights.consistency_weight * consistency, parts | {"consistency": consistency}


def magn_augmix_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (6): cross-entropy + lambda_1 p_y KL(clean || noisy) + lambda_2 JS(clean; AugMix; AugMix)."""
    loss, parts = augmix_loss(logits, labels, weights)
    consistency = _consistency(logits, labels, weights)
    return loss + weights.consistency_weight * consistency, parts | {"consistency": consistency}


def dign_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Cross-entropy + lambda_1 JS(clean; noisy; noisy), without MAGN's weight by confidence.

    Source: T. Tsiligkaridis and A. Tsiligkaridis, "Diverse Gaussian noise consistency regularization for robustness and
    uncertainty calibration", IJCNN 2023. Their code (github.com/TheoT1/DiGN) has the divergence in this form, of two
    draws, and as an averaged KL. For CIFAR its script takes the KL of three draws, sigma up to 0.2, with weight 0.2; it
    gives no weight for this form, so lambda_1 stays at 3, the code's default.
    """
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *logits.noisy)
    return loss + weights.consistency_weight * divergence, parts | {"jensen_shannon": divergence}


def _consistency(logits: LogitViews, labels: Tensor, weights: LossConfig) -> Tensor:
    return magn_consistency(
        logits.clean,
        logits.noisy,
        labels,
        detach_weight=weights.detach_weight,
        detach_target=weights.detach_target,
    )


STANDARD = Method(loss=standard_loss)
AT = Method(loss=adversarial_loss, prepare=attack_labels, forwarded=Layout(clean=0, adversarial=1))
TRADES = Method(loss=trades_loss, prepare=attack_predictions, forwarded=Layout(adversarial=1))
RSE = Method(loss=noise_loss, prepare=add_noise, forwarded=Layout(clean=0, noisy=1), test_time=noise_ensemble)
AUGMIX = Method(loss=augmix_loss, num_augmix_views=2)
MAGN = Method(loss=magn_loss, uses_noise=True)
MAGN_AUGMIX = Method(loss=magn_augmix_loss, num_augmix_views=2, uses_noise=True)
CUTOUT = Method(loss=standard_loss, prepare=cutout)
MIXUP = Method(loss=standard_loss, prepare=mixup)
CUTMIX = Method(loss=standard_loss, prepare=cutmix)
AUTOAUGMENT = Method(loss=standard_loss, prepare=autoaugment)
TRIVIALAUGMENT = Method(loss=standard_loss, prepare=trivialaugment)
DIGN = Method(loss=dign_loss, uses_noise=True)
