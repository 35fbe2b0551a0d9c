"""Out-of-distribution detection: how well a score of the logits tells images of other classes from the test images.

Shape letters: M test images, N other images, K classes.
"""

import numpy as np
import torch
from torch import Tensor

from fastmagn.evaluation.metrics.predictions import row_parts
from fastmagn.runs.reading import SCORES

_TPR = 0.95
_NORMALISED = 1e-4  # energies below this in size are those of log-probabilities in float32


def familiarity_scores(logits: Tensor) -> dict[str, np.ndarray]:
    """Three scores of each image, float64 [M]; higher is more like the training images.

    `max_softmax`: the largest class probability (D. Hendrycks and K. Gimpel, ICLR 2017). `energy`: log sum_k exp(z_k),
    the negative energy at temperature 1 (W. Liu et al., NeurIPS 2020). `max_logit`: the largest logit (D. Hendrycks et
    al., ICML 2022).

    Args:
        logits: z, [M, K], any float dtype and device.
    """
    logits = logits.detach()
    energy = torch.cat([torch.logsumexp(part.double(), dim=1) for part in row_parts(logits)])
    max_logit = logits.amax(dim=1).double()
    scores = {"max_softmax": (max_logit - energy).exp().clamp(max=1), "energy": energy, "max_logit": max_logit}
    return {name: score.cpu().numpy() for name, score in scores.items()}


def detect(of_tests: dict[str, np.ndarray], of_others: dict[str, np.ndarray]) -> dict[str, dict[str, float] | None]:
    """`detection_measures` of each score.

    A score with values that are not finite gives None. So does the energy of log-probabilities, which an ensemble's
    mean probabilities have as logits: it is 0 for every image.

    Args:
        of_tests: The scores of the test images, as `familiarity_scores` has them.
        of_others: Those of the other images.
    """
    measured: dict[str, dict[str, float] | None] = {}
    for name in SCORES:
        both = np.concatenate([of_tests[name], of_others[name]])
        is_constant = name == "energy" and np.abs(both).max() < _NORMALISED
        usable = np.isfinite(both).all() and not is_constant
        measured[name] = detection_measures(of_tests[name], of_others[name]) if usable else None
    return measured


def detection_measures(of_tests: np.ndarray, of_others: np.ndarray) -> dict[str, float]:
    """How well a score separates the test images, which should have the higher one, from other images.

    Args:
        of_tests: The score of each test image, finite, [M], M at least 1.
        of_others: That of each other image, finite, [N], N at least 1.

    Returns:
        Fractions in 0..1. `auroc`: the probability that a test image has the higher score; equal ones count half.
        `aupr_in` and `aupr_out`: the average precision with the test images, or the other images, as the positive
        class. `fpr_at_95_tpr`: the share of other images that pass where 95 % of the test images do (at least; equal
        scores pass together), as in ODIN's and the energy paper. `fpr_at_95_tpr_out`: the share of test images that are
        rejected where 95 % of the other images are, as in OpenOOD 1.5 and TorchUncertainty.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score  # here, as few evaluations measure detection

    is_test = np.repeat([True, False], [len(of_tests), len(of_others)])
    scores = np.concatenate([of_tests, of_others])
    return {
        "auroc": float(roc_auc_score(is_test, scores)),
        "aupr_in": float(average_precision_score(is_test, scores)),
        "aupr_out": float(average_precision_score(~is_test, -scores)),
        "fpr_at_95_tpr": _fpr_at_95_tpr(is_test, scores),
        "fpr_at_95_tpr_out": _fpr_at_95_tpr(~is_test, -scores),
    }


def _fpr_at_95_tpr(is_positive: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(is_positive, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= _TPR)])
