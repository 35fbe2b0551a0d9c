"""python -m fastmagn.evaluate: measure a trained model on clean and corrupted images.

python -m fastmagn.evaluate --run runs/NAME [--corrupted DIR] [--data.dir DIR] [--eval.num_images N] ...
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.checkpoint import last_checkpoint, load_model, read_checkpoint
from fastmagn.cli import parse_config, plain, run_command
from fastmagn.config import Config, EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES, available_corruptions, corrupt
from fastmagn.data import load_images, open_corrupted
from fastmagn.errors import InputError
from fastmagn.files import write_json
from fastmagn.hardware import precision, settle_hardware
from fastmagn.metrics import (
    corrupt_rms_calibration_error,
    corruption_accuracy,
    mean_corruption_accuracy,
    rms_calibration_error,
)
from fastmagn.models import build_model
from fastmagn.runlog import console, environment, print_results, progress_bar

CALIBRATION_SET = "c18"  # the paper's, wherever it was measured whole


class Predictions(NamedTuple):
    """What is kept of M predictions: confidences float32 [M] in [0, 1], and which are right, bool [M]."""

    confidences: np.ndarray
    correct: np.ndarray


@torch.inference_mode()
def predict(model: nn.Module, images_u8: np.ndarray, *, device: torch.device, amp: str, batch_size: int) -> Tensor:
    """Logits float32 [M, K], on the device, of uint8 [M, H, W, 3] images; the model is in evaluation mode."""
    logits = []
    for first in range(0, len(images_u8), batch_size):
        chunk = np.array(images_u8[first : first + batch_size])  # a copy: a mapped file is read-only, tensors are not
        batch = torch.from_numpy(chunk).to(device)
        images = batch.permute(0, 3, 1, 2).float() / 255
        with precision(device, amp):
            logits.append(model(images).float())
    return torch.cat(logits)


def evaluate(
    model: nn.Module,
    images_u8: np.ndarray,
    labels: np.ndarray,
    config: EvalConfig,
    *,
    device: torch.device,
    amp: str = "float32",
) -> dict[str, Any]:
    """Clean accuracy, corruption accuracies, mCA and RMS calibration error, all as fractions in 0..1.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1]; left in the mode it was in.
        images_u8: Test images, uint8 [M, H, W, 3].
        labels: int64 [M].
        config: Which corruptions, how many images, which calibration.
        device: Where the model is.
        amp: float32 or bf16, the precision of the forward pass.

    Returns:
        The measured part of results.json (design of the run folder: `clean_accuracy`, `corruption_accuracy`, ...). A
        set's mCA is None where not all of its corruptions were measured.

    Raises:
        InputError: `eval.num_images` exceeds the images there are; a -C set in `eval.corrupted_dir` does not fit them.
    """
    images_u8, labels = _first_images(images_u8, labels, config.num_images)

    def measure(images: np.ndarray) -> Predictions:
        logits = predict(model, images, device=device, amp=amp, batch_size=config.batch_size)
        confidences, predicted = torch.softmax(logits, dim=1).max(dim=1)
        return Predictions(confidences.cpu().numpy(), predicted.cpu().numpy() == labels)

    was_training = model.training
    model.eval()
    try:
        clean = measure(images_u8)
        corrupt_predictions = _measure_corruptions(measure, images_u8, labels, config)
    finally:
        model.train(was_training)
    accuracy = corruption_accuracy({name: cells.correct for name, cells in corrupt_predictions.items()})
    return {
        "num_images": len(labels),
        "clean_accuracy": float(clean.correct.mean()),
        "mca": {name: mean_corruption_accuracy(accuracy, names) for name, names in CORRUPTION_SETS.items()},
        "corruption_accuracy": accuracy,
        "rms_calibration_error": _calibration(clean, corrupt_predictions, config),
    }


def _first_images(images_u8: np.ndarray, labels: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    if num_images > len(labels):
        raise InputError(f"eval.num_images: got {num_images}; expected 0..{len(labels)}, the test images there are.")
    return (images_u8[:num_images], labels[:num_images]) if num_images else (images_u8, labels)


def _measure_corruptions(
    measure: Callable[[np.ndarray], Predictions], images_u8: np.ndarray, labels: np.ndarray, config: EvalConfig
) -> dict[str, Predictions]:
    """For each corruption of the set, predictions [5, M] at severities 1 to 5."""
    names = CORRUPTION_SETS[config.corruption_set]
    if config.corrupted_dir is None:
        names = _without_missing(names)
    predictions = {}
    with progress_bar() as bar:
        task = bar.add_task("corruptions", total=len(names) * len(SEVERITIES), status="")
        for name in names:
            cells = []
            for corrupted in _corrupted_images(name, images_u8, labels, config):
                cells.append(measure(corrupted))
                bar.update(task, advance=1, status=name)
            predictions[name] = Predictions(*map(np.stack, zip(*cells, strict=True)))
    return predictions


def _corrupted_images(name: str, images_u8: np.ndarray, labels: np.ndarray, config: EvalConfig) -> Iterable[np.ndarray]:
    """uint8 [M, H, W, 3] for severities 1 to 5: from the -C set in `eval.corrupted_dir`, or made here."""
    if config.corrupted_dir is not None:
        return open_corrupted(config.corrupted_dir, name, labels, images_u8.shape[1:])
    return (corrupt(images_u8, name, severity, seed=config.corruption_seed) for severity in SEVERITIES)


def _without_missing(names: tuple[str, ...]) -> tuple[str, ...]:
    """The corruptions that can be made here; a warning names the others."""
    missing = [name for name in names if name not in available_corruptions()]
    if missing:
        console.print(
            f"warning: {', '.join(missing)} left out, and with it every mCA that needs it; pip install "
            '"fastmagn[corruptions]" brings its pictures.',
            markup=False,
        )
    return tuple(name for name in names if name not in missing)


def _calibration(clean: Predictions, corrupted: dict[str, Predictions], config: EvalConfig) -> dict[str, Any]:
    """RMS calibration errors and the settings that they depend on."""
    paper = CORRUPTION_SETS[CALIBRATION_SET]
    whole = all(name in corrupted for name in paper)
    names = paper if whole else tuple(corrupted)
    bins = {"num_bins": config.num_bins, "binning": config.binning}
    return {
        "clean": rms_calibration_error(clean.confidences, clean.correct, **bins),
        "corrupt": corrupt_rms_calibration_error(
            {name: corrupted[name].confidences for name in names},
            {name: corrupted[name].correct for name in names},
            **bins,
            pooling=config.pooling,
        ),
        "corruption_set": CALIBRATION_SET if whole else "+".join(names),
        **bins,
        "pooling": config.pooling,
    }


def evaluate_run(run_dir: Path, config: Config) -> dict[str, Any]:
    """Measure a run's last checkpoint on the images that `config` names."""
    config = settle_hardware(config)
    device = torch.device(config.device)
    image_set = load_images(config.data.name, config.data.dir, config.data.download)
    model = build_model(
        config.model.name, num_classes=image_set.num_classes, mean=image_set.mean, std=image_set.std
    ).to(device, memory_format=torch.channels_last)
    path = last_checkpoint(run_dir)
    load_model(read_checkpoint(path, device), model, path)
    measured = evaluate(
        model, image_set.test_images_u8, image_set.test_labels, config.eval, device=device, amp=config.train.amp
    )
    return measured | {"environment": environment(device), "config": plain(config)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastmagn.evaluate",
        description="Measure a trained run again, or on other images.",
        epilog="Any field of the run's configuration may follow, such as --data.dir DIR, --eval.num_images N, "
        "--eval.corruption_set c15, --device cpu; python -m fastmagn.train --help lists them.",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--corrupted", type=Path, help="folder of a made or published -C set (eval.corrupted_dir)")
    parser.add_argument("--out", type=Path, help="results file; RUN/evaluation.json by default")
    own, fields = parser.parse_known_args(arguments)
    if own.corrupted is not None:
        fields = [*fields, "--eval.corrupted_dir", str(own.corrupted)]
    config = parse_config(["--config", str(own.run / "config.yaml"), *fields], parser.prog, parser.description)
    results = evaluate_run(own.run, config)
    out = own.out or own.run / "evaluation.json"
    write_json(out, results)
    print_results(results, title=str(own.run))
    console.print(f"written to {out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
