"""python -m benchmarks.evaluate: compare the 96-cell evaluation with its bare forward passes and with others' loops.

    python -m benchmarks.evaluate [--model resnet18 | --run RUN] [--num_images N] [--corrupted DIR] [--out FILE.json]

The evaluation is the program's own, `fastmagn.evaluation.measure.evaluate`, on a stored -C set: it maps the files,
copies uint8 images to the device, runs the forward passes and computes all measures. The contenders take turns, so a
drift of the machine's speed affects all:

- `bare passes`: `model(images)` on equally many of the same batches, which are already floats on the device.
- `evaluate`, and with `eval.forward fast` and in float32.
- The loops of `evaluate_rivals`, which compute accuracies in float32 and nothing else.

In float32 the accuracies of the evaluation and of the loops must be the same, or this fails. How much the accuracies of
a cell differ at most is also said of the others: that means something with `--run` only, as a new network's logits are
close to each other. On a CPU, the time inside the model is also taken during each evaluation: the time outside it is
the overhead, which no drift can blur.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import nn

from benchmarks.evaluate_rivals import RIVALS, Accuracies, StoredImages, largest_difference
from benchmarks.measure import console, seconds, spread, write_result
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, TrainConfig
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES
from fastmagn.data import ImageSet, load_images
from fastmagn.errors import check
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set
from fastmagn.evaluation.fast_forward import model_to_forward
from fastmagn.evaluation.measure import evaluate
from fastmagn.evaluation.trained import load_run
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import keep_memory_on_cpu, precision, settle_hardware
from fastmagn.models import MODELS, build_model

BARE, EVALUATE, IN_FLOAT32 = "bare passes", "evaluate", "evaluate, float32"
NUM_CELLS = 1 + len(CORRUPTION_SETS["c19"]) * len(SEVERITIES)


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    for name in ("batch_size", "repeats"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    check(options.num_images >= 0, "num_images", options.num_images, "0 (all) or more")
    if options.corrupted is not None:
        _benchmark(options, options.corrupted)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        wanted = CorruptConfig(
            out=made, dataset=options.dataset, data_dir=options.data_dir, num_images=options.num_images
        )
        make_corrupted_set(wanted)
        _benchmark(options, made)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OwnOptions("python -m benchmarks.evaluate", __doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet_small", choices=MODELS, help="network (default: resnet_small)")
    parser.add_argument("--run", type=Path, help="folder of a run, whose trained network is measured instead")
    parser.add_argument("--dataset", default="digits", help="image set (default: digits)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of a CIFAR set (default: data)")
    parser.add_argument("--corrupted", type=Path, help="folder of its -C set (default: made in a temporary folder)")
    parser.add_argument("--num_images", type=int, default=0, help="use the first N test images, 0 for all (default: 0)")
    parser.add_argument("--batch_size", type=int, default=1000, help="images per forward pass (default: 1000)")
    parser.add_argument("--amp", default="auto", choices=["auto", "bf16", "float32"], help="precision (default: auto)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="device (default: auto)")
    names = [*OURS, *RIVALS]
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, help="contenders (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of each (default: 5)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser


def _benchmark(options: argparse.Namespace, corrupted: Path) -> None:
    settled = settle_hardware(Config(device=options.device, train=TrainConfig(amp=options.amp)))
    device, amp = torch.device(settled.device), settled.train.amp
    keep_memory_on_cpu(settled.device)
    image_set = load_images(options.dataset, options.data_dir)
    num_images = options.num_images or len(image_set.test_labels)
    images = StoredImages(image_set.test_images_u8[:num_images], image_set.test_labels[:num_images], corrupted)
    model = _model(options, image_set, device)
    config = EvalConfig(corrupted_dir=corrupted, num_images=num_images, batch_size=options.batch_size)
    contenders = {name: ours(model, images, config, amp, device) for name, ours in OURS.items()}
    contenders |= {name: partial(rival, images, model, options.batch_size) for name, rival in RIVALS.items()}
    contenders = {name: contenders[name] for name in options.contenders}
    found = {name: work() for name, work in contenders.items()}  # to warm up, too
    differences = _check_accuracies(found, num_images)
    turns = []
    for _ in range(options.repeats):
        turn = {}
        for name, work in contenders.items():
            with _clock(model) as inside:
                turn[name] = Turn(seconds(work), sum(inside))
        turns.append(turn)
    settings = {
        **{"model": str(options.run or options.model), "dataset": options.dataset, "num_images": num_images},
        **{"num_cells": NUM_CELLS, "batch_size": options.batch_size, "amp": amp, "device": device.type},
        "repeats": options.repeats,
    }
    _report(turns, differences, settings, device, options.out)


def _model(options: argparse.Namespace, image_set: ImageSet, device: torch.device) -> nn.Module:
    """The trained network of a run, or a new one, in evaluation mode, channels last."""
    if options.run is not None:
        return load_run(options.run, image_set=image_set, device=device).network
    model = build_model(options.model, num_classes=image_set.num_classes, mean=image_set.mean, std=image_set.std)
    return model.to(device, memory_format=torch.channels_last).eval()


def _bare(
    model: nn.Module, images: StoredImages, config: EvalConfig, amp: str, device: torch.device
) -> Callable[[], Accuracies]:
    rows = torch.from_numpy(images.images_u8).to(device)
    batches = [chunk.permute(0, 3, 1, 2).float().div_(255) for chunk in rows.split(config.batch_size)]

    @torch.inference_mode()
    def bare() -> Accuracies:
        for _ in range(NUM_CELLS):
            for batch in batches:
                with precision(device, amp):
                    logits = model(batch)
        logits.sum().item()  # waits for the device
        return {}

    return bare


def _evaluate(
    model: nn.Module, images: StoredImages, config: EvalConfig, amp: str, device: torch.device, forward: str = "exact"
) -> Callable[[], Accuracies]:
    measured, _ = model_to_forward(model, forward, amp, device, images.images_u8.shape[1:3])

    def ours() -> Accuracies:
        results = evaluate(measured, images.images_u8, images.labels, config, device=device, amp=amp)
        return results["corruption_accuracy"] | {"clean": [results["clean_accuracy"]]}

    return ours


OURS: dict[str, Callable[..., Callable[[], Accuracies]]] = {
    BARE: _bare,
    EVALUATE: _evaluate,
    "evaluate, fast": partial(_evaluate, forward="fast"),
    IN_FLOAT32: lambda model, images, config, amp, device: _evaluate(model, images, config, "float32", device),
}


def _check_accuracies(found: dict[str, Accuracies], num_images: int) -> dict[str, float]:
    """How much the accuracies of a cell differ at most from those of our evaluation in float32, by contender.

    The loops' must be the same but for one image, whose two largest logits may be the same but for rounding.
    """
    if IN_FLOAT32 not in found:
        return {}
    differences = {name: largest_difference(cells, found[IN_FLOAT32]) for name, cells in found.items() if cells}
    for name in RIVALS:
        assert differences.get(name, 0) <= 1.01 / num_images, f"{name}: its accuracies are others"
    return differences


class Turn(NamedTuple):
    """Seconds that a contender takes, and that it spends in the model."""

    total_s: float
    forward_s: float


@contextmanager
def _clock(model: nn.Module) -> Iterator[list[float]]:
    """Collect how long each forward pass takes to return, in seconds; on a CPU this is the whole pass."""
    started: list[float] = []
    spent: list[float] = []
    before = model.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))
    after = model.register_forward_hook(lambda *_: spent.append(time.perf_counter() - started.pop()))
    try:
        yield spent
    finally:
        before.remove()
        after.remove()


def _report(
    turns: list[dict[str, Turn]],
    differences: dict[str, float],
    settings: dict[str, Any],
    device: torch.device,
    out: Path | None,
) -> None:
    images = settings["num_cells"] * settings["num_images"]
    contenders: dict[str, dict[str, Any]] = {}
    reference = EVALUATE if EVALUATE in turns[0] else next(iter(turns[0]))
    for name in turns[0]:
        total = spread([turn[name].total_s for turn in turns])
        contenders[name] = {
            "s": total,
            "images_per_s": images / total["median"],
            "times_of_evaluate": spread([turn[name].total_s / turn[reference].total_s for turn in turns]),
        }
        if name in differences:
            contenders[name]["largest_accuracy_difference"] = differences[name]
    measured: dict[str, Any] = {"contenders": contenders}
    if {BARE, EVALUATE} <= turns[0].keys():
        measured["overhead_pct"] = spread([100 * (turn[EVALUATE].total_s / turn[BARE].total_s - 1) for turn in turns])
    if EVALUATE in turns[0] and settings["device"] == "cpu":
        outside = [100 * (turn[EVALUATE].total_s / turn[EVALUATE].forward_s - 1) for turn in turns]
        measured["outside_model_pct"] = spread(outside)
    _print(measured, settings)
    if out is not None:
        write_result(out, "evaluate", settings, measured, device)


def _print(measured: dict[str, Any], settings: dict[str, Any]) -> None:
    table = Table(title=f"{settings['model']}, {settings['num_cells']} x {settings['num_images']} images")
    for column in ("", "s", "times evaluate's", "lowest..highest", "images/s"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in measured["contenders"].items():
        ratio = row["times_of_evaluate"]
        spread_text = f"{ratio['lowest']:.2f}..{ratio['highest']:.2f}"
        table.add_row(
            name, f"{row['s']['median']:.2f}", f"{ratio['median']:.2f}", spread_text, f"{row['images_per_s']:,.0f}"
        )
    console.print(table)
    for name in ("overhead_pct", "outside_model_pct"):
        if name in measured:
            value = measured[name]
            what = name.removesuffix("_pct").replace("_", " ")
            console.print(f"{what} {value['median']:.1f} % ({value['lowest']:.1f}..{value['highest']:.1f})")


if __name__ == "__main__":
    run_command(main)
