"""python -m benchmarks.cuda_counts: count what the CUDA engine executes for a view, without a GPU.

    python -m benchmarks.cuda_counts [--data_dir DIR] [--images 16] [--images_224 2] [--out FILE.json]

The kernels' PTX runs on the CPU (tests/ptx; it needs g++), which counts how often a warp of 32 threads executes each
instruction. An AugMix view is the difference between calls with two and with no AugMix views, a noise view likewise;
the clean view includes what a block does once. A policy's image is one of the public TrivialAugment, RandAugment and
AutoAugment, uint8 to uint8, with loading and storing; many draws of the same images are counted, because the drawn
operations decide. Where ptxas and nvdisasm are installed (the CUDA toolkit, or Triton,
which comes with PyTorch), each PTX instruction also counts as the machine instructions of sm_90a that it became, and
registers, spills and stack are shown. The microseconds are the CPU's for one call of the engine, with a driver that
does nothing (`benchmarks/stubbed_driver.py`); they depend on the machine, the counts do not.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.corrupt import load_test_images
from benchmarks.measure import console, spread, write_result
from benchmarks.stubbed_driver import host_us_of_calls
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import AutoAugmentPolicy, RandAugmentPolicy, TrivialAugmentPolicy
from fastmagn.augment.policies.table import Policy
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn_kernels.augmix_cuda.planning import plan_launch
from tests.augment.engines.cuda_runs import NUM_SMS, FromPtx, plan, run_policy, run_views
from tests.helpers.cuda_kernels import KERNELS, images_name, views_name
from tests.ptx.arguments import compile_once
from tests.ptx.assembling import assemble, find_tool, machine_class, machine_instructions, version_of
from tests.ptx.building import COMPILER, Builder
from tests.ptx.running import Report

AUGMENT = AugmentConfig(
    aug_severity=10, random_aug_severity=True, horizontal_flip=True, color_jitter=0.25
)  # the paper's
BATCHES = {32: (512, 8192), 224: (32, 256)}
POLICIES = {
    "trivialaugment": Policy(TrivialAugmentPolicy()),
    "randaugment": Policy(RandAugmentPolicy()),
    "autoaugment": Policy(AutoAugmentPolicy("cifar10")),
}
POLICY_DRAWS = {32: 240, 224: 60}
Counts = dict[str, Counter]  # "ptx" and, where it is known, "machine": instructions of warps by class


def main(arguments: list[str]) -> int:
    """Count, print the tables, and write the JSON if requested."""
    options = _parse(arguments)
    check(COMPILER is not None, "g++", "none on PATH", "a C++ compiler, which compiles what runs PTX on the CPU")
    with tempfile.TemporaryDirectory() as folder:
        run = FromPtx(Builder(Path(folder)))
        kernels = kernel_resources(run.builder)
        views, policies = {}, {}
        for size, count in ((32, options.images), (224, options.images_224)):
            images = load_test_images(options.data_dir, count, size)
            views[f"{size}x{size}"] = instructions_per_view(run, images)
            policies[f"{size}x{size}"] = instructions_of_policies(run, images)
    measured = {
        "kernels": kernels,
        "warp_instructions_per_view": views,
        "warp_instructions_per_policy_image": policies,
        "launches": {f"{size}x{size}": launches(size) for size in BATCHES},
        "host_us_per_call": {f"{size}x{size}": spread(host_us_of_calls(size, BATCHES[size][0])) for size in BATCHES},
    }
    print_tables(measured)
    if options.out:
        tools = {
            tool: ".".join(map(str, version_of(path))) for tool in ("ptxas", "nvdisasm") if (path := find_tool(tool))
        }
        settings = {"images": options.images, "images_224": options.images_224, "num_sms": NUM_SMS, "tools": tools}
        settings["dataset"] = "cifar10" if options.data_dir else "digits"
        write_result(options.out, "cuda_counts", settings, measured, torch.device("cpu"))
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OwnOptions("python -m benchmarks.cuda_counts", __doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use digits)")
    parser.add_argument("--images", type=int, default=16, help="images of 32 x 32 px (default: 16)")
    parser.add_argument("--images_224", type=int, default=2, help="images of 224 x 224 px (default: 2)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    for name in ("images", "images_224"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    return options


def kernel_resources(builder: Builder) -> dict[str, dict[str, int]]:
    """Return what each kernel takes, by its name; an empty dict without ptxas."""
    ptxas = find_tool("ptxas")
    if ptxas is None:
        return {}
    sources = {name: source for makers in KERNELS.values() for name, source in makers.items()}
    return {
        name: assemble(compile_once(builder, *source(), name=name), ptxas).as_dict() for name, source in sources.items()
    }


def instructions_per_view(run: FromPtx, images: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """Return the warp instructions of an AugMix view, a noise view and the clean view, by class, per image."""
    clean, noise, both = (_counted(run, images, spec) for spec in ((0, 0), (0, 1), (2, 1)))
    result = {}
    for kind in clean:
        per_view = {
            "augmix_view": _scaled(both[kind], noise[kind], 2 * len(images)),
            "noise_view": _scaled(noise[kind], clean[kind], len(images)),
            "clean_view": _scaled(clean[kind], Counter(), len(images)),
        }
        result[kind] = {view: {"total": sum(counts.values()), **counts} for view, counts in per_view.items()}
    return result


def _scaled(counts: Counter, without: Counter, views: int) -> dict[str, float]:
    return {kind: round((number - without[kind]) / views, 1) for kind, number in counts.most_common()}


def _counted(run: FromPtx, images: np.ndarray, spec: tuple[int, int]) -> Counts:
    """One block for each image makes all views, as in a large batch."""
    view_spec = ViewSpec(num_augmix_views=spec[0], num_noise_views=spec[1])
    params = sample_view_params(0, 0, np.arange(len(images)), view_spec, AUGMENT, images.shape[1:3])
    launch = plan(images, params)._replace(groups=1, blocks=len(images))
    launch = launch._replace(scratch_bytes=launch.scratch_bytes // plan(images, params).blocks * len(images))
    run_views(run, images, params, launch=launch, check=False)
    return _counts_of(run, views_name("float32", launch.in_shared))


def instructions_of_policies(run: FromPtx, images: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """Return the warp instructions of each policy on one image, by class."""
    size = images.shape[1]
    drawn = np.resize(images, (POLICY_DRAWS[size], *images.shape[1:]))
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    params = sample_view_params(0, 0, np.arange(len(drawn)), spec, AugmentConfig(), images.shape[1:3])
    in_shared = plan_launch(len(drawn), 1, size, size, 0, NUM_SMS).in_shared
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, policy in POLICIES.items():
        run_policy(run, drawn, params, policy, planar=True, check=False)
        for kind, counts in _counts_of(run, images_name(in_shared)).items():
            per_image = _scaled(counts, Counter(), len(drawn))
            result.setdefault(kind, {})[name] = {"total": sum(per_image.values()), **per_image}
    return result


def _counts_of(run: FromPtx, name: str) -> Counts:
    """Return what the last run executed, of the kernel `name`."""
    counts = {"ptx": Counter(run.report.by_class())}
    ptxas, nvdisasm = find_tool("ptxas"), find_tool("nvdisasm")
    if ptxas and nvdisasm:
        counts["machine"] = _machine_counts(run.report, run.kernels[name].kernel.ptx, ptxas, nvdisasm)
    return counts


def _machine_counts(report: Report, ptx: str, ptxas: Path, nvdisasm: Path) -> Counter:
    made = machine_instructions(ptx, tuple(report.lines), ptxas, nvdisasm)
    counts: Counter = Counter()
    for line, number in report.by_line().items():
        for instruction in made.get(line, ()):
            counts[machine_class(instruction)] += number
    return counts


def launches(size: int) -> dict[str, dict[str, int]]:
    """Return the blocks and groups of the training step's calls on a device of 132 multiprocessors."""
    spec = ViewSpec(num_augmix_views=2, num_noise_views=1)
    found = {}
    for batch in BATCHES[size]:
        images = np.broadcast_to(np.uint8(0), (batch, size, size, 3))
        params = sample_view_params(0, 0, np.arange(batch), spec, AUGMENT, (size, size))
        launch = plan(images, params)
        found[f"batch {batch}"] = {
            "blocks": launch.blocks,
            "groups": launch.groups,
            "shared_bytes": launch.shared_bytes,
        }
    return found


