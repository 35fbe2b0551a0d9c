"""The misclassification-aware Gaussian consistency, the lambda_1 term of equation (6)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastmagn.losses.divergences import kl_divergence, log_softmax


def magn_consistency(
    clean_logits: Tensor,
    noisy_logits: Sequence[Tensor],
    labels: Tensor,
    *,
    detach_weight: bool = False,
    detach_target: bool = False,
) -> Tensor:
    """E[ p(x)_y * D_KL(p(x) || p(x + delta)) ] over the batch and the noise draws, without lambda_1.

    The confidence p(x)_y in the true class weighs each example: correct, confident predictions are smoothed, while
    misclassified ones are left to the classification loss. By default gradients flow through all three factors.

    Args:
        clean_logits: Logits [B, K] of the clean view x.
        noisy_logits: N >= 1 tensors [B, K], the logits of x + delta for N draws of (sigma, delta).
        labels: int64 [B].
        detach_weight: Treat p(x)_y as a constant.
        detach_target: Treat p(x) inside the divergence as a constant.

    Returns:
        Scalar, in nats.
    """
    log_probs = log_softmax(clean_logits)
    confidence = log_probs.gather(1, labels[:, None]).squeeze(1).exp()
    if detach_weight:
        confidence = confidence.detach()
    target = log_probs.detach() if detach_target else log_probs
    divergences = [kl_divergence(target, log_softmax(noisy)) for noisy in noisy_logits]
    return (confidence * torch.stack(divergences).mean(dim=0)).mean()
