"""CIFAR-10-P: how often the prediction flips along ten sequences of small perturbations.

Source: D. Hendrycks and T. Dietterich, ICLR 2019, section 4.2. Shape letters: M images, n those of one process, F
frames, H W image.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import PERTURBATIONS
from fastmagn.corruptions.sequences import check_side, perturb
from fastmagn.data.arrays import open_array
from fastmagn.data.image_set import Images
from fastmagn.errors import InputError, check, some
from fastmagn.evaluation.measure import predict
from fastmagn.evaluation.metrics.accuracy import mean_of_all
from fastmagn.evaluation.subset import FIRST, Subset
from fastmagn.machine.console import progress_bar, warn
from fastmagn.machine.processes import World
from fastmagn.models import evaluation_mode

_NOT_FINITE = -1  # in place of a class
_CHUNK_IMAGES = 256  # whose sequences, 24 MB, are made at a time

Sequences = Callable[[str, np.ndarray], np.ndarray]


def evaluate_perturbations(
    model: nn.Module,
    images_u8: Images,
    labels: np.ndarray,
    config: EvalConfig,
    *,
    device: torch.device,
    amp: str = "float32",
    world: World | None = None,
    subset: Subset = FIRST,
) -> dict[str, Any]:
    """The flip probability of each sequence and their mean.

    A flip is another predicted class than before: than in the frame before, or, for the two noises, whose frames have
    no order, than in the first frame, which is the image itself. Whether a class is the right one does not matter.

    Args:
        model: Takes float images [B, 3, 32, 32] in [0, 1].
        images_u8: Test images, uint8 [M, 32, 32, 3].
        labels: int64 [M], from which `subset` chooses.
        config: `num_images`; `perturbed_dir` or `corruption_seed`; `batch_size`.
        device: Where the model is.
        amp: float32, bf16 or fp16, the precision of the forward pass.
        world: torchrun's processes; each measures a share of the images, and all return the same results.
        subset: Which images are measured if `eval.num_images` asks for fewer than all.

    Returns:
        `num_images`; `flip_probability` {name: a fraction in 0..1}; `mean_flip_probability`, their mean; and
        `flips_by_frame` {name: [F - 1]}, the share of the images that flip at each frame. With a -P set that lacks a
        sequence, the mean is None. A sequence is None if one of its logits is NaN or infinite. `source` {seed} or {dir}
        says where the sequences are from, and `subset` which images were measured.

    Raises:
        InputError: The images have another size, are too few, or the -P set does not fit them.
    """
    world = world or World()
    total = len(labels)
    check(config.num_images <= total, "eval.num_images", config.num_images, f"0..{total}, the test images there are")
    rows = np.arange(total)[subset.rows(labels, config.num_images)]
    own = rows[world.share(len(rows))]
    names, sequences = find_sequences(images_u8, config)
    missing = [name for name in PERTURBATIONS if name not in names]
    if missing:
        warn(f"{config.perturbed_dir}: does not hold {some(missing)}; the mean flip probability is null.")
    flips = {}
    with evaluation_mode(model), progress_bar() as bar:
        task = bar.add_task("perturbations", total=len(names), status="")
        for name in names:
            bar.update(task, status=name)
            parts = [
                _predicted(model, sequences(name, own[first : first + _CHUNK_IMAGES]), device, amp, config.batch_size)
                for first in range(0, len(own), _CHUNK_IMAGES)
            ]
            predicted = np.concatenate(world.gather(np.concatenate(parts)))
            flips[name] = None if (predicted == _NOT_FINITE).any() else find_flips(predicted, "noise" in name)
            bar.update(task, advance=1)
    _warn_of_not_finite(flips)
    by_frame = {name: None if flip is None else flip.mean(axis=0).tolist() for name, flip in flips.items()}
    probability = {name: None if flip is None else float(flip.mean()) for name, flip in flips.items()}

    seed, folder = config.corruption_seed, config.perturbed_dir
    return {
        "num_images": len(rows),
        "flip_probability": probability,
        "mean_flip_probability": mean_of_all(probability.get(name) for name in PERTURBATIONS),
        "flips_by_frame": by_frame,
        "source": {"seed": seed} if folder is None else {"dir": str(folder)},
        "subset": subset.record(len(rows), total),
    }


def find_flips(predicted: np.ndarray, from_first: bool) -> np.ndarray:
    """Whether each frame's prediction is another than in the frame before, or than in the first frame.

    Args:
        predicted: The predicted classes, integers [M, F], F at least 2.
        from_first: Compare with the first frame.

    Returns:
        bool [M, F - 1].
    """
    return predicted[:, 1:] != (predicted[:, :1] if from_first else predicted[:, :-1])


def find_sequences(images_u8: Images, config: EvalConfig) -> tuple[tuple[str, ...], Sequences]:
    """The sequences that can be measured, and a function that makes or reads them.

    Args:
        images_u8: All test images, uint8 [M, 32, 32, 3].
        config: `perturbed_dir` or `corruption_seed`.

    Returns:
        Their names; and (name, rows int64 [n]) -> uint8 [n, F, 32, 32, 3].

    Raises:
        InputError: The images have another size, or the -P set in `eval.perturbed_dir` does not fit them.
    """
    check_side(images_u8.shape)
    if config.perturbed_dir is None:

        def make(name: str, rows: np.ndarray) -> np.ndarray:
            return perturb(np.asarray(images_u8[rows]), name, seed=config.corruption_seed, indices=rows)

        return tuple(PERTURBATIONS), make
    stored = _open_stored(config.perturbed_dir, images_u8.shape)
    return tuple(stored), lambda name, rows: stored[name][rows]


def _open_stored(folder: Path, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of a -P set of images [M, H, W, 3], mapped, uint8 [M, F, H, W, 3], by name in our order."""
    wanted = f"a -P set holds {next(iter(PERTURBATIONS))}.npy and nine more."
    names = [name for name in PERTURBATIONS if (folder / f"{name}.npy").exists()]
    if not names:
        raise InputError(f"eval.perturbed_dir: {folder} holds no sequence; {wanted}")
    stored = {name: open_array(folder / f"{name}.npy", wanted, "Copy the file again.") for name in names}
    for name, array in stored.items():
        frames = array.shape[1] if array.ndim == 5 else 0
        if array.dtype != np.uint8 or frames < 2 or array.shape != (shape[0], frames, *shape[1:]):
            expected = ", ".join(map(str, (shape[0], "2 frames or more", *shape[1:])))
            got = f"{array.dtype} {list(array.shape)}"
            raise InputError(
                f"{folder / name}.npy: got {got}; expected uint8 [{expected}], the sequences of all test images in "
                "their order."
            )
    return stored


def _predicted(model: nn.Module, frames_u8: np.ndarray, device: torch.device, amp: str, batch_size: int) -> np.ndarray:
    """The predicted class of each frame, int64 [n, F]; -1 where a logit is not finite."""
    flat = np.asarray(frames_u8).reshape(-1, *frames_u8.shape[2:])
    logits = predict(model, flat, device=device, amp=amp, batch_size=batch_size)
    finite = torch.isfinite(logits.amax(dim=1))  # -inf rules a class out
    predicted = torch.where(finite, logits.argmax(dim=1), _NOT_FINITE)
    return predicted.cpu().numpy().reshape(frames_u8.shape[:2])


def _warn_of_not_finite(flips: dict[str, np.ndarray | None]) -> None:
    faulty = [name for name, flip in flips.items() if flip is None]
    if faulty:
        warn(f"logits are not finite for {some(faulty)}. Their flip probabilities, and the mean, are null.")
