"""Divergences between the predictions for several views, computed from logits in float32."""

import torch
from torch import Tensor

from fastmagn.errors import InputError
from fastmagn.losses.accepted import check_logits, check_views

MIXTURE_FLOOR = 1e-7  # AugMix's clamp: log(M) stays finite if all views rule a class out


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities of logits [B, K], in float32 whatever autocast does; float64 stays float64, for tests."""
    return torch.log_softmax(logits, dim=1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)


def kl_divergence(log_probs_p: Tensor, log_probs_q: Tensor) -> Tensor:
    """D_KL(p || q) = sum_c p_c log(p_c / q_c) for each example, from log-probabilities.

    A class of p_c = 0 adds 0, also where q_c = 0, such as a class whose logits are masked by -inf.

    Args:
        log_probs_p: Log-probabilities [B, K] of p.
        log_probs_q: Log-probabilities [B, K] of q.

    Returns:
        [B], in nats; 0 or more, up to rounding; infinite if q rules out a class that p does not.
    """
    probs_p = log_probs_p.exp()
    return (probs_p * (log_probs_p - log_probs_q).masked_fill(probs_p == 0, 0)).sum(dim=1)


def jensen_shannon(*logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of V predictions, averaged over the batch (the paper's JS, below equation 5).

    JS = (1/V) sum_v D_KL(p_v || M), M = (1/V) sum_v p_v clamped from below at 1e-7; in [0, ln V].

    Examples:
        >>> import torch
        >>> from fastmagn import jensen_shannon
        >>> clean, augmented = torch.tensor([[9.0, -9.0]]), torch.tensor([[-9.0, 9.0]])
        >>> f"{jensen_shannon(clean, clean):.4f}, {jensen_shannon(clean, augmented):.4f}"  # up to ln 2
        '0.0000, 0.6931'

    Args:
        *logits: V >= 2 tensors [B, K] of any float dtype; computed in float32 (float64 stays float64).

    Returns:
        Scalar, in nats.

    Raises:
        InputError: There are fewer than two views, or they are not logits of one shape and device.
    """
    if len(logits) < 2:
        raise InputError(f"logits: got {len(logits)} view; expected 2 or more, each [B, K]. Unpack a stack: *logits.")
    check_logits("logits[0]", logits[0])
    check_views("logits", logits, logits[0])
    return torch.stack([rows.mean() for rows in divergences_from_mixture(*logits)]).mean()


def divergences_from_mixture(*logits: Tensor) -> list[Tensor]:
    """D_KL(p_v || M) of each of V views, [B] each, whose mean over views and batch is `jensen_shannon`."""
    log_probs = [log_softmax(view) for view in logits]
    mixture = torch.stack([view.exp() for view in log_probs]).mean(dim=0)
    log_mixture = mixture.clamp(min=MIXTURE_FLOOR).log()
    return [kl_divergence(view, log_mixture) for view in log_probs]
