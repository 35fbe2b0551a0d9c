"""The misclassification-aware Gaussian consistency (the lambda_1 term of equation 6), and the whole loss."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmagn.errors import InputError, check
from fastmagn.losses.accepted import check_labels, check_logits, check_views
from fastmagn.losses.divergences import divergences_from_mixture, kl_divergence, log_softmax

IGNORE_INDEX = -100  # as in F.cross_entropy


def magn_consistency(
    clean_logits: Tensor,
    noisy_logits: Sequence[Tensor],
    labels: Tensor,
    *,
    detach_weight: bool = False,
    detach_target: bool = False,
) -> Tensor:
    """E[ p(x)_y * D_KL(p(x) || p(x + delta)) ] over the batch and the noise draws, without lambda_1.

    The confidence p(x)_y in the true class weights each example: correct, confident predictions are smoothed, and
    misclassified examples are left to the classification loss. By default gradients flow through all three factors.

    Args:
        clean_logits: Logits [B, K] of the clean view x.
        noisy_logits: N >= 1 tensors [B, K], or one [N, B, K]: the logits of x + delta for N draws of (sigma, delta).
        labels: Integers [B] in 0..K-1, or -100 for rows to leave out; or probabilities q, floats [B, K], for which the
            confidence is the expected one, sum_k q_k p(x)_k.
        detach_weight: Treat p(x)_y as a constant.
        detach_target: Treat p(x) inside the divergence as a constant.

    Returns:
        Scalar, in nats.

    Raises:
        InputError: An argument has another type, shape, dtype or device; on the CPU also, a label is beyond K.
    """
    check_logits("clean_logits", clean_logits)
    check_views("noisy_logits", noisy_logits, clean_logits)
    check(len(noisy_logits) > 0, "noisy_logits", "no view", "1 or more")
    check_labels(labels, clean_logits)
    log_probs = log_softmax(clean_logits)
    _, labels, kept = _classification(log_probs.detach(), labels)
    return _mean(_weighted_divergences(log_probs, noisy_logits, labels, detach_weight, detach_target), kept)


def _weighted_divergences(
    log_probs: Tensor,
    noisy_logits: Sequence[Tensor] | Tensor,
    labels: Tensor,
    detach_weight: bool,
    detach_target: bool,
) -> Tensor:
    """The rows [B] whose mean is `magn_consistency`; `log_probs` [B, K] are the clean view's."""
    if labels.is_floating_point():
        confidence = (labels * log_probs.exp()).sum(dim=1)
    else:
        confidence = log_probs.gather(1, labels[:, None].long()).squeeze(1).exp()
    if detach_weight:
        confidence = confidence.detach()
    target = log_probs.detach() if detach_target else log_probs
    divergences = [kl_divergence(target, log_softmax(noisy)) for noisy in noisy_logits]
    return confidence * torch.stack(divergences).mean(dim=0)


class MAGNLoss(nn.Module):
    """Equation (6) for any training loop: CE + lambda_1 p(x)_y KL(x || x + delta) + lambda_2 JS(x; AugMix views).

    Examples:
        >>> import torch
        >>> from fastmagn import MAGNLoss
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
        >>> sigma = 0.2 * torch.rand(4, 1, 1, 1)  # one per image, uniform in [0, sigma_max]
        >>> loss = MAGNLoss()(model(images), labels, noisy=[model(images + sigma * torch.randn_like(images))])
        >>> loss.shape, loss.requires_grad
        (torch.Size([]), True)

    Labels may be class indices or probabilities, as in `F.cross_entropy`. For probabilities q, such as those of mixup
    or label smoothing, the confidence p(x)_y is the expected one, sum_k q_k p(x)_k. Rows of label -100 are left out of
    every term: the means are over the other rows, and NaN if there are none. A class whose logits are -inf in every
    view adds nothing. No value is read on the host, so CUDA is not waited for, and `torch.compile` takes it whole.

    Args:
        consistency_weight: lambda_1, 0 or more.
        jsd_weight: lambda_2, 0 or more.
        detach_weight: Stop the gradient through the confidence p(x)_y.
        detach_target: Stop the gradient through p(x) as the consistency's target.

    Raises:
        InputError: A weight is not a finite number, 0 or more.
    """

    def __init__(
        self,
        consistency_weight: float = 3.0,
        jsd_weight: float = 12.0,
        *,
        detach_weight: bool = False,
        detach_target: bool = False,
    ) -> None:
        super().__init__()
        for field, weight in (("consistency_weight", consistency_weight), ("jsd_weight", jsd_weight)):
            is_number = isinstance(weight, Real) and not isinstance(weight, bool)
            check(is_number and 0 <= weight < math.inf, field, weight, "a finite number, 0 or more")
        self.consistency_weight = consistency_weight
        self.jsd_weight = jsd_weight
        self.detach_weight = detach_weight
        self.detach_target = detach_target

    def forward(
        self,
        clean: Tensor,
        labels: Tensor,
        *,
        noisy: Sequence[Tensor] | Tensor = (),
        augmix: Sequence[Tensor] | Tensor = (),
    ) -> Tensor:
        """The loss of a batch, a scalar in nats, from the logits [B, K] of its clean, noisy and AugMix views.

        A term without views is left out: without `augmix` the loss is MAGN's alone, without `noisy` it is AugMix's
        alone (equation 5).

        Args:
            clean: The logits of the clean views, [B, K], of any float dtype; computed in float32 (float64 stays
                float64).
            labels: Class indices, integers [B] in 0..K-1, or -100 for rows to leave out; or probabilities, floats
                [B, K].
            noisy: The logits of each draw of noise: tensors [B, K], or one stacked tensor [N, B, K].
            augmix: The logits of each AugMix view, likewise.

        Raises:
            InputError: An argument has another type, shape, dtype or device; on the CPU also, a label is beyond K.
        """
        check_logits("clean", clean)
        check_views("noisy", noisy, clean)
        check_views("augmix", augmix, clean)
        check_labels(labels, clean)
        log_probs = log_softmax(clean)
        loss, labels, kept = _classification(log_probs, labels)
        if len(noisy) > 0:
            rows = _weighted_divergences(log_probs, noisy, labels, self.detach_weight, self.detach_target)
            loss = loss + self.consistency_weight * _mean(rows, kept)
        if len(augmix) > 0:
            divergences = [_mean(rows, kept) for rows in divergences_from_mixture(clean, *augmix)]
            loss = loss + self.jsd_weight * torch.stack(divergences).mean()
        return loss


def _classification(log_probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The cross-entropy; labels that index or weigh `log_probs`; and the rows that count, bool [B], None for all."""
    if labels.is_floating_point():
        labels = labels.to(log_probs.dtype)
        rows = (labels * log_probs.masked_fill(labels == 0, 0)).sum(dim=1)
        return -rows.mean(), labels, None
    labels = labels.long()
    try:
        loss = F.nll_loss(log_probs, labels, ignore_index=IGNORE_INDEX)
    except IndexError as error:  # the CPU's; CUDA would have to be waited for
        expected = f"classes 0..{log_probs.shape[1] - 1}, as there are {log_probs.shape[1]} logits, or {IGNORE_INDEX}"
        raise InputError(f"labels: {str(error).rstrip('.')}; expected {expected}.") from None
    kept = labels != IGNORE_INDEX
    return loss, labels.where(kept, 0), kept


def _mean(rows: Tensor, kept: Tensor | None) -> Tensor:
    """The mean of the rows [B] that are kept."""
    return rows.mean() if kept is None else rows.masked_fill(~kept, 0).sum() / kept.sum()
