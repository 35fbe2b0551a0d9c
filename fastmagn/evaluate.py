"""python -m fastmagn.evaluate: measure a trained model on clean and corrupted images.

python -m fastmagn.evaluate --run runs/NAME [--corrupted DIR] [--data.dir DIR] [--eval.num_images N] ...
torchrun --nproc_per_node 2 -m fastmagn.evaluate --run_dir runs/NAME ...
"""

import argparse
import dataclasses
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn import __version__
from fastmagn.checkpoint import last_checkpoint, load_model, read_checkpoint
from fastmagn.cli import parse_config, plain, run_command
from fastmagn.config import Config, EvalConfig
from fastmagn.corrupted_set import CorruptConfig, make_corrupted_set
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES, available_corruptions, corrupt
from fastmagn.data import ImageSet, load_images, open_corrupted
from fastmagn.data.corrupted import check_source
from fastmagn.distributed import World, join_world
from fastmagn.errors import InputError
from fastmagn.files import write_json
from fastmagn.hardware import precision, settle_hardware
from fastmagn.logits import LogitsWriter, read_logits
from fastmagn.methods import model_for_test
from fastmagn.metrics.predictions import Predictions, concatenate, measure_logits, stack
from fastmagn.metrics.summary import summarise
from fastmagn.models import Normalised, build_model, evaluation_mode
from fastmagn.runlog import console, environment, print_results, progress_bar


class Cell(NamedTuple):
    """What one forward pass over the test images measures: clean (severity 0), or a corruption at a severity 1..5."""

    name: str
    severity: int
    images_u8: np.ndarray


@torch.inference_mode()
def predict(model: nn.Module, images_u8: np.ndarray, *, device: torch.device, amp: str, batch_size: int) -> Tensor:
    """Logits float32 [M, K], on the device, of uint8 [M, H, W, 3] images; the model is in evaluation mode."""
    logits = []
    for first in range(0, len(images_u8), batch_size):
        chunk = np.array(images_u8[first : first + batch_size])  # a copy: a mapped file is read-only, tensors are not
        batch = torch.from_numpy(chunk).to(device)
        images = batch.permute(0, 3, 1, 2).float().div_(255)
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
    logits_dir: Path | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Accuracy on clean and corrupted images, mCA and calibration: one forward pass for each of up to 96 cells.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1]; left in the mode it was in.
        images_u8: Test images, uint8 [M, H, W, 3].
        labels: int64 [M].
        config: Which corruptions, how many images, which calibration.
        device: Where the model is.
        amp: float32 or bf16, the precision of the forward pass.
        logits_dir: Where to keep all logits, for `summarise_logits`; None keeps none.
        world: torchrun's processes; each measures a share of the images, and all return the same totals.

    Returns:
        What `metrics.summary.summarise` says: the measured part of results.json.

    Raises:
        InputError: `eval.num_images` exceeds the images there are; a -C set in `eval.corrupted_dir` does not fit them.
    """
    world = world or World()
    if config.corrupted_dir is not None:
        check_source(config.corrupted_dir, images_u8, labels)
    images_u8, labels = _first_images(images_u8, labels, config.num_images)
    share = world.share(len(labels))
    labels_here = torch.from_numpy(labels[share]).to(device)
    writer = LogitsWriter(logits_dir, labels) if logits_dir is not None and world.rank == 0 else None
    measured: dict[str, list[Predictions]] = {}
    names = _corruption_names(config)
    with evaluation_mode(model), progress_bar() as bar:
        task = bar.add_task("evaluation", total=1 + len(names) * len(SEVERITIES), status="")
        for cell in _ahead(_cells(names, images_u8, labels, share, config), ahead=device.type == "cuda"):
            logits = predict(model, cell.images_u8, device=device, amp=amp, batch_size=config.batch_size)
            measured.setdefault(cell.name, []).append(measure_logits(logits, labels_here))
            if logits_dir is not None:
                rows = world.gather(logits.cpu().numpy())
                if writer is not None:
                    writer.write(cell.name, cell.severity, np.concatenate(rows))
            bar.update(task, advance=1, status=cell.name)
    if writer is not None:
        writer.finish()
    return summarise(*_whole(world.gather({name: stack(parts) for name, parts in measured.items()})), config)


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


def _first_images(images_u8: np.ndarray, labels: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    if num_images > len(labels):
        raise InputError(f"eval.num_images: got {num_images}; expected 0..{len(labels)}, the test images there are.")
    return (images_u8[:num_images], labels[:num_images]) if num_images else (images_u8, labels)


def _cells(
    names: Iterable[str], images_u8: np.ndarray, labels: np.ndarray, share: slice, config: EvalConfig
) -> Iterator[Cell]:
    """This rank's share of the clean images, then of each corruption at severities 1 to 5, stored or made here."""
    yield Cell("clean", 0, images_u8[share])
    indices = np.arange(len(labels))[share]
    for name in names:
        stored = None
        if config.corrupted_dir is not None:
            stored = open_corrupted(config.corrupted_dir, name, labels, images_u8.shape[1:])
        for severity in SEVERITIES:
            if stored is not None:
                yield Cell(name, severity, stored[severity - 1][share])
            else:
                made = corrupt(images_u8[share], name, severity, seed=config.corruption_seed, indices=indices)
                yield Cell(name, severity, made)


