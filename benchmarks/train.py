"""python -m benchmarks.train: time the real training step, its parts, its ceiling and the usual loop.

    python -m benchmarks.train [--config configs/NAME.yaml] [--section.field value ...] [--steps N] [--out FILE.json]

- `ours` is the program's own step (`fastmagn.train`): data source, views, one fused forward pass, loss, backward pass
  and optimiser.
- `ceiling` is the same `train_step` on random views that are already on the device. No augmentation can be faster.
- `conventional` is the usual loop (`benchmarks.conventional`): DataLoader workers, Pillow's AugMix, eager mode, and one
  forward pass per view.

`ours` and `ceiling` take turns of a few steps, so a drift of the machine's speed affects both; a ratio compares one
pair of turns. The parts are timed separately, with more synchronisation than in the real step, so they need not sum to
it.

With `--data folder`, the benchmark times only the supply of views from files (`benchmarks.folder`), without a network.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.conventional import conventional_steps
from benchmarks.folder import measure_folder
from benchmarks.measure import console, seconds, spread, write_result
from benchmarks.shards import measure_shards
from fastmagn.augment.policies.recipe import has_recipe
from fastmagn.augment.views import choose_engine
from fastmagn.config.command_line import OwnOptions, parse_config, parse_own
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.data import load_data, split_validation
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import set_backends, settle_hardware
from fastmagn.models import build_model
from fastmagn.training.build import build_run
from fastmagn.training.prefetch import made_ahead
from fastmagn.training.step import Piece, Run, make_pieces, prepared, train_step

CONVENTIONAL_METHODS = ("standard", "augmix", "magn", "magn_augmix")
PEAK_SIDE = {"cpu": 1024, "cuda": 8192}  # side of the matrices whose product measures the device's peak


def main(arguments: list[str]) -> int:
    """Measure, print the tables, and write the JSON if requested."""
    parser = OwnOptions(
        "python -m benchmarks.train",
        __doc__.splitlines()[0],
        "Any field of the configuration may follow; python -m fastmagn.train --help_all lists them.",
    )
    parser.add_argument("--steps", type=int, default=5, help="steps per turn (default: 5)")
    parser.add_argument("--turns", type=int, default=7, help="turns of ours and of the ceiling (default: 7)")
    parser.add_argument("--conventional_steps", type=int, default=4, help="rounds of the usual loop; 0 leaves it out")
    parser.add_argument("--workers", type=int, default=2, help="data-loading processes of the usual loop (default: 2)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--data", choices=["folder", "webdataset"], help="time only the views, from JPEGs it creates")
    parser.add_argument("--folder_images", type=int, default=256, help="number of JPEGs to create (default: 256)")
    parser.add_argument("--memory_steps", type=int, default=0, help="with --data: steps to check for a leak")
    options, fields = parse_own(parser, arguments)
    for name in ("steps", "turns", "workers", "folder_images"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    config = settle_hardware(parse_config(fields, parser.prog, parser.description))
    device = torch.device(config.device)
    set_backends(device, config.train.deterministic, config.train.amp)
    if options.data is not None:
        batch_size = config.train.batch_size
        enough = options.folder_images >= batch_size
        check(enough, "folder_images", options.folder_images, f"train.batch_size, {batch_size}, or more")
        measured = (measure_folder if options.data == "folder" else measure_shards)(config, options)
        if options.out:
            names = ("turns", "workers", "folder_images", "memory_steps")
            settings = {name: getattr(options, name) for name in names} | {"config": flatten(config)}
            write_result(options.out, "train", settings, measured, device)
        return 0
    image_set = load_data(config.data)
    run = build_run(config, image_set, split_validation(image_set, 0, config.train.seed)[0])
    measured = measure_steps(run, options.steps, options.turns)
    if options.conventional_steps and config.method in CONVENTIONAL_METHODS:
        model = build_model(
            config.model.name, num_classes=image_set.num_classes, mean=image_set.mean, std=image_set.std
        ).to(device)
        steps = conventional_steps(
            config, model, image_set.train_images_u8, image_set.train_labels, options.workers, device
        )
        step_s = time_conventional(steps, options.conventional_steps, options.workers)
        measured["conventional_step_s"] = spread(step_s)
        measured["ratio_to_conventional"] = measured["conventional_step_s"]["median"] / measured["step_s"]["median"]
    print_tables(config, run, measured)
    if options.out:
        settings = {
            "steps": options.steps,
            "turns": options.turns,
            "workers": options.workers,
            "config": flatten(config),
        }
        write_result(options.out, "train", settings, measured, device)
    return 0


def measure_steps(run: Run, steps: int, turns: int) -> dict[str, Any]:
    """Measure the real step and its ceiling, as the module's docstring describes."""
    run.model.train()
    batches = endless_batches(run)
    pieces = make_pieces(run, next(batches), 0)
    ready = [piece._replace(views=torch.rand_like(piece.views)) for piece in pieces]
    ahead = made_ahead(batches, lambda batch: make_pieces(run, batch, 0), tensors_of, run.device)
    for _ in range(3):  # compile; let cuDNN choose its algorithms
        train_step(run, next(ahead), 0)
        train_step(run, ready, 0)
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    ours_s, ceiling_s = [], []
    for _ in range(turns):
        ours_s.append(timed(run, lambda: train_step(run, next(ahead), 0), steps) / steps)
        ceiling_s.append(timed(run, lambda: train_step(run, ready, 0), steps) / steps)
    batch_size = run.config.train.batch_size
    step = spread(ours_s)
    flops = step_flops(run, ready)
    peak = peak_flops(run)
    measured = {
        "step_s": step,
        "ceiling_step_s": spread(ceiling_s),
        "over_ceiling_pct": spread([100 * (a / b - 1) for a, b in zip(ours_s, ceiling_s, strict=True)]),
        "images_per_s": batch_size / step["median"],
        "views_per_s": batch_size * run.main_stage.method.layout(run.config.augment).num_views / step["median"],
        "parts_ms": parts_ms(run, batches, steps * turns),
        "step_gflop": flops / 1e9,
        "gflop_per_s": flops / step["median"] / 1e9,
        "peak_gflop_per_s": peak / 1e9,
        "share_of_peak_pct": 100 * flops / step["median"] / peak,
    }
    if run.device.type == "cuda":
        measured["peak_memory_mib"] = torch.cuda.max_memory_allocated(run.device) / 2**20
    return measured