def print_tables(measured: dict[str, Any]) -> None:
    """Print the instructions by class, and the kernels' resources."""
    tables = [
        (f"{kind} instructions of warps, {size}", views)
        for what in ("warp_instructions_per_view", "warp_instructions_per_policy_image")
        for size, kinds in measured[what].items()
        for kind, views in kinds.items()
    ]
    for title, views in tables:
        table = Table(title=title)
        for column in ("", *views):
            table.add_column(column, justify="right" if column else "left")
        for row in dict.fromkeys(name for counts in views.values() for name in counts):
            table.add_row(row, *(f"{counts.get(row, 0):,.0f}" for counts in views.values()))
        console.print(table)
    if measured["kernels"]:
        table = Table(title="ptxas, sm_90a")
        columns = list(next(iter(measured["kernels"].values())))
        for column in ("kernel", *columns):
            heading = column.replace("_", " ")
            table.add_column(heading, justify="left" if column == "kernel" else "right", no_wrap=column == "kernel")
        for name, numbers in measured["kernels"].items():
            table.add_row(name, *(str(numbers[column]) for column in columns))
        console.print(table)
    for size, plans in measured["launches"].items():
        console.print(f"{size}: " + ", ".join(f"{name}: {plan['blocks']} blocks" for name, plan in plans.items()))
    for size, times in measured["host_us_per_call"].items():
        console.print(f"{size}: {times['median']:.0f} us of the CPU's time per call")


if __name__ == "__main__":
    run_command(main)
