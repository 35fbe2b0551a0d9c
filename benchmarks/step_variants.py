"""python -m benchmarks.step_variants: what makes a training step on a CPU faster, and what does not.

    python -m benchmarks.step_variants [--variants NAME ...] [--steps 10] [--turns 5] [--out FILE.json]
        [--section.field value ...]

Each variant changes one thing of the trainer's own step (`VARIANTS`), and is a process of its own: the memory that a
process keeps, and how OpenMP's threads wait, cannot be changed later. All processes are started and warmed up first.
Then they take turns of `--steps` real steps, while the others wait for a line of input; a ratio compares a variant with
`as_it_is` in the same turn. Without `--variants`, all are measured, a few at a time (`--together`), each group beside
`as_it_is` again, so that memory suffices. Each row of the JSON has the time of the `as_it_is` that it took turns with.

Besides the time of a step, the table has its page faults, the resident memory after a turn, the seconds until the first
step has ended (which compile), and the largest relative difference of the loss from that of `as_it_is` over the steps
of the first turn: 0 means equal to the bit. The JSON also has the system's time in a step and the peak of the memory.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from rich import box
from rich.table import Table

from benchmarks.measure import console, device_of_runs, resident_mib, spread, write_result
from benchmarks.train import endless_batches, timed
from fastmagn.config.command_line import OwnOptions, parse_config, parse_own
from fastmagn.data import load_data, split_validation
from fastmagn.errors import InputError, check
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import keep_memory_on_cpu, set_backends, settle_hardware
from fastmagn.training.build import build_run
from fastmagn.training.step import ForwardLoss, Run, make_pieces, train_step

BASE = "as_it_is"
WARM_UP_STEPS = 3
_CHILD = (
    "from benchmarks.step_variants import serve; from fastmagn.machine.command import run_command; run_command(serve)"
)


class Variant(NamedTuple):
    """One change of the step: of fields, of the process's environment, or of the run before its first step."""

    what: str
    fields: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    change: Callable[[Run], None] | None = None


def _compiled_with(**options: Any) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        forward_loss = run.main_stage.forward_loss
        assert isinstance(forward_loss, ForwardLoss)
        forward_loss.compile(fullgraph=True, dynamic=False, options=options)

    return change


def _optimizer_with(**options: bool) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        for group in run.optimizer.param_groups:
            group.update({"fused": False, "foreach": False, **options})

    return change


def _keep_gradients(run: Run) -> None:
    zero = type(run.optimizer).zero_grad
    run.optimizer.zero_grad = lambda set_to_none=True: zero(run.optimizer, set_to_none=False)  # type: ignore[method-assign]


def _with_bf16_weights(run: Run) -> None:
    run.model.bfloat16()
    run.optimizer.state.clear()  # momentum of the first step's dtype


