"""python -m benchmarks.method_views: compare the views of methods with plain code's, and with the step's time.

    python -m benchmarks.method_views --methods prime augmix_no_jsd [--data_dir DIR] [--size 32] [--out FILE.json]

For each method, three things take turns in every round:

- `views`: everything that happens before the network: the views of a batch, and what the method's `prepare` makes of
  them;
- `plain`: the same kind of views by plain code (`RIVALS`), in this process, on PyTorch's threads;
- `step`: a whole training step with `--network`, views included, of a smaller batch.

Images/s count images, however many views a method makes of each. The share is the time of the views in that of the
step, image for image.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks.corrupt import load_test_images
from benchmarks.measure import console, seconds, spread, write_result
from fastmagn.config.command_line import OwnOptions, parse_config
from fastmagn.data import load_images, split_validation
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import keep_memory_on_cpu, settle_hardware
from fastmagn.registry import resolve
from fastmagn.training.build import build_run
from fastmagn.training.step import Run, make_pieces, prepared, train_step

# Plain code of a method's views: (images uint8 [B, 3, H, W], np.random.Generator) -> float32 [V*B, 3, H, W].
RIVALS = {
    "augmix": "benchmarks.per_image_augmix:augmix_views",
    "augmix_no_jsd": "benchmarks.per_image_augmix:augmix_no_jsd_views",
    "apr": "benchmarks.plain_spectra:apr_views",
    "hybridaugment": "benchmarks.plain_spectra:hybridaugment_views",
    "prime": "benchmarks.plain_prime:prime_views",
    "prime_no_jsd": "benchmarks.plain_prime:prime_no_jsd_views",
    "afa": "benchmarks.plain_afa:afa_views",
}
NUM_CLASSES = 10

PlainViews = Callable[[Tensor, np.random.Generator], Tensor]


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    options = _parse(arguments)
    measured = {method: measure(method, options) for method in options.methods}
    print_table(
        measured, f"views of {options.size} x {options.size} px on {options.device}, batches of {options.batch}"
    )
    if options.out:
        settings = {name: value for name, value in vars(options).items() if name not in ("data_dir", "out")}
        write_result(options.out, "method_views", settings, {"methods": measured}, torch.device(options.device))
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OwnOptions("python -m benchmarks.method_views", __doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=[*RIVALS], default=[*RIVALS], help="methods to measure")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="the run's device (default: cpu)")
    parser.add_argument("--size", type=int, default=32, help="side of the images in px (default: 32)")
    parser.add_argument("--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use digits)")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch (default: 128)")
    parser.add_argument("--step_batch", type=int, default=16, help="images in a step's batch (default: 16)")
    parser.add_argument("--network", default="resnet18", help="the step's network (default: resnet18)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender (default: 7)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    for name in ("size", "batch", "step_batch", "rounds"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    return options


def measure(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one method: images/s of `views`, `plain` and `step`, and their ratios in the same round."""
    run, small_run = (start(method, options, size) for size in (options.batch, options.step_batch))
    plain: PlainViews = resolve(RIVALS, method, "methods")
    rng, steps = np.random.default_rng(0), iter(range(2**31))
    batch, small_batch = (next(iter(each.source.batches(0))) for each in (run, small_run))
    images_u8 = batch.images.contiguous()
    contenders = {
        "views": (lambda: views_of(run, batch), options.batch),
        "plain": (lambda: plain(images_u8, rng), options.batch),
        "step": (
            lambda: train_step(small_run, make_pieces(small_run, small_batch, 0), next(steps)),
            options.step_batch,
        ),
    }
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds + 1):
        rounds.append({name: count / _synchronised(work, run) for name, (work, count) in contenders.items()})
    del rounds[0]  # it compiles kernels
    return {
        **{f"{name}_images_per_s": spread([turn[name] for turn in rounds]) for name in contenders},
        "ratio_to_plain": spread([turn["views"] / turn["plain"] for turn in rounds]),
        "share_of_step": spread([turn["step"] / turn["views"] for turn in rounds]),
    }


def start(method: str, options: argparse.Namespace, batch_size: int) -> Run:
    """A run of the method on images of the size, before its first step."""
    names = {"method": method, "device": options.device, "model.name": options.network, "train.compile": "false"}
    names |= {"train.batch_size": batch_size, "augment.horizontal_flip": "true", "augment.rotation_deg": 0}
    arguments = [part for name, value in names.items() for part in (f"--{name}", str(value))]
    config = settle_hardware(parse_config(arguments, "python -m benchmarks.method_views", ""))
    keep_memory_on_cpu(config.device)
    image_set = load_images("cifar10" if options.data_dir else "digits", options.data_dir or Path())
    images = load_test_images(options.data_dir, 2 * max(options.batch, options.step_batch), options.size)
    labels = np.arange(len(images)) % NUM_CLASSES
    image_set = dataclasses.replace(image_set, train_images_u8=images, train_labels=labels)
    return build_run(config, image_set, split_validation(image_set, 0, 0)[0])


def views_of(run: Run, batch: Any) -> Tensor:
    """What the network is given of a batch."""
    return prepared(run, make_pieces(run, batch, run.config.train.clean_epochs)[0])[0]


def _synchronised(work: Callable[[], object], run: Run) -> float:
    def finish() -> None:
        work()
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)

    return seconds(finish)


def print_table(measured: dict[str, dict[str, Any]], title: str) -> None:
    """Print a row for each method."""
    table = Table(title=title)
    for column in ("method", "images/s", "plain code", "ratio", "step", "share"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, row in measured.items():
        cells = [f"{row[f'{name}_images_per_s']['median']:,.0f}" for name in ("views", "plain")]
        ratio, share = row["ratio_to_plain"], row["share_of_step"]
        cells.append(f"{ratio['median']:,.1f} ({ratio['lowest']:,.1f}..{ratio['highest']:,.1f})")
        cells.append(f"{row['step_images_per_s']['median']:,.1f}")
        cells.append(f"{100 * share['median']:.2f} %")
        table.add_row(method, *cells)
    console.print(table)


if __name__ == "__main__":
    run_command(main)
