"""Accuracy and calibration of a model on clean and corrupted images.

Shape letters: M images, n those of one process, S severities (1 for clean, up to 5), K classes, B batch, H W image.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.data.files.on_demand import chunks
from fastmagn.data.image_set import Images
from fastmagn.data.source import to_device
from fastmagn.errors import check, counted, some
from fastmagn.evaluation.cells import CellPart, cell_parts, find_corruptions, next_on_a_thread
from fastmagn.evaluation.logits import (
    MCE_ALEXNET,
    LogitsWriter,
    check_logits_room,
    logits_bytes,
    read_logits,
    read_measures,
    read_severities,
    write_logits,
)
from fastmagn.evaluation.metrics.accuracy import alexnet_normalised_error
from fastmagn.evaluation.metrics.classes import ClassCounts, add_counts, count_classes
from fastmagn.evaluation.metrics.predictions import Predictions, concatenate, measure_logits, not_finite, stack
from fastmagn.evaluation.metrics.summary import confidence_measures, summarise
from fastmagn.evaluation.subset import FIRST, Subset
from fastmagn.machine.console import progress_bar, say_compiling, warn
from fastmagn.machine.hardware import precision
from fastmagn.machine.processes import World
from fastmagn.models import evaluation_mode, image_format
from fastmagn.warming.ahead import compile_ahead
from fastmagn.warming.kernels import corruption_groups

IMAGENET_CLASSES = 1000


class CellLogits(NamedTuple):
    """A model's answer to one process's images of a cell.

    Args:
        name: The corruption, or clean.
        severity: 1..5, 0 for clean.
        logits: float32 [n, K], on the model's device.
        readable: bool [n], False for images whose file could not be decoded.
    """

    name: str
    severity: int
    logits: Tensor
    readable: np.ndarray


class Measured(NamedTuple):
    """One process's predictions under a corruption, [S, n], their counts, and how many images are unreadable.

    Unreadable images are left out of both. `scaled` has the predictions of the logits divided by a temperature; None
    without one.
    """

    predictions: Predictions
    classes: ClassCounts
    num_unreadable: int
    scaled: Predictions | None = None


class MeasuredCell(NamedTuple):
    """One cell's accuracy, as soon as it is known.

    Args:
        name: The corruption, or clean.
        severity: 1..5, 0 for clean.
        accuracy: A fraction in 0..1; None if a logit is not finite. Under torchrun it is that of this process's share.
        num_measured: How many cells are measured, this one included.
        num_cells: How many there are.
    """

    name: str
    severity: int
    accuracy: float | None
    num_measured: int
    num_cells: int


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
    subset: Subset = FIRST,
    progress: bool = True,
    callback: Callable[[MeasuredCell], Any] | None = None,
    temperature: float | None = None,
    num_batches: int | None = None,
) -> dict[str, Any]:
    """Accuracy on clean and corrupted images, mCA and calibration: one forward pass for each cell, 96 of c19.

    Images in files are decoded anew for each cell, unless those of a process take less than 1 GiB. At most 256 MiB of
    them are in memory at a time; ImageNet's take 7.5 GB.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1]; it is left in the mode it was in.
        images_u8: Test images, uint8 [M, H, W, 3]: an array, or what `np.asarray` makes one of.
        labels: int64 [M].
        config: Which corruptions, how many images, which calibration.
        device: Where the model is.
        amp: float32, bf16 or fp16, the precision of the forward pass.
        logits_dir: Where all logits are stored, for `summarise_logits`; None stores none.
        world: torchrun's processes; each measures a share of the images, and all return the same results.
        class_names: K names, label k is class_names[k]; a -C set of image files (ImageNet-C) is matched by these, and
            the room for `logits_dir` is checked by their number. `class_accuracy` of the results repeats them.
        subset: Which images are measured if `eval.num_images` asks for fewer than all; the results record it.
        progress: Show a progress bar; without a terminal nothing is shown.
        callback: Called after each cell.
        temperature: What the logits are divided by for `temperature_scaling`, above 0; None measures no such thing.
        num_batches: In how many batches, as equal as possible, a process predicts its images of a cell; None: in
            batches of `eval.batch_size`, of which the last may be smaller.

    Returns:
        The measured part of results.json, see `metrics.summary.summarise`, `subset`, and `corrupted_as`: the published
        sets whose script is followed, the version and the quality of the JPEG; None for a published -C set. With a -C
        set of image files of 1000 classes (ImageNet-C) also `mce_alexnet`, None if one of its 15 corruptions is not
        measured. With a temperature also `temperature_scaling`: what `metrics.summary.confidence_measures` returns for
        the divided logits. An image file that cannot be decoded is left out of its corruption, at all severities, with
        a warning.
        An accuracy is None if some of its logits are NaN or infinite, and so is every mean that needs it; a warning
        counts these images.

    Raises:
        InputError: There are fewer images than `eval.num_images` or than processes; the -C set in `eval.corrupted_dir`
            does not fit them; the logits have no room.
    """
    world = world or World()
    total = len(labels)
    rows = chosen_rows(labels, config.num_images, subset, world)
    corruptions = find_corruptions(images_u8, labels, config, class_names, rows)
    num_cells = 1 + sum(map(len, corruptions.severities.values()))
    if logits_dir is not None:
        check_logits_room(logits_dir, logits_bytes(num_cells, config.num_images or total, len(class_names)), world)
    if corruptions.open_stored is None:
        compile_ahead(corruption_groups(corruptions.severities), lambda: say_compiling(progress))
        world.gather(None)
    num_classes_measured = len(np.unique(labels))
    images_u8, labels = images_u8[rows], labels[rows]
    share = world.share(len(labels))
    parts = cell_parts(corruptions, images_u8, share, config, np.arange(total)[rows], num_batches)
    cells = _forward(model, parts, device, amp, config.batch_size)
    is_imagenet_c = corruptions.are_image_files and num_classes_measured == len(class_names) == IMAGENET_CLASSES
    if logits_dir is not None:
        cells = _store(cells, logits_dir, labels, world, [MCE_ALEXNET] if is_imagenet_c else [])
    with evaluation_mode(model), closing(cells):
        own_labels = torch.from_numpy(labels[share]).to(device)
        measured = world.gather(_measure(cells, own_labels, num_cells, progress, callback, temperature))
    _warn_of_unreadable(measured)
    clean, corrupted = _join(measured)
    _warn_of_not_finite(clean, corrupted, corruptions.severities)
    results = summarise(clean, corrupted, config, corruptions.severities, _counts(measured))
    if len(class_names) == len(results["class_accuracy"]["num_images"]):
        results["class_accuracy"] = {"class_names": list(class_names), **results["class_accuracy"]}
    results |= {"subset": subset.record(len(labels), total), "corrupted_as": corruptions.made_as}
    if is_imagenet_c:
        results[MCE_ALEXNET] = alexnet_normalised_error(results["corruption_accuracy"])
    if temperature is not None:
        scaled = [{name: cell._replace(predictions=cell.scaled) for name, cell in part.items()} for part in measured]
        results["temperature_scaling"] = confidence_measures(*_join(scaled), config, corruptions.severities)
    return results


def summarise_logits(logits_dir: Path, config: EvalConfig) -> dict[str, Any]:
    """The same measures from stored logits, without the model; `config` says which calibration.

    Raises:
        InputError: The folder does not hold whole logits; `config` asks for what needs the model.
    """
    for field in ("ood", "temperature_images"):
        value = getattr(config, field)
        check(value is None, f"eval.{field}", value, "none with stored logits; --run or --weights measures it")
    is_exact = config.forward == "exact"
    check(is_exact, "eval.forward", config.forward, "exact with stored logits, which no forward pass makes")
    stored_labels, logits = read_logits(logits_dir)
    severities = read_severities(logits_dir, logits)
    labels = torch.from_numpy(stored_labels)
    measured = {}
    for name, cells in logits.items():
        predictions = stack([measure_logits(torch.from_numpy(np.array(cell)), labels) for cell in cells])
        measured[name] = Measured(predictions, count_classes(predictions, stored_labels, cells.shape[-1]), 0)
    clean, corrupted = _join([measured])
    _warn_of_not_finite(clean, corrupted, severities)
    results = summarise(clean, corrupted, config, severities, _counts([measured]))
    if MCE_ALEXNET in read_measures(logits_dir):
        results[MCE_ALEXNET] = alexnet_normalised_error(results["corruption_accuracy"])
    return results


@torch.no_grad()  # not inference_mode: a training could not use the tensors that a model keeps from a forward pass
def predict(
    model: nn.Module,
    images_u8: Images,
    *,
    device: torch.device,
    amp: str,
    batch_size: int,
    num_batches: int | None = None,
) -> Tensor:
    """Logits of the images.

    Args:
        model: In evaluation mode, on `device`.
        images_u8: uint8 [M, H, W, 3].
        device: Where the model is.
        amp: float32, bf16 or fp16, the precision of the forward pass.
        batch_size: Images a forward pass.
        num_batches: The number of forward passes, as equal as possible; None: as many as `batch_size` needs.

    Returns:
        float32 [M, K], on the device.
    """
    logits, stored = [], image_format(model)
    for chunk in chunks(images_u8, batch_size, num_batches):
        batch = to_device(torch.from_numpy(chunk), device).to(device)
        images = batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=stored).div_(255)
        with precision(device, amp):
            logits.append(model(images).float())
    return torch.cat(logits)


def chosen_rows(labels: np.ndarray, num_images: int, subset: Subset, world: World) -> slice | np.ndarray:
    """The rows of the images to measure.

    Raises:
        InputError: There are fewer images than `num_images` or than processes.
    """
    total = len(labels)
    check(num_images <= total, "eval.num_images", num_images, f"0..{total}, the test images there are")
    wanted = num_images or total
    check(wanted >= world.size, "eval.num_images", wanted, f"at least {world.size}, one for each process")
    return subset.rows(labels, num_images)


def _forward(
    model: nn.Module, parts: Iterator[CellPart], device: torch.device, amp: str, batch_size: int
) -> Generator[CellLogits, None, None]:
    """The logits of each cell, once the model has seen all of its parts."""
    if device.type == "cuda":  # on a CPU the thread would only compete with the model
        parts = next_on_a_thread(parts)
    logits, readable = [], []
    for part in parts:
        logits.append(
            predict(model, part.images_u8, device=device, amp=amp, batch_size=batch_size, num_batches=part.num_batches)
        )
        readable.append(part.readable())
        if part.is_last:
            yield CellLogits(part.name, part.severity, torch.cat(logits), np.concatenate(readable))
            logits, readable = [], []


def _store(
    cells: Iterable[CellLogits], folder: Path, labels: np.ndarray, world: World, measures: list[str]
) -> Generator[CellLogits, None, None]:
    """The same cells; rank 0 stores all processes' logits in `folder`, or none if a file is unreadable.

    A full disk ends all processes in the same cell.
    """
    writing = write_logits(folder, labels, measures) if world.rank == 0 else nullcontext()
    with ExitStack() as stack:
        writer = world.together(lambda: stack.enter_context(writing))
        for cell in cells:
            shares = world.gather((cell.logits.cpu().numpy(), cell.readable.all()))
            world.together(partial(_write_cell, writer, cell, shares))
            yield cell
        world.together(stack.pop_all().close)


def _write_cell(writer: LogitsWriter | None, cell: CellLogits, shares: list[tuple[np.ndarray, bool]]) -> None:
    if writer is None:
        return
    writer.write(cell.name, cell.severity, np.concatenate([logits for logits, _ in shares]))
    if not all(all_readable for _, all_readable in shares):
        writer.discard()


def _measure(
    cells: Iterable[CellLogits],
    labels: Tensor,
    num_cells: int,
    progress: bool,
    callback: Callable[[MeasuredCell], Any] | None,
    temperature: float | None,
) -> dict[str, Measured]:
    """This process's predictions under each corruption, and `clean`.

    Args:
        cells: The severities of a corruption come in order.
        labels: int64 [n], on the logits' device.
        num_cells: How many cells there are.
        progress: Whether a progress bar may be shown.
        callback: Called after each cell.
        temperature: What the logits are divided by for `scaled`; None for none.
    """
    severities: dict[str, list[tuple[Predictions, np.ndarray, Predictions | None]]] = {}
    with progress_bar(progress) as bar:
        task = bar.add_task("evaluation", total=num_cells, status="")
        for number, cell in enumerate(cells, start=1):
            predictions = measure_logits(cell.logits, labels)
            scaled = None if temperature is None else measure_logits(cell.logits, labels, temperature)
            severities.setdefault(cell.name, []).append((predictions, cell.readable, scaled))
            bar.update(task, advance=1, status=cell.name)
            if callback is not None:
                callback(MeasuredCell(cell.name, cell.severity, _accuracy(predictions, cell), number, num_cells))
    measured, own_labels, num_classes = {}, labels.cpu().numpy(), cell.logits.shape[1]
    for name, entries in severities.items():
        predictions, readable, scaled = zip(*entries, strict=True)
        kept = np.logical_and.reduce(readable)
        parts = [predictions] if temperature is None else [predictions, scaled]
        kept_parts = [Predictions(*(values[:, kept] for values in stack(list(part)))) for part in parts]
        classes = count_classes(kept_parts[0], own_labels[kept], num_classes)
        measured[name] = Measured(kept_parts[0], classes, int(np.count_nonzero(~kept)), *kept_parts[1:])
    return measured


def _accuracy(predictions: Predictions, cell: CellLogits) -> float | None:
    """The accuracy on the images that can be read; None if there is none, or if a logit is not finite."""
    correct = predictions.correct[cell.readable]
    if len(correct) == 0 or not_finite(predictions)[cell.readable].any():
        return None
    return float(correct.mean())


def _warn_of_not_finite(
    clean: Predictions, corrupted: dict[str, Predictions], severities: Mapping[str, tuple[int, ...]]
) -> None:
    """Name the cells with logits that are NaN or infinite in a warning, if there are any."""
    counts = {"clean": int(not_finite(clean).sum())}
    for name, predictions in corrupted.items():
        for severity, row in zip(severities[name], not_finite(predictions), strict=True):
            counts[f"{name} at severity {severity}"] = int(row.sum())
    found = [f"{name} ({counted(count, 'image')})" for name, count in counts.items() if count]
    if found:
        warn(
            f"logits are not finite for {some(found, shown=5)}. Their accuracies, and every mean that needs them, are"
            " null in the results."
        )


def _warn_of_unreadable(shares: list[dict[str, Measured]]) -> None:
    """Count the unreadable images of all processes in a warning, if there are any."""
    counts = {name: sum(share[name].num_unreadable for share in shares) for name in shares[0]}
    if any(counts.values()):
        found = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
        warn(f"image files cannot be read: {found}. They are left out at all severities, and no logits are stored.")


def _join(shares: list[dict[str, Measured]]) -> tuple[Predictions, dict[str, Predictions]]:
    """All processes' predictions: the clean ones, [M], and each corruption's, [S, M]."""
    joined = {}
    for name in shares[0]:
        values = zip(*(share[name].predictions for share in shares), strict=True)
        joined[name] = Predictions(*(np.concatenate(parts, axis=1) for parts in values))
    clean = concatenate([joined.pop("clean")])
    return clean, joined


def _counts(shares: list[dict[str, Measured]]) -> dict[str, ClassCounts]:
    """All processes' counts by class: those of `clean` and of each corruption."""
    return {name: add_counts([share[name].classes for share in shares]) for name in shares[0]}