def _ahead(cells: Iterator[Cell], ahead: bool) -> Iterator[Cell]:
    """The cells, the next one made on a thread while the model works on this one; on a CPU they would only compete."""
    if not ahead:
        yield from cells
        return
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, cells, None)
        while (cell := following.result()) is not None:
            following = pool.submit(next, cells, None)
            yield cell


def _corruption_names(config: EvalConfig) -> tuple[str, ...]:
    """The set's corruptions that are stored or can be made here; a warning names the others."""
    names = CORRUPTION_SETS[config.corruption_set]
    if config.corrupted_dir is not None:
        return names
    missing = [name for name in names if name not in available_corruptions()]
    if missing:
        console.print(
            f"warning: {', '.join(missing)} left out, and with it every mCA that needs it; pip install "
            '"fastmagn[corruptions]" brings its pictures.',
            markup=False,
        )
    return tuple(name for name in names if name not in missing)


def use_cache(config: Config, world: World) -> EvalConfig:
    """The evaluation's config with `corrupted_dir` set to the -C set in `cache_dir`, which is made where it is absent.

    Without a cache, or with a -C set given, it is returned as it is. Rank 0 makes the set, the others wait for it.
    """
    chosen, data = config.eval, config.data
    if chosen.cache_dir is None or chosen.corrupted_dir is not None:
        return chosen
    images = f"n{chosen.num_images}" if chosen.num_images else "all"
    name = f"{data.name}-{chosen.corruption_set}-{images}-seed{chosen.corruption_seed}-fastmagn{__version__}"
    folder = chosen.cache_dir / name
    if world.rank == 0 and not folder.exists():
        wanted = CorruptConfig(
            out=folder,
            dataset=data.name,
            data_dir=data.dir,
            download=data.download,
            num_images=chosen.num_images,
            seed=chosen.corruption_seed,
            corruption_set=chosen.corruption_set,
        )
        make_corrupted_set(wanted, announce=console.print)
    world.gather(None)
    return dataclasses.replace(chosen, corrupted_dir=folder)


def load_trained(run_dir: Path, config: Config, image_set: ImageSet, device: torch.device) -> Normalised:
    """The network of a run's last checkpoint, on `device`, channels last.

    Raises:
        InputError: The checkpoint is missing, damaged, or does not fit `config` and the image set.
    """
    model = build_model(
        config.model.name,
        num_classes=image_set.num_classes,
        mean=image_set.mean,
        std=image_set.std,
        image_size=image_set.test_images_u8.shape[1:3],
    )
    model.to(device, memory_format=torch.channels_last)
    path = last_checkpoint(run_dir)
    load_model(read_checkpoint(path, device), model, path, config.eval.weights)
    return model


def evaluate_run(run_dir: Path, config: Config) -> dict[str, Any]:
    """Measure a run's last checkpoint on the images that `config` names, on all of torchrun's processes."""
    config = settle_hardware(config)
    with join_world(torch.device(config.device)) as (world, device):
        image_set = load_images(config.data.name, config.data.dir, config.data.download)
        model = load_trained(run_dir, config, image_set, device)
        measured = evaluate(
            model_for_test(model, config, image_set.test_images_u8.shape[1:3]),
            image_set.test_images_u8,
            image_set.test_labels,
            use_cache(config, world),
            device=device,
            amp=config.train.amp,
            logits_dir=run_dir / "logits" if config.eval.save_logits else None,
            world=world,
        )
    return measured | {"environment": environment(device), "config": plain(config)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastmagn.evaluate",
        description="Measure a trained run again, or on other images, or stored logits without the model.",
        epilog="Any field of the run's configuration may follow, such as --data.dir DIR, --eval.num_images N, "
        "--eval.corruption_set c15, --device cpu; python -m fastmagn.train --help lists them.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        *("--run", "--run_dir"),
        type=Path,
        help="folder of the run (say --run_dir under torchrun, which takes --run for an option of its own)",
    )
    what.add_argument("--logits", type=Path, help="folder of logits that --save_logits left, instead of a run")
    parser.add_argument("--corrupted", type=Path, help="folder of a made or published -C set (eval.corrupted_dir)")
    parser.add_argument("--save_logits", action="store_true", help="keep all logits in RUN/logits (eval.save_logits)")
    parser.add_argument("--out", type=Path, help="results file; evaluation.json in RUN, or in the logits' folder")
    own, fields = parser.parse_known_args(arguments)
    if own.corrupted is not None:
        fields = [*fields, "--eval.corrupted_dir", str(own.corrupted)]
    if own.save_logits:
        fields = [*fields, "--eval.save_logits", "true"]
    if own.run is not None:
        fields = ["--config", str(own.run / "config.yaml"), *fields]
    config = parse_config(fields, parser.prog, parser.description)
    if own.run is not None:
        results = evaluate_run(own.run, config)
    else:
        results = summarise_logits(own.logits, config.eval) | {"config": {"eval": plain(config.eval)}}
    if int(os.environ.get("RANK", "0")) == 0:
        out = own.out or (own.run or own.logits) / "evaluation.json"
        write_json(out, results)
        print_results(results, title=str(own.run or own.logits))
        console.print(f"written to {out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