def tensors_of(pieces: list[Piece]) -> list[torch.Tensor]:
    return [tensor for piece in pieces for tensor in piece.tensors()]


def endless_batches(run: Run) -> Iterator[Any]:
    """The batches of one epoch after another."""
    epoch = 0
    while True:
        yield from run.source.batches(epoch)
        epoch += 1


def _synchronise(run: Run) -> None:
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)


def timed(run: Run, work: Callable[[], object], times: int) -> float:
    _synchronise(run)

    def all_of_it() -> None:
        for _ in range(times):
            work()
        _synchronise(run)

    return seconds(all_of_it)


def parts_ms(run: Run, batches: Iterator[Any], steps: int) -> dict[str, dict[str, float]]:
    """Time a step's parts in ms, synchronised after each.

    They are: batch, views, what the method's `prepare` does, forward and loss, backward, optimiser.
    """
    spent: dict[str, list[float]] = {}

    def clock(name: str, work: Callable[[], Any]) -> Any:
        _synchronise(run)
        start = time.perf_counter()
        result = work()
        _synchronise(run)
        spent.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        return result

    for _ in range(steps):
        batch = clock("batch", lambda: next(batches))
        pieces = clock("views", lambda batch=batch: make_pieces(run, batch, 0))
        for piece in pieces:
            inputs = clock("prepare", lambda piece=piece: prepared(run, piece))
            loss, _ = clock("forward", lambda inputs=inputs: run.main_stage.forward_loss(*inputs))
            clock("backward", lambda loss=loss: run.scaler.scale(loss).backward())
        clock("optimizer", lambda: run.scaler.step(run.optimizer))
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
    return {name: spread(values) for name, values in spent.items()}


def step_flops(run: Run, ready: list[Piece]) -> float:
    """Count a step's floating-point operations, forward and backward: matrix products and convolutions only."""
    forwarded = [prepared(run, piece)[0] for piece in ready]
    with FlopCounterMode(display=False) as counter:
        for views in forwarded:
            logits = run.model(views)
            logits.sum().backward()
    run.optimizer.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def peak_flops(run: Run) -> float:
    """Measure the best rate of a large matrix product, in the step's precision; floating-point operations/s."""
    side = PEAK_SIDE[run.device.type]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(run.config.train.amp, torch.float32)
    first, second = (torch.randn(side, side, device=run.device, dtype=dtype) for _ in range(2))
    torch.mm(first, second)
    best = min(timed(run, lambda: torch.mm(first, second), 10) / 10 for _ in range(5))
    return 2 * side**3 / best


def time_conventional(steps: Iterator[Callable[[], None]], count: int, workers: int) -> list[float]:
    """Return `count` times of a step in seconds, after as many that fill the workers' queues and are not counted.

    Each time is the mean over as many steps as there are workers. The workers finish their batches together, so one
    step waits for all of them and the next ones do not wait.
    """
    measured = []
    for number in range(2 * count):
        elapsed = fmean(seconds(step) for step in itertools.islice(steps, workers))
        if number >= count:
            measured.append(elapsed)
    return measured


def print_tables(config: Config, run: Run, measured: dict[str, Any]) -> None:
    """Print the step next to its ceiling and the usual loop, then its parts."""
    batch_size = config.train.batch_size
    num_views = run.main_stage.method.layout(config.augment).num_views
    augment = run.main_stage.augment
    engine = choose_engine(augment.backend, run.device, has_recipe(augment))
    table = Table(title=f"{config.method}, {config.model.name}, {batch_size} images in {num_views} views, {engine}")
    for column in ("", "ms/step", "images/s", "views/s", "times ours"):
        table.add_column(column, justify="left" if not column else "right")
    ours = measured["step_s"]["median"]
    for name, key in (("ours", "step_s"), ("ceiling", "ceiling_step_s"), ("conventional", "conventional_step_s")):
        if key in measured:
            step = measured[key]["median"]
            rate = batch_size / step
            table.add_row(name, f"{1000 * step:.1f}", f"{rate:,.0f}", f"{rate * num_views:,.0f}", f"{step / ours:.3f}")
    console.print(table)
    over = measured["over_ceiling_pct"]
    console.print(f"over the ceiling: {over['median']:.1f} % ({over['lowest']:.1f}..{over['highest']:.1f})")
    parts = "  ".join(f"{name} {value['median']:.1f}" for name, value in measured["parts_ms"].items())
    console.print(f"parts, ms: {parts}", soft_wrap=True)
    console.print(
        f"{measured['gflop_per_s']:,.0f} Gflop/s, {measured['share_of_peak_pct']:.0f} % of a matrix product's "
        f"{measured['peak_gflop_per_s']:,.0f} Gflop/s"
    )
    if "peak_memory_mib" in measured:
        console.print(f"peak memory {measured['peak_memory_mib']:,.0f} MiB")


if __name__ == "__main__":
    run_command(main)
