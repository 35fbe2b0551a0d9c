"""Divergences between the predictions for several views, computed from logits in float32."""

import torch
from torch import Tensor

MIXTURE_FLOOR = 1e-7  # AugMix's clamp: log(M) stays finite if all views rule a class out


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities of logits [B, K], in float32 whatever autocast does; float64 stays float64, for tests."""
    return torch.log_softmax(logits, dim=1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)


def kl_divergence(log_probs_p: Tensor, log_probs_q: Tensor) -> Tensor:
    """D_KL(p || q) = sum_c p_c log(p_c / q_c) for each example, from log-probabilities.

    Args:
        log_probs_p: Log-probabilities [B, K] of p.
        log_probs_q: Log-probabilities [B, K] of q.

    Returns:
        [B], in nats; 0 or more, up to rounding.
    """
    return (log_probs_p.exp() * (log_probs_p - log_probs_q)).sum(dim=1)


def jensen_shannon(*logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of V predictions, averaged over the batch (the paper's JS, below equation 5).

    JS = (1/V) sum_v D_KL(p_v || M), M = (1/V) sum_v p_v clamped from below at 1e-7; in [0, ln V].

    Args:
        *logits: V >= 2 tensors [B, K] of any float dtype; computed in float32 (float64 stays float64).

    Returns:
        Scalar, in nats.
    """
    log_probs = [log_softmax(view) for view in logits]
    mixture = torch.stack([view.exp() for view in log_probs]).mean(dim=0)
    log_mixture = mixture.clamp(min=MIXTURE_FLOOR).log()
    return torch.stack([kl_divergence(view, log_mixture).mean() for view in log_probs]).mean()
