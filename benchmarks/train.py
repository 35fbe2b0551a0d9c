"""python -m benchmarks.train: time the real training step, its parts, its ceiling, and two rival loops.

    python -m benchmarks.train [--config configs/NAME.yaml] [--section.field value ...] [--steps N] [--out FILE.json]

- `ours` is the program's own step (`fastmagn.train`): data source, views, one fused forward pass, loss, backward pass
  and optimiser.
- `ceiling` is the same `train_step` on random views that are already on the device. No augmentation can be faster.
- `conventional` is the usual loop (`benchmarks.conventional`): DataLoader workers, Pillow's AugMix, eager mode, and one
  forward pass per view.
- `tight` is the strongest loop that an engineer would write by hand (`benchmarks.tight`): OpenCV's AugMix in
  DataLoader workers, one fused forward pass, channels last, the same precision and a fused optimiser. It runs if
  `opencv-python-headless` is installed and the images are arrays.

All of them take turns of a few steps, and so does a matrix product, whose speed is the device's peak: a drift of the
machine's speed affects all, and a ratio compares what was measured in the same turn. A rival's turn begins once it has
used up what its workers had ready, and the next turn once they have filled their queues. On a CPU the memory of a step
is kept, as the trainer does (`fastmagn.machine.memory`), for the rivals too. The parts are timed separately, with more
synchronisation than in the real step, so they need not sum to it.

With `--data folder`, the benchmark times only the supply of views from files (`benchmarks.folder`), without a network.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.conventional import conventional_step
from benchmarks.folder import measure_folder
from benchmarks.measure import console, seconds, spread, synchronise, wait_for_workers, write_result
from benchmarks.shards import measure_shards
from benchmarks.tight import has_opencv, tight_step
from fastmagn.augment.policies.recipe import has_recipe
from fastmagn.augment.views import choose_engine
from fastmagn.config.command_line import OwnOptions, parse_config, parse_own
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.data import FolderImages, ImageSet, load_data, split_validation
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import keep_memory_on_cpu, set_backends, settle_hardware
from fastmagn.models import Normalised, build_model
from fastmagn.training.build import build_run
from fastmagn.training.prefetch import made_ahead
from fastmagn.training.step import Piece, Run, make_pieces, prepared, train_step

CONVENTIONAL_METHODS = ("standard", "augmix", "magn", "magn_augmix")
QUEUED_BATCHES = 2  # of each worker: DataLoader's own prefetch_factor
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
    parser.add_argument("--conventional_steps", type=int, default=2, help="rounds of a rival's turn; 0: no rivals")
    parser.add_argument("--rival_turns", type=int, default=5, help="turns of the rivals, at most --turns (default: 5)")
    parser.add_argument("--workers", type=int, default=2, help="data-loading processes of a rival (default: 2)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--data", choices=["folder", "webdataset"], help="time only the views, from JPEGs it creates")
    parser.add_argument("--folder_images", type=int, default=256, help="number of JPEGs to create (default: 256)")
    parser.add_argument("--memory_steps", type=int, default=0, help="with --data: steps to check for a leak")
    options, fields = parse_own(parser, arguments)
    for name in ("steps", "turns", "rival_turns", "workers", "folder_images"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    config = settle_hardware(parse_config(fields, parser.prog, parser.description))
    device = torch.device(config.device)
    set_backends(device, config.train.deterministic, config.train.amp)
    keep_memory_on_cpu(config.device)
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
    rivals = {}
    if options.conventional_steps and config.method in CONVENTIONAL_METHODS:
        rivals = rival_loops(config, image_set, options.workers)
    rounds = Rounds(options.steps, options.turns, options.rival_turns, options.conventional_steps, options.workers)
    measured = measure_steps(run, rounds, rivals)
    print_tables(config, run, measured)
    if options.out:
        settings = rounds._asdict() | {"config": flatten(config)}
        write_result(options.out, "train", settings, measured, device)
    return 0


class Rounds(NamedTuple):
    """Steps of a turn, turns, turns with rivals, and what of them is counted: rounds of a step per worker."""

    steps: int
    turns: int
    rival_turns: int
    rival_rounds: int
    workers: int


def rival_loops(config: Config, image_set: ImageSet, workers: int) -> dict[str, Callable[[], None]]:
    """Return the rivals by their names: functions that train on the next batch, each a network of its own."""
    images, labels = image_set.train_images_u8, image_set.train_labels
    makers: dict[str, Callable[..., Callable[[], None]]] = {"conventional": conventional_step}
    if has_opencv() and not isinstance(images, FolderImages):
        makers["tight"] = tight_step

    def model() -> Normalised:
        built = build_model(
            config.model.name, num_classes=image_set.num_classes, mean=image_set.mean, std=image_set.std
        )
        return built.to(config.device).train()

    return {name: maker(config, model(), images, labels, workers) for name, maker in makers.items()}


def measure_steps(run: Run, rounds: Rounds, rivals: dict[str, Callable[[], None]]) -> dict[str, Any]:
    """Measure the real step, its ceiling and its rivals, as the module's docstring describes."""
    run.model.train()
    batches = endless_batches(run)
    epoch = run.config.train.clean_epochs  # the first of the method
    pieces = make_pieces(run, next(batches), epoch)
    ready = [piece._replace(views=torch.rand_like(piece.views)) for piece in pieces]
    ahead = made_ahead(batches, lambda batch: make_pieces(run, batch, epoch), tensors_of, run.device)
    for _ in range(3):  # compile; let cuDNN choose its algorithms
        train_step(run, next(ahead), 0)
        train_step(run, ready, 0)
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    ours_s, ceiling_s, peaks = [], [], []
    rivals_s: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds.turns):
        ours_s.append(timed(run, lambda: train_step(run, next(ahead), 0), rounds.steps) / rounds.steps)
        peaks.append(peak_flops(run))
        ceiling_s.append(timed(run, lambda: train_step(run, ready, 0), rounds.steps) / rounds.steps)
        for name, rival_step in rivals.items() if turn < rounds.rival_turns else ():
            rivals_s[name].append(rival_step_s(run, rival_step, rounds))
    batch_size = run.config.train.batch_size
    step = spread(ours_s)
    flops = step_flops(run, ready)
    measured = {
        "step_s": step,
        "ceiling_step_s": spread(ceiling_s),
        "over_ceiling_pct": spread([100 * (a / b - 1) for a, b in zip(ours_s, ceiling_s, strict=True)]),
        "images_per_s": batch_size / step["median"],
        "views_per_s": batch_size * run.main_stage.method.layout(run.config.augment).num_views / step["median"],
        "parts_ms": parts_ms(run, batches, rounds.steps * rounds.turns),
        "step_gflop": flops / 1e9,
        "gflop_per_s": flops / step["median"] / 1e9,
        "peak_gflop_per_s": spread([peak / 1e9 for peak in peaks]),
        "share_of_peak_pct": spread([100 * flops / a / peak for a, peak in zip(ours_s, peaks, strict=True)]),
    }
    for name, values in rivals_s.items():
        measured[f"{name}_step_s"] = spread(values)
        measured[f"ratio_to_{name}"] = spread([rival / a for rival, a in zip(values, ours_s, strict=False)])
    if run.device.type == "cuda":
        measured["peak_memory_mib"] = torch.cuda.max_memory_allocated(run.device) / 2**20
    return measured


