"""Accuracy and calibration of a model on clean and corrupted images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.config.schema import EvalConfig
from fastmagn.corruptions import SEVERITIES
from fastmagn.data.corrupted.image_tree import check_cells
from fastmagn.data.corrupted.npy import check_source
from fastmagn.data.files.on_demand import chunks
from fastmagn.data.image_set import Images
from fastmagn.errors import InputError, check
from fastmagn.evaluation.cells import cells_to_measure, corruptions_to_measure, made_ahead, stored_cells
from fastmagn.evaluation.logits import LogitsWriter, read_logits
from fastmagn.evaluation.metrics.accuracy import alexnet_normalised_error
from fastmagn.evaluation.metrics.predictions import Predictions, concatenate, measure_logits, stack
from fastmagn.evaluation.metrics.summary import summarise
from fastmagn.machine.console import console, progress_bar
from fastmagn.machine.hardware import precision
from fastmagn.machine.processes import World
from fastmagn.models import evaluation_mode

IMAGENET_CLASSES = 1000


@torch.inference_mode()
def predict(model: nn.Module, images_u8: Images, *, device: torch.device, amp: str, batch_size: int) -> Tensor:
    """Logits float32 [M, K], on the device, of uint8 [M, H, W, 3] images; the model is in evaluation mode."""
    logits = []
    for chunk in chunks(images_u8, batch_size):
        batch = torch.from_numpy(chunk).to(device)
        images = batch.permute(0, 3, 1, 2).float().div_(255)
        with precision(device, amp):
            logits.append(model(images).float())
    return torch.cat(logits)


def evaluate(
    model: nn.Module,
    images_u8: Images,
    labels: np.ndarray,
    config: EvalConfig,
    *,
    device: torch.device,
    amp: str = "float32",
    logits_dir: Path | None = None,
    world: World | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Accuracy on clean and corrupted images, mCA and calibration: one forward pass for each of up to 96 cells.

    Images that are decoded when they are read are decoded anew for each cell unless a rank's are below 1 GiB, and never
    more than 256 MiB of them are in memory: ImageNet's are 7.5 GB.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1]; left in the mode it was in.
        images_u8: Test images, uint8 [M, H, W, 3]: an array, or what `np.asarray` makes one of.
        labels: int64 [M].
        config: Which corruptions, how many images, which calibration.
        device: Where the model is.
        amp: float32 or bf16, the precision of the forward pass.
        logits_dir: Where to keep all logits, for `summarise_logits`; None keeps none.
        world: torchrun's processes; each measures a share of the images, and all return the same totals.
        class_names: K names, label k is class_names[k]; what a -C set of image files (ImageNet-C) is matched by.

    Returns:
        What `metrics.summary.summarise` says: the measured part of results.json; of ImageNet-C, a -C set of image files
        of 1000 classes, also `mce_alexnet` (None where one of its 15 corruptions is not measured). An image file that
        cannot be decoded is left out of its corruption, at all severities, with a warning.

    Raises:
        InputError: `eval.num_images` exceeds the images there are, or there are fewer of them than processes; a -C set
            in `eval.corrupted_dir` does not fit them.
    """
    world = world or World()
    names, places = corruptions_to_measure(config)
    present_classes: tuple[str, ...] = ()
    if places:
        present_classes = check_cells(places, class_names, labels)
    elif config.corrupted_dir is not None:
        check_source(config.corrupted_dir, images_u8, labels)
    images_u8, labels = _first_images(images_u8, labels, config.num_images)
    check(len(labels) >= world.size, "eval.num_images", len(labels), f"at least {world.size}, one for each process")
    share = world.share(len(labels))
    labels_here = torch.from_numpy(labels[share]).to(device)
    writer = LogitsWriter(logits_dir, labels) if logits_dir is not None and world.rank == 0 else None
    measured: dict[str, list[Predictions]] = {}
    readable: dict[str, np.ndarray] = {}
    logits_parts: list[Tensor] = []
    readable_parts: list[np.ndarray] = []
    stored = stored_cells(config, places, labels, images_u8.shape[1:], present_classes)
    with evaluation_mode(model), progress_bar() as bar:
        task = bar.add_task("evaluation", total=1 + len(names) * len(SEVERITIES), status="")
        for cell in made_ahead(cells_to_measure(names, stored, images_u8, share, config), ahead=device.type == "cuda"):
            logits_parts.append(predict(model, cell.images_u8, device=device, amp=amp, batch_size=config.batch_size))
            readable_parts.append(cell.readable())
            if not cell.is_last:
                continue
            logits, logits_parts = torch.cat(logits_parts), []
            readable[cell.name] = readable.get(cell.name, True) & np.concatenate(readable_parts)
            readable_parts = []
            measured.setdefault(cell.name, []).append(measure_logits(logits, labels_here))
            if logits_dir is not None:
                rows = world.gather(logits.cpu().numpy())
                if writer is not None:
                    writer.write(cell.name, cell.severity, np.concatenate(rows))
            bar.update(task, advance=1, status=cell.name)
    num_unreadable = _report_unreadable(world.gather(readable))
    if writer is not None:
        writer.discard() if num_unreadable else writer.finish()
    kept = {name: _columns(stack(parts), readable[name]) for name, parts in measured.items()}
    results = summarise(*_whole(world.gather(kept)), config)
    if places and len(class_names) == IMAGENET_CLASSES:
        results["mce_alexnet"] = alexnet_normalised_error(results["corruption_accuracy"])
    return results


def summarise_logits(logits_dir: Path, config: EvalConfig) -> dict[str, Any]:
    """The same measures from stored logits, without the model; `config` says which calibration.

    Raises:
        InputError: The folder does not hold whole logits.
    """
    labels, logits = read_logits(logits_dir)
    labels = torch.from_numpy(labels)
    measured = {
        name: stack([measure_logits(torch.from_numpy(np.array(cell)), labels) for cell in cells])
        for name, cells in logits.items()
    }
    return summarise(*_whole([measured]), config)


def _whole(shares: list[dict[str, Predictions]]) -> tuple[Predictions, dict[str, Predictions]]:
    """All ranks' predictions, [1 or 5, their rows], as the clean ones [M] and each corruption's [5, M]."""
    joined = {}
    for name in shares[0]:
        entries = zip(*(share[name] for share in shares), strict=True)
        joined[name] = Predictions(*(np.concatenate(parts, axis=1) for parts in entries))
    clean = concatenate([joined.pop("clean")])
    return clean, joined


def _columns(predictions: Predictions, kept: np.ndarray) -> Predictions:
    """Predictions [S, M] of the images for which `kept`, bool [M], says so."""
    return Predictions(*(entry[:, kept] for entry in predictions))


def _report_unreadable(shares: list[dict[str, np.ndarray]]) -> int:
    """Images that were left out, of all ranks and corruptions; a warning counts them."""
    counts = {name: sum(int(np.count_nonzero(~share[name])) for share in shares) for name in shares[0]}
    left_out = {name: count for name, count in counts.items() if count}
    if left_out:
        console.print(
            f"warning: {', '.join(f'{count} images of {name}' for name, count in left_out.items())} left out, at all"
            " severities: their files cannot be read. No logits are kept.",
            markup=False,
        )
    return sum(left_out.values())


def _first_images(images_u8: Images, labels: np.ndarray, num_images: int) -> tuple[Images, np.ndarray]:
    if num_images > len(labels):
        raise InputError(f"eval.num_images: got {num_images}; expected 0..{len(labels)}, the test images there are.")
    return (images_u8[:num_images], labels[:num_images]) if num_images else (images_u8, labels)
