"""The Fourier heat map: the error under a perturbation along each Fourier basis image.

Source: D. Yin et al., "A Fourier perspective on model robustness in computer vision", NeurIPS 2019, with the basis of
its authors' code. Shape letters: M images, n those of one process, S side of the map, H W image.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.data.image_set import Images
from fastmagn.data.subset import even_subset
from fastmagn.errors import check
from fastmagn.evaluation.measure import predict
from fastmagn.evaluation.metrics.predictions import check_labels
from fastmagn.machine.console import progress_bar, warn
from fastmagn.machine.hardware import precision
from fastmagn.machine.processes import World
from fastmagn.models import evaluation_mode, image_format
from fastmagn_kernels.random import rng

MAX_SIDE = 63  # of the map: as the authors do for ImageNet
_FIRST_VIEW = 1 << 17  # of rng.STREAM_CORRUPTION, above those of the corruptions and of the perturbation sequences


def evaluate_fourier(
    model: nn.Module,
    images_u8: Images,
    labels: np.ndarray,
    config: EvalConfig,
    *,
    device: torch.device,
    amp: str = "float32",
    world: World | None = None,
) -> dict[str, Any]:
    """The error of a model at each frequency: clip(x + r v U) with ||U||_2 = 1, v the norm, r = +-1.

    Each channel of each image draws its own sign r at each frequency. The perturbed images are clipped to [0, 1] and
    not rounded. A frequency and its negative have the same basis image, so 514 of the 32 x 32 are measured.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1].
        images_u8: Test images, uint8 [M, S, S, 3].
        labels: int64 [M].
        config: `fourier_images`, `fourier_norm`, `corruption_seed` and `batch_size`.
        device: Where the model is.
        amp: float32, bf16 or fp16, the precision of the forward pass.
        world: torchrun's processes; each measures a share of the images, and all return the same results.

    Returns:
        `error`, a list of S lists of S fractions in 0..1; row i is the vertical frequency `frequencies[i]`, column j
        the horizontal one `frequencies[j]`, both in cycles per image. Of sides above 63 px, S is 63 here. Frequency 0
        is in the middle, at S // 2. An error is None if a logit is NaN or infinite. Also `mean_error`, `clean_error`
        (of the same images), `num_images`, `norm`, `seed`.

    Raises:
        InputError: The images are not square; or a label is not one of the model's classes.
    """
    height, width = images_u8.shape[1:3]
    check(height == width, "images_u8", f"images of {height} x {width} px", "square ones, for the Fourier heat map")
    world = world or World()
    num_images = min(config.fourier_images, len(labels))
    chosen = even_subset(labels, num_images, config.corruption_seed)
    own = chosen[world.share(num_images)]
    pixels = np.ascontiguousarray(np.asarray(images_u8[own]))
    own_labels = torch.from_numpy(labels[own]).to(device)
    rows, columns = map_frequencies(height), map_frequencies(width)
    pairs = _pairs(rows, columns, height, width)
    with evaluation_mode(model), progress_bar() as bar:
        task = bar.add_task("Fourier heat map", total=len(pairs), status="")
        clean = predict(model, pixels, device=device, amp=amp, batch_size=config.batch_size)
        check_labels(own_labels, clean.shape[1])
        wrong = [_num_wrong(clean, own_labels)]
        resident = torch.from_numpy(pixels).to(device)
        for number, pair in enumerate(pairs):
            signs = _signs(number, own, config.corruption_seed, device)
            step = config.fourier_norm * torch.from_numpy(basis_image(*pair, height, width)).float().to(device)
            logits = _perturbed_logits(model, resident, signs, step, device, amp, config.batch_size)
            wrong.append(_num_wrong(logits, own_labels))
            bar.update(task, advance=1)
    totals = np.sum(world.gather(np.array(wrong)), axis=0)
    errors = [None if np.isnan(total) else float(total / num_images) for total in totals]
    if None in errors:
        warn("logits are not finite at some frequencies of the Fourier heat map. Their errors are null.")
    by_pair = dict(zip(pairs, errors[1:], strict=True))
    symmetric = {_opposite(*pair, height, width): error for pair, error in by_pair.items()} | by_pair
    return {
        "error": [[symmetric[down, across] for across in columns] for down in rows],
        "frequencies": list(rows),
        "mean_error": None if None in errors else float(np.mean(list(symmetric.values()))),
        "clean_error": errors[0],
        "num_images": num_images,
        "norm": config.fourier_norm,
        "seed": config.corruption_seed,
    }


def map_frequencies(side: int) -> range:
    """The frequencies of the map along a side, ascending, in cycles per image: all, or the 63 lowest."""
    shown = min(side, MAX_SIDE)
    return range(-(shown // 2), shown - shown // 2)


def basis_image(down: int, across: int, height: int, width: int) -> np.ndarray:
    """The Fourier basis image U: (cos a - sin a) / sqrt(H W) with a = 2 pi (down y / H + across x / W), float64 [H, W].

    Its l2 norm is 1. Its Fourier transform is zero but at (down, across) and at its negative.
    """
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    angle = 2 * np.pi * ((down * y) / height + (across * x) / width)
    return (np.cos(angle) - np.sin(angle)) / np.sqrt(height * width)


def _opposite(down: int, across: int, height: int, width: int) -> tuple[int, int]:
    """The negative of a frequency; along a side of H px, -H / 2 is its own."""
    return (down if 2 * down == -height else -down), (across if 2 * across == -width else -across)


def _pairs(rows: range, columns: range, height: int, width: int) -> list[tuple[int, int]]:
    """One of each pair of opposite frequencies, the first one in the order of the rows, as the authors choose."""
    pairs: dict[tuple[int, int], None] = {}
    for down in rows:
        for across in columns:
            if _opposite(down, across, height, width) not in pairs:
                pairs[down, across] = None
    return list(pairs)


def _signs(number: int, rows: np.ndarray, seed: int, device: torch.device) -> Tensor:
    """The sign of each channel of the images `rows` at a frequency, float32 [n, 3]; `number` is the frequency's."""
    words = np.empty((len(rows), 4), np.uint32)
    rng.words_batch(words, 0, rng.STREAM_CORRUPTION, _FIRST_VIEW + number, rows, 0, *rng.key_words(seed))
    return torch.from_numpy(np.where(words[:, :3] >> 31, np.float32(1), np.float32(-1))).to(device)


@torch.no_grad()  # as in `measure.predict`
def _perturbed_logits(
    model: nn.Module,
    pixels: Tensor,
    signs: Tensor,
    step: Tensor,
    device: torch.device,
    amp: str,
    batch_size: int,
) -> Tensor:
    """The logits, float32 [n, K], of images uint8 [n, H, W, 3] with signs [n, 3] times `step`, [H, W], added."""
    logits, stored = [], image_format(model)
    for batch, batch_signs in zip(pixels.split(batch_size), signs.split(batch_size), strict=True):
        images = batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=stored).div_(255)
        perturbed = (images + batch_signs[:, :, None, None] * step).clamp_(0, 1)
        with precision(device, amp):
            logits.append(model(perturbed).float())
    return torch.cat(logits)


def _num_wrong(logits: Tensor, labels: Tensor) -> float:
    """How many predictions are wrong; NaN if a logit is NaN or infinite (-inf rules a class out)."""
    if not bool(torch.isfinite(logits.amax(dim=1)).all()):
        return float("nan")
    return float((logits.argmax(dim=1) != labels).sum())