def rival_step_s(run: Run, step: Callable[[], None], rounds: Rounds) -> float:
    """Return the mean seconds of a rival's steps, and wait until its workers rest.

    First it uses up what they have ready. They finish their batches together, so one step waits for all of them and
    the next ones do not wait: as many steps as workers are a round.
    """
    for _ in range(QUEUED_BATCHES * rounds.workers):
        step()
    count = rounds.rival_rounds * rounds.workers
    elapsed = timed(run, step, count) / count
    wait_for_workers()
    return elapsed


def tensors_of(pieces: list[Piece]) -> list[torch.Tensor]:
    return [tensor for piece in pieces for tensor in piece.tensors()]


def endless_batches(run: Run) -> Iterator[Any]:
    """The batches of one epoch after another."""
    epoch = 0
    while True:
        yield from run.source.batches(epoch)
        epoch += 1


def timed(run: Run, work: Callable[[], object], times: int) -> float:
    synchronise(run.device)

    def all_of_it() -> None:
        for _ in range(times):
            work()
        synchronise(run.device)

    return seconds(all_of_it)


def parts_ms(run: Run, batches: Iterator[Any], steps: int) -> dict[str, dict[str, float]]:
    """Time a step's parts in ms, synchronised after each.

    They are: batch, views, what the method's `prepare` does, forward and loss, backward, optimiser.
    """
    spent: dict[str, list[float]] = {}

    def clock(name: str, work: Callable[[], Any]) -> Any:
        synchronise(run.device)
        start = time.perf_counter()
        result = work()
        synchronise(run.device)
        spent.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        return result

    def backward(loss: torch.Tensor) -> None:
        run.scaler.scale(loss).backward()

    for _ in range(steps):
        batch = clock("batch", lambda: next(batches))
        pieces = clock("views", partial(make_pieces, run, batch, run.config.train.clean_epochs))
        for piece in pieces:
            inputs = clock("prepare", partial(prepared, run, piece))
            loss, _ = clock("forward", partial(run.main_stage.forward_loss, *inputs))
            clock("backward", partial(backward, loss))
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
    for name in ("ours", "ceiling", "conventional", "tight"):
        key = "step_s" if name == "ours" else f"{name}_step_s"
        if key in measured:
            step = measured[key]["median"]
            rate = batch_size / step
            table.add_row(name, f"{1000 * step:.1f}", f"{rate:,.0f}", f"{rate * num_views:,.0f}", f"{step / ours:.3f}")
    console.print(table)
    for name in ("conventional", "tight"):
        if ratio := measured.get(f"ratio_to_{name}"):
            console.print(f"{name}: {_range(ratio, 2)} times ours in the same turn")
    console.print(f"over the ceiling, %: {_range(measured['over_ceiling_pct'], 1)}")
    parts = "  ".join(f"{name} {value['median']:.1f}" for name, value in measured["parts_ms"].items())
    console.print(f"parts, ms: {parts}", soft_wrap=True)
    console.print(
        f"{measured['gflop_per_s']:,.0f} Gflop/s, {_range(measured['share_of_peak_pct'], 0)} % of a matrix product's "
        f"{measured['peak_gflop_per_s']['median']:,.0f} Gflop/s"
    )
    if "peak_memory_mib" in measured:
        console.print(f"peak memory {measured['peak_memory_mib']:,.0f} MiB")


def _range(values: dict[str, float], digits: int) -> str:
    median, lowest, highest = (f"{values[name]:.{digits}f}" for name in ("median", "lowest", "highest"))
    return f"{median} ({lowest}..{highest})"


if __name__ == "__main__":
    run_command(main)
