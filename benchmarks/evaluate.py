"""python -m benchmarks.evaluate: measure what the 96-cell evaluation costs beyond the model's bare forward passes.

    python -m benchmarks.evaluate [--model resnet18] [--num_images N] [--corrupted DIR] [--out FILE.json] ...

The evaluation is the program's own, `fastmagn.evaluation.measure.evaluate`, on a stored -C set: it maps the files,
copies uint8 images to the device, runs the forward passes and computes all measures. The bare passes are
`model(images)` on equally many of the same batches, which are already floats on the device. The two alternate, so a
drift of the machine's speed affects both. On a CPU, the time inside the model is also taken during each evaluation: the
time outside it is the overhead, which no drift can blur.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import nn

from benchmarks.measure import console, repeated, seconds, spread, write_result
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, TrainConfig
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES
from fastmagn.data import load_images
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set
from fastmagn.evaluation.measure import evaluate
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import keep_memory_on_cpu, precision, settle_hardware
from fastmagn.models import MODELS, build_model


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
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
    parser.add_argument("--dataset", default="digits", help="image set (default: digits)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of a CIFAR set (default: data)")
    parser.add_argument("--corrupted", type=Path, help="folder of its -C set (default: made in a temporary folder)")
    parser.add_argument("--num_images", type=int, default=0, help="use the first N test images, 0 for all (default: 0)")
    parser.add_argument("--batch_size", type=int, default=1000, help="images per forward pass (default: 1000)")
    parser.add_argument("--amp", default="auto", choices=["auto", "bf16", "float32"], help="precision (default: auto)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="device (default: auto)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of both (default: 5)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser


def _benchmark(options: argparse.Namespace, corrupted: Path) -> None:
    settled = settle_hardware(Config(device=options.device, train=TrainConfig(amp=options.amp)))
    device, amp = torch.device(settled.device), settled.train.amp
    keep_memory_on_cpu(settled.device)
    image_set = load_images(options.dataset, options.data_dir)
    model = build_model(options.model, num_classes=image_set.num_classes, mean=image_set.mean, std=image_set.std)
    model.to(device, memory_format=torch.channels_last).eval()
    num_images = options.num_images or len(image_set.test_labels)
    config = EvalConfig(corrupted_dir=corrupted, num_images=num_images, batch_size=options.batch_size)
    num_cells = 1 + len(CORRUPTION_SETS["c19"]) * len(SEVERITIES)
    rows = torch.from_numpy(image_set.test_images_u8[:num_images]).to(device)
    batches = [chunk.permute(0, 3, 1, 2).float().div_(255) for chunk in rows.split(options.batch_size)]

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(num_cells):
            for images in batches:
                with precision(device, amp):
                    logits = model(images)
        logits.sum().item()  # waits for the device

    def ours() -> None:
        evaluate(model, image_set.test_images_u8, image_set.test_labels, config, device=device, amp=amp)

    repeated(bare, 1)
    repeated(ours, 1)
    runs = []
    for _ in range(options.repeats):
        bare_s = seconds(bare)
        with _clock(model) as inside:
            ours_s = seconds(ours)
        runs.append(Run(bare_s, ours_s, sum(inside)))
    settings = {
        **{"model": options.model, "dataset": options.dataset, "num_images": num_images, "num_cells": num_cells},
        **{"batch_size": options.batch_size, "amp": amp, "device": device.type, "repeats": options.repeats},
    }
    _report(runs, settings, device, options.out)


class Run(NamedTuple):
    """Seconds that the bare passes take, that the evaluation takes, and that the evaluation spends in the model."""

    bare_s: float
    evaluate_s: float
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


def _report(runs: list[Run], settings: dict[str, Any], device: torch.device, out: Path | None) -> None:
    images = settings["num_cells"] * settings["num_images"]
    measured = {
        "bare_s": spread([run.bare_s for run in runs]),
        "evaluate_s": spread([run.evaluate_s for run in runs]),
        "evaluate_images_per_s": images / spread([run.evaluate_s for run in runs])["median"],
        "overhead_pct": spread([100 * (run.evaluate_s / run.bare_s - 1) for run in runs]),
    }
    if settings["device"] == "cpu":
        measured["outside_model_pct"] = spread([100 * (run.evaluate_s / run.forward_s - 1) for run in runs])
    table = Table(title=f"{settings['model']}, {settings['num_cells']} x {settings['num_images']} images")
    for column in ("", "median", "lowest", "highest"):
        table.add_column(column, justify="right")
    for name in sorted(measured.keys() - {"evaluate_images_per_s"}):
        what, unit = name.rsplit("_", 1)
        table.add_row(f"{what.replace('_', ' ')}, {unit}", *(f"{value:.2f}" for value in measured[name].values()))
    console.print(table)
    if out is not None:
        write_result(out, "evaluate", settings, measured, device)


if __name__ == "__main__":
    run_command(main)
