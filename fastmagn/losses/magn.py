"""The misclassification-aware Gaussian consistency (the lambda_1 term of equation 6), and the whole loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmagn.losses.divergences import jensen_shannon, kl_divergence, log_softmax


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
        noisy_logits: N >= 1 tensors [B, K]: the logits of x + delta for N draws of (sigma, delta).
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


class MAGNLoss(nn.Module):
    """Equation (6) for any training loop: CE + lambda_1 p(x)_y KL(x || x + delta) + lambda_2 JS(x; AugMix views).

    >>> import torch
    >>> from fastmagn import MAGNLoss
    >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    >>> sigma = 0.2 * torch.rand(4, 1, 1, 1)  # one per image, uniform in [0, sigma_max]
    >>> loss = MAGNLoss()(model(images), labels, noisy=[model(images + sigma * torch.randn_like(images))])
    >>> loss.shape, loss.requires_grad
    (torch.Size([]), True)

    Args:
        consistency_weight: lambda_1, 0 or more.
        jsd_weight: lambda_2, 0 or more.
        detach_weight: Stop the gradient through the confidence p(x)_y.
        detach_target: Stop the gradient through p(x) as the consistency's target.
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
        self.consistency_weight = consistency_weight
        self.jsd_weight = jsd_weight
        self.detach_weight = detach_weight
        self.detach_target = detach_target

    def forward(
        self, clean: Tensor, labels: Tensor, *, noisy: Sequence[Tensor] = (), augmix: Sequence[Tensor] = ()
    ) -> Tensor:
        """The loss of a batch, a scalar in nats, from the logits [B, K] of its clean, noisy and AugMix views.

        A term without views is left out: without `augmix` the loss is MAGN's alone, without `noisy` it is AugMix's
        alone (equation 5).

        Args:
            clean: The logits of the clean views.
            labels: int64 [B].
            noisy: The logits of each draw of noise.
            augmix: The logits of each AugMix view.
        """
        loss = F.cross_entropy(clean.float(), labels)
        if noisy:
            consistency = magn_consistency(
                clean, noisy, labels, detach_weight=self.detach_weight, detach_target=self.detach_target
            )
            loss = loss + self.consistency_weight * consistency
        if augmix:
            loss = loss + self.jsd_weight * jensen_shannon(clean, *augmix)
        return loss
