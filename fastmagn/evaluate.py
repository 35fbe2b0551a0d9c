"""python -m fastmagn.evaluate: measure a trained model on clean and corrupted images.

python -m fastmagn.evaluate --run runs/NAME [--corrupted DIR] [--data.dir DIR] [--eval.num_images N] ...
python -m fastmagn.evaluate --run runs/NAME --images DIR [--classes FILE] ...
torchrun --nproc_per_node 2 -m fastmagn.evaluate --run_dir runs/NAME ...
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn import __version__
from fastmagn.cells import cells_to_measure, corruptions_to_measure, made_ahead, stored_cells
from fastmagn.checkpoint import last_checkpoint, load_model, read_checkpoint
from fastmagn.cli import EXIT_CODES, parse_config, plain, run_command
from fastmagn.config import Config, EvalConfig
from fastmagn.corrupted_set import CorruptConfig, make_corrupted_set
from fastmagn.corruptions import SEVERITIES
from fastmagn.data import ImageSet, load_data
from fastmagn.data.corrupted import check_source
from fastmagn.data.image_folder import resize_px
from fastmagn.data.image_set import Images
from fastmagn.data.imagenet_c import check_cells
from fastmagn.data.lazy_images import chunks
from fastmagn.distributed import World, join_world
from fastmagn.errors import InputError, check
from fastmagn.exporting.trained import load_run
from fastmagn.files import write_json
from fastmagn.hardware import precision, settle_hardware
from fastmagn.logits import LogitsWriter, read_logits
from fastmagn.methods import model_for_test
from fastmagn.metrics.accuracy import alexnet_normalised_error
from fastmagn.metrics.predictions import Predictions, concatenate, measure_logits, stack
from fastmagn.metrics.summary import summarise
from fastmagn.models import Normalised, build_model, evaluation_mode
from fastmagn.other_images import (
    Measured,
    find_images,
    measure_images,
    print_images,
    read_mapping,
    summarise_images,
    with_image_folders,
)
from fastmagn.runlog import console, environment, print_results, progress_bar

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


def use_cache(config: Config, world: World) -> EvalConfig:
    """The evaluation's config with `corrupted_dir` set to the -C set in `cache_dir`, which is made where it is absent.

    Without a cache, or with a -C set given, it is returned as it is. Rank 0 makes the set, the others wait for it.
    """
    chosen, data = config.eval, config.data
    if chosen.cache_dir is None or chosen.corrupted_dir is not None:
        return chosen
    images = f"n{chosen.num_images}" if chosen.num_images else "all"
    is_folder = data.name == "folder"
    size = f"{data.image_size}" if is_folder else ""
    name = f"{data.name}{size}-{chosen.corruption_set}-{images}-seed{chosen.corruption_seed}-fastmagn{__version__}"
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
            image_size=data.image_size if is_folder else None,
            resize_px=resize_px(data) if is_folder else 0,
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
        image_set = load_data(config.data)
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
            class_names=image_set.class_names,
        )
    return measured | {"environment": environment(device), "config": plain(config)}


def evaluate_images(run_dir: Path, config: Config, folder: Path, classes: Path | None) -> dict[str, Any]:
    """Measure a run's last checkpoint on all images of DIR/CLASS/IMAGE, on all of torchrun's processes.

    The images that it was trained on are not needed: results.json has the names of its classes.

    Args:
        run_dir: The run.
        config: Its configuration; `eval.num_images` is not looked at: the first images are all of a few classes.
        folder: DIR.
        classes: A file that says which class of the run a class folder is of; None where it has the class's name.

    Returns:
        What results hold under `image_folders`, by the folder's name: see `other_images.summarise_images`.
    """
    config = settle_hardware(config)
    mapping = read_mapping(classes) if classes is not None else {}
    with join_world(torch.device(config.device)) as (world, device):
        trained = load_run(run_dir, config.eval.weights)
        class_names, (size, whole_px) = trained.info.class_names, (trained.info.image_size[0],) * 2
        if config.data.name == "folder":
            size, whole_px = config.data.image_size, resize_px(config.data)
        found = find_images(folder, class_names, mapping, image_size=size, resize_px=whole_px)
        network = trained.network.to(device, memory_format=torch.channels_last)
        model = model_for_test(network, config, (size, size))
        share = world.share(len(found.labels))
        images = found.images[share]
        with evaluation_mode(model):
            logits = predict(model, images, device=device, amp=config.train.amp, batch_size=config.eval.batch_size)
        kept = images.readable()
        own_labels = np.unique(found.labels)
        measured = measure_images(logits[torch.from_numpy(kept).to(device)], found.labels[share][kept], own_labels)
        shares = world.gather((measured, int(np.count_nonzero(~kept))))
    whole = Measured(*(concatenate(list(parts)) for parts in zip(*(part for part, _ in shares), strict=True)))
    entry = summarise_images(whole, len(own_labels), sum(count for _, count in shares), config.eval)
    print_images(str(folder), entry, len(class_names))
    settings = {"classes": plain(classes), "weights": config.eval.weights, "test_time_flip": config.eval.test_time_flip}
    return {str(folder): entry | settings | {"environment": environment(device)}}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastmagn.evaluate",
        description="Measure a trained run again, or on other images, or stored logits without the model.",
        epilog="Any field of the run's configuration may follow, such as --data.dir DIR, --eval.num_images N, "
        "--eval.corruption_set c15, --device cpu; python -m fastmagn.train --help lists them. " + EXIT_CODES,
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
    parser.add_argument(
        "--images",
        type=Path,
        help="measure on all images of this folder alone, IMAGES/CLASS/IMAGE, of some of the run's classes, such as "
        "ImageNet-A or ImageNet-R; added to the results file as image_folders",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        help="for --images: JSON or YAML mapping, or CSV of two columns: a class folder's name, its class in the run",
    )
    parser.add_argument("--out", type=Path, help="results file; evaluation.json in RUN, or in the logits' folder")
    own, fields = parser.parse_known_args(arguments)
    _check_arguments(own)
    if own.corrupted is not None:
        fields = [*fields, "--eval.corrupted_dir", str(own.corrupted)]
    if own.save_logits:
        fields = [*fields, "--eval.save_logits", "true"]
    if own.run is not None:
        fields = ["--config", str(own.run / "config.yaml"), *fields]
    config = parse_config(fields, parser.prog, parser.description)
    out = own.out or (own.run or own.logits) / "evaluation.json"
    if own.images is not None:
        results = evaluate_images(own.run, config, own.images, own.classes)
        if int(os.environ.get("RANK", "0")) == 0:
            write_json(out, with_image_folders(out, results))
            console.print(f"written to {out}", soft_wrap=True)
        return 0
    if own.run is not None:
        results = evaluate_run(own.run, config)
    else:
        results = summarise_logits(own.logits, config.eval) | {"config": {"eval": plain(config.eval)}}
    if int(os.environ.get("RANK", "0")) == 0:
        write_json(out, results)
        print_results(results, title=str(own.run or own.logits))
        console.print(f"written to {out}", soft_wrap=True)
    return 0


def _check_arguments(own: argparse.Namespace) -> None:
    if own.classes is not None and own.images is None:
        raise InputError(f"classes: got {own.classes}; expected none without --images DIR, whose folders it explains.")
    alone = own.run is not None and own.corrupted is None and not own.save_logits
    if own.images is not None and not alone:
        raise InputError(f"images: got {own.images}; expected it with --run, without --corrupted and --save_logits.")


if __name__ == "__main__":
    run_command(main)
