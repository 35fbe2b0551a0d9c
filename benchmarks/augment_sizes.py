"""python -m benchmarks.augment_sizes: CPU time per pixel of AugMix views, by the images' size.

    python -m benchmarks.augment_sizes [--sizes 32 224 512 1024] [--before FOLDER] [--data_dir DIR] [--out FILE.json]

The public `AugMix` makes views (uint8, channels last, `out`) on one thread. Their CPU time is measured, not the time
that passes, so that other work on the machine matters little. Each turn is a process of its own that
measures all sizes. With `--before`, another checkout of the program takes turns with this one: its engine makes views
of the same images, from the same seed. The views must be the same to the bit.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.corrupt import load_test_images
from benchmarks.measure import console, spread, write_result
from fastmagn import AugMix
from fastmagn.config.command_line import OwnOptions
from fastmagn.errors import check
from fastmagn.machine.command import run_command

ROOT = Path(__file__).parents[1]
SIZES = [32, 224, 512, 1024]
BATCH_PIXELS = 1 << 19
TURN_PIXELS = 1 << 24  # of the views of a size in a turn
NOW, BEFORE = "now", "before"

Turn = dict[str, dict[str, Any]]  # size -> ns_per_pixel and sha256 of the views


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    check(options.turns >= 1, "turns", options.turns, "1 or more")
    check(min(options.sizes) >= 8, "sizes", min(options.sizes), "8 px or more")
    if options.one_turn:
        print(json.dumps(_turn(options.sizes, options.data_dir)))
        return 0
    checkouts = {NOW: ROOT} | ({BEFORE: options.before.resolve()} if options.before else {})
    turns: dict[str, list[Turn]] = {name: [] for name in checkouts}
    for _ in range(options.turns):
        for name, checkout in checkouts.items():
            turns[name].append(_in_a_process(checkout, options))
    digests = {json.dumps([part["sha256"] for part in turn.values()]) for of in turns.values() for turn in of}
    assert len(digests) == 1, "the views are not the same"
    measured = {
        name: {size: spread([turn[size]["ns_per_pixel"] for turn in of]) for size in of[0]}
        for name, of in turns.items()
    }
    _print(measured)
    if options.out:
        settings = {"sizes_px": options.sizes, "turns": options.turns, "pixels_a_turn": TURN_PIXELS, "threads": 1}
        write_result(options.out, "augment_sizes", settings, {"ns_per_pixel": measured}, torch.device("cpu"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OwnOptions("python -m benchmarks.augment_sizes", __doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sides of the images in px")
    parser.add_argument("--before", type=Path, help="another checkout, to take turns with")
    parser.add_argument("--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use digits)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each checkout (default: 5)")
    parser.add_argument(
        "--one_turn", action="store_true", help="measure one turn in this process, and print it as JSON"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser


def _in_a_process(checkout: Path, options: argparse.Namespace) -> Turn:
    """A turn by the engine of a checkout, measured by this file."""
    paths = {
        "PYTHONPATH": os.pathsep.join((str(checkout), str(checkout / "kernels"))),
        "PYTHONSAFEPATH": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, "--one_turn", "--sizes", *map(str, options.sizes)]
    command += ["--data_dir", str(options.data_dir.resolve())] if options.data_dir else []
    done = subprocess.run(command, env=os.environ | paths, cwd=checkout, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _turn(sizes: list[int], data_dir: Path | None) -> Turn:
    measured = {}
    for size in sizes:
        batch = max(1, BATCH_PIXELS // size**2)
        images = torch.from_numpy(load_test_images(data_dir, batch, size)).permute(0, 3, 1, 2)
        augmix, out, digest = AugMix(seed=0), torch.empty_like(images), hashlib.sha256()
        augmix(images, out=out)  # compiles the kernels, or loads them
        calls = max(1, TURN_PIXELS // (size**2 * batch))
        elapsed_s = 0.0
        for _ in range(calls):
            start = time.process_time()
            augmix(images, out=out)
            elapsed_s += time.process_time() - start
            digest.update(out.permute(0, 2, 3, 1).numpy())
        measured[str(size)] = {
            "ns_per_pixel": 1e9 * elapsed_s / (calls * batch * size**2),
            "sha256": digest.hexdigest(),
        }
    return measured


def _print(measured: dict[str, dict[str, Any]]) -> None:
    table = Table(title="ns of CPU per pixel of an AugMix view, by the side of the images in px")
    table.add_column("")
    sizes = list(next(iter(measured.values())))
    for size in sizes:
        table.add_column(size, justify="right")
    for name, of in measured.items():
        table.add_row(name, *(f"{s['median']:.2f} ({s['lowest']:.2f}..{s['highest']:.2f})" for s in of.values()))
    console.print(table)


if __name__ == "__main__":
    run_command(main)
