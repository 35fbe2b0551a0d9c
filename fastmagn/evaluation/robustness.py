"""Measures the robustness of any classifier, with the measures of a run's results.json.

Shape letters: B batch, N images, H W image, K classes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.config.schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, MIN_SIDE_PX
from fastmagn.errors import check
from fastmagn.evaluation.measure import evaluate


class Preprocessed(nn.Module):
    """A model whose images pass through a function first."""

    def __init__(self, preprocess: Callable[[Tensor], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.preprocess(images))


def evaluate_robustness(
    model: nn.Module,
    images_u8: np.ndarray,
    labels: np.ndarray,
    *,
    corruption_set: str = "c15",
    corrupted_dir: str | Path | None = None,
    num_images: int = 0,
    num_bins: int = 15,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    preprocess: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Accuracy of a PyTorch classifier on clean and corrupted images, mCA, and calibration.

    The model is measured in evaluation mode, in float32, and left in the mode it was in. The images are corrupted on
    the fly, the same way each time, unless a made or published -C set is given.

    >>> import torch
    >>> from fastmagn import evaluate_robustness
    >>> images_u8, labels = torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8).numpy(), [0, 1, 2, 1]
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))
    >>> results = evaluate_robustness(model, images_u8, labels, preprocess=lambda images: (images - 0.5) / 0.25)
    >>> results["num_images"], sorted(results["mca"]), len(results["corruption_accuracy"]["fog"])
    (4, ['c15', 'c18', 'c19'], 5)

    Args:
        model: Takes float32 images [B, 3, H, W] in [0, 1], or what `preprocess` makes of them; returns logits [B, K].
        images_u8: Test images, uint8 [N, H, W, 3], RGB, H and W at least 8 px.
        labels: N integers in 0..K-1.
        corruption_set: c15 (the usual benchmark's), c18 (without gaussian_noise), c19 (all).
        corrupted_dir: Folder of a -C set of these images: <corruption>.npy and labels.npy.
        num_images: Measure only the first so many test images; 0 measures all.
        num_bins: Bins of the calibration errors, 1 or more.
        batch_size: Images per forward pass, 1 or more.
        device: Where to run; the model is moved there. By default it stays where its parameters are.
        preprocess: What the model needs before its forward pass, such as normalisation or another size.

    Returns:
        The measured part of results.json, fractions in 0..1: `num_images`, `clean_accuracy`, `mca` {c15, c18, c19; None
        for a set that was not measured whole}, `corruption_accuracy` {name: [5, by severity]}, `rms_calibration_error`,
        `calibration` and `reliability`.

    Raises:
        InputError: An argument is not as described here, or the -C set does not fit the images.
    """
    images_u8, labels = np.asarray(images_u8), np.asarray(labels)
    _check_images(images_u8, labels)
    check(corruption_set in CORRUPTION_SETS, "corruption_set", corruption_set, f"one of {', '.join(CORRUPTION_SETS)}")
    config = EvalConfig(
        corruption_set=corruption_set,
        corrupted_dir=None if corrupted_dir is None else Path(corrupted_dir),
        num_images=num_images,
        num_bins=num_bins,
        batch_size=batch_size,
    )
    if device is not None:
        model.to(device)
    here = next((parameter.device for parameter in model.parameters()), torch.device(device or "cpu"))
    measured = model if preprocess is None else Preprocessed(preprocess, model)
    return evaluate(measured, images_u8, labels.astype(np.int64), config, device=here)


def _check_images(images_u8: np.ndarray, labels: np.ndarray) -> None:
    shape = images_u8.shape
    is_images = images_u8.ndim == 4 and shape[3] == 3 and len(images_u8) > 0 and min(shape[1:3]) >= MIN_SIDE_PX
    check(is_images, "images_u8.shape", list(shape), "[N, H, W, 3], N at least 1, H and W at least 8")
    check(images_u8.dtype == np.uint8, "images_u8.dtype", str(images_u8.dtype), "uint8 (levels 0..255)")
    is_labels = labels.shape == shape[:1] and labels.dtype.kind in "iu"
    got = f"{labels.dtype} {list(labels.shape)}"
    check(is_labels, "labels", got, f"integers, one for each of {len(images_u8)} images")
    check(labels.min() >= 0, "labels", int(labels.min()), "classes, 0..K-1")