VARIANTS = {
    BASE: Variant("eager, bf16, channels last, all cores, fused SGD, freed memory kept"),
    # A choice of the user's, which is left alone: glibc's default of another setting.
    "memory_given_back": Variant("glibc gives freed memory back", environment={"MALLOC_PERTURB_": "0"}),
    "compiled": Variant("train.compile true", ("--train.compile", "true")),
    "compiled_simd_256": Variant("compiled for vectors of 256 bits", change=_compiled_with(**{"cpp.simdlen": 256})),
    "compiled_max_autotune": Variant("compiled, max_autotune", change=_compiled_with(max_autotune=True)),
    "compiled_no_layouts": Variant("compiled, as the layouts are", change=_compiled_with(layout_optimization=False)),
    "channels_first": Variant("train.channels_last false", ("--train.channels_last", "false")),
    "float32": Variant("train.amp float32", ("--train.amp", "float32")),
    "one_thread": Variant("OMP_NUM_THREADS=1", environment={"OMP_NUM_THREADS": "1"}),
    "one_interop_thread": Variant("one inter-op thread", change=lambda run: torch.set_num_interop_threads(1)),
    "bound_threads": Variant("OMP_PROC_BIND=true", environment={"OMP_PROC_BIND": "true"}),
    "large_pages": Variant("THP_MEM_ALLOC_ENABLE=1", environment={"THP_MEM_ALLOC_ENABLE": "1"}),
    "sgd_foreach": Variant("foreach SGD", change=_optimizer_with(foreach=True)),
    "sgd_each": Variant("SGD, one parameter after another", change=_optimizer_with()),
    "gradients_kept": Variant("zero_grad(set_to_none=False)", change=_keep_gradients),
    "weights_bf16": Variant("weights and statistics in bf16: no casts, but other results", change=_with_bf16_weights),
    "batch_128": Variant("batches of 128 images", ("--train.batch_size", "128")),
    "batch_512": Variant("batches of 512 images", ("--train.batch_size", "512")),
}


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    parser = OwnOptions(
        "python -m benchmarks.step_variants",
        __doc__.splitlines()[0],
        "Any field of the configuration may follow; python -m fastmagn.train --help_all lists them.",
    )
    parser.add_argument(
        "--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], help="variants (default: all)"
    )
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn (default: 10)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each variant (default: 5)")
    parser.add_argument("--together", type=int, default=6, help="variants beside as_it_is at a time (default: 6)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options, fields = parse_own(parser, arguments)
    for name in ("steps", "turns", "together"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    device = device_of_runs(fields)
    check(device.type == "cpu", "device", device.type, "cpu")
    measured: dict[str, Any] = {}
    others = [name for name in options.variants if name != BASE]
    for first in range(0, len(others), options.together):
        group = others[first : first + options.together]
        rows = measure((BASE, *group), options.steps, options.turns, fields)
        measured = {**measured, **{name: row for name, row in rows.items() if name not in measured}}
        print_table(rows)
        if options.out:
            settings = {"steps": options.steps, "turns": options.turns, "arguments": fields}
            write_result(options.out, "step_variants", settings, {"variants": measured}, device)
    return 0


def measure(names: tuple[str, ...], steps: int, turns: int, fields: list[str]) -> dict[str, dict[str, Any]]:
    """Return a row for each variant; all of them take turns.

    Raises:
        InputError: A variant's process failed.
    """
    with processes(names, fields) as running:
        first, warm = ({name: ask(process, n) for name, process in running.items()} for n in (1, WARM_UP_STEPS))
        rounds = [{name: ask(process, steps) for name, process in running.items()} for _ in range(turns)]
    losses = {name: first[name]["losses"] + warm[name]["losses"] + rounds[0][name]["losses"] for name in names}
    return {
        name: {
            "what": VARIANTS[name].what,
            "first_step_s": first[name]["step_s"],
            "loss_difference": max(abs(a / b - 1) for a, b in zip(losses[name], losses[BASE], strict=True)),
            **row_of(name, rounds),
        }
        for name in names
    }


def row_of(name: str, rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the numbers of a variant, from what every process answered in each turn; ratios are those of images/s."""
    numbers = ("step_s", "images_per_s", "cpu_s_per_step", "faults_per_step", "system_ms_per_step")
    return {
        **{number: spread([turn[name][number] for turn in rounds]) for number in numbers},
        "as_it_is_step_s": spread([turn[BASE]["step_s"] for turn in rounds]),
        "times_as_it_is": spread([turn[BASE]["images_per_s"] / turn[name]["images_per_s"] for turn in rounds]),
        "resident_mib": rounds[-1][name]["resident_mib"],
        "peak_mib": rounds[-1][name]["peak_mib"],
    }


@contextmanager
def processes(names: tuple[str, ...], fields: list[str]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start a process for each variant; end them afterwards."""
    running = {}
    try:
        for name in names:
            command = [sys.executable, "-c", _CHILD, name, *fields]
            environment = {**os.environ, **VARIANTS[name].environment}
            running[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        yield running
    finally:
        for process in running.values():
            process.communicate()


def ask(process: subprocess.Popen[str], steps: int) -> dict[str, Any]:
    """Let a process take so many steps, and return its answer.

    Raises:
        InputError: The process has ended.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        print(steps, file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise InputError(f"a variant's process ended with status {process.wait()}; its messages are above.")
    return json.loads(line)


def serve(arguments: list[str]) -> int:
    """Take as many steps as each line of the input says, and answer with a line of JSON.

    Args:
        arguments: The name of a variant, and fields of the configuration.
    """
    name, *fields = arguments
    variant = VARIANTS[name]
    config = settle_hardware(parse_config([*fields, *variant.fields], "python -m benchmarks.step_variants", ""))
    keep_memory_on_cpu(config.device)
    set_backends(torch.device(config.device), config.train.deterministic, config.train.amp)
    image_set = load_data(config.data)
    run = build_run(config, image_set, split_validation(image_set, 0, config.train.seed)[0])
    if variant.change is not None:
        variant.change(run)
    run.model.train()
    batches, step = endless_batches(run), 0

    def one_step() -> torch.Tensor:
        nonlocal step
        step += 1
        return train_step(run, make_pieces(run, next(batches), run.config.train.clean_epochs), step - 1)["loss"]

    for line in sys.stdin:
        before, losses, steps = resource.getrusage(resource.RUSAGE_SELF), [], int(line)
        step_s = timed(run, lambda: losses.append(one_step()), steps) / steps  # noqa: B023
        after = resource.getrusage(resource.RUSAGE_SELF)
        row = {
            "step_s": step_s,
            "images_per_s": config.train.batch_size / step_s,
            "faults_per_step": (after.ru_minflt - before.ru_minflt) / steps,
            "cpu_s_per_step": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / steps,
            "system_ms_per_step": 1000 * (after.ru_stime - before.ru_stime) / steps,
            "resident_mib": resident_mib(),
            "peak_mib": after.ru_maxrss / 2**10,
            "losses": [float(loss) for loss in losses],
        }
        print(json.dumps(row), flush=True)
    return 0


def print_table(measured: dict[str, dict[str, Any]]) -> None:
    """Print a row for each variant."""
    table = Table(
        title="training steps; times as_it_is per image in the same turn", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    for column in ("variant", "ms", "times", "range", "faults", "MiB", "first s", "loss"):
        table.add_column(column, justify="left" if column == "variant" else "right", no_wrap=True)
    for name, row in measured.items():
        ratio = row["times_as_it_is"]
        table.add_row(
            name,
            f"{1000 * row['step_s']['median']:.0f}",
            f"{ratio['median']:.2f}",
            f"{ratio['lowest']:.2f}..{ratio['highest']:.2f}",
            f"{row['faults_per_step']['median']:,.0f}",
            f"{row['resident_mib']:,.0f}",
            f"{row['first_step_s']:.0f}",
            f"{row['loss_difference']:.0e}",
        )
    console.print(table)


if __name__ == "__main__":
    run_command(main)
