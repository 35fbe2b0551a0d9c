"""python -m benchmarks.augment: compare AugMix views/s of every backend with Pillow, timm and torchvision, in one run.

    python -m benchmarks.augment [--device cuda] [--size 32|224] [--data_dir DIR] [--out FILE.json] [--pictures FILE]
    python -m benchmarks.augment --policy trivialaugment [...]

Every contender gets the same images and the same strength. `views/s` counts AugMix views only, two of each image:

- A backend makes them from the images as they are. It also makes the clean views, the images as floats.
- A backend `in a step` makes everything that a training step needs: crop, flip, jitter and rotation, two AugMix views
  and noise.
- `AugMix` is the public class, as others call it in their loop: twice, on uint8 or float images, in either format.
- Per-image code (`per_image_augmix`, and in `augmix_rivals` the strongest that an engineer would write) runs in
  `--workers` data-loading processes, which send their views to this one. OpenCV's pixels are not Pillow's.

With `--policy`, the contenders are those of `augment_policies`, and images of a policy are counted in place of views;
the reference is torchvision on PIL images in the workers.

The contenders take turns in every round. A ratio compares with the Pillow reference of the same round, so a drift of
the machine's speed affects both. Extra memory is what a call needs in addition to its output.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks.augment_pictures import save_pictures
from benchmarks.augment_policies import POLICIES, policy_contenders
from benchmarks.augment_policies import REFERENCE as policy_reference
from benchmarks.augmix_rivals import OPENCV, available_rivals, rival_by_workers
from benchmarks.corrupt import load_test_images
from benchmarks.measure import console, extra_memory_mib, seconds, spread, write_result
from benchmarks.per_image_augmix import PER_IMAGE, TWO_VIEWS, views_by_whole_batch, views_by_workers
from fastmagn import AugMix
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import BACKENDS, choose_engine, make_views
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError, check
from fastmagn.machine.command import run_command
from fastmagn_kernels.threads import num_threads

REFERENCE = "Pillow reference"
PUBLIC = "AugMix"
SIZES = {32: {"batch": 512, "per_image": 2048}, 224: {"batch": 32, "per_image": 64}}
TURN_S = 0.3  # a backend's turn consists of as many calls as take about this long
STEP_VIEWS = ViewSpec(num_augmix_views=2, num_noise_views=1)

MakeViews = Callable[[], int]  # returns the number of AugMix views it made


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON and the pictures if requested."""
    options = _parse(arguments)
    images = load_test_images(options.data_dir, max(options.batch_size, options.num_per_image), options.size)
    batch = torch.from_numpy(images[: options.batch_size]).to(options.device).permute(0, 3, 1, 2)
    per_image = images[: options.num_per_image]
    if options.policy:
        contenders = policy_contenders(options.policy, batch, per_image, options.workers)
        ours = [name for name in contenders if name.startswith("fastmagn")]
    else:
        backends, contenders = augmix_contenders(options, batch, per_image)
        ours = [name for name in contenders if name.split(",")[0] in (*backends, PUBLIC)]
    if options.only_ours:
        contenders = {name: contenders[name] for name in ours}
    measure(contenders, ours, batch, options)
    return 0


def augmix_contenders(
    options: argparse.Namespace, batch: Tensor, per_image: np.ndarray
) -> tuple[list[str], dict[str, MakeViews]]:
    """Return the backends, and the functions that make AugMix views by the contender's name; save the pictures."""
    augment = AugmentConfig(aug_severity=options.aug_severity, horizontal_flip=True, color_jitter=0.25)
    backends = available_backends(options.backends, batch.device)
    if options.pictures:
        save_pictures(options.pictures, batch[:6], augment, backends)
    contenders: dict[str, MakeViews] = {}
    for backend in backends:
        contenders[backend] = partial(augmix_views, batch, augment, backend)
        contenders[f"{backend}, in a step"] = partial(step_views, batch, augment, backend)
    contenders |= public_contenders(batch, options.aug_severity)
    for name in PER_IMAGE:
        if name.startswith("timm") and find_spec("timm") is None:
            console.print("timm is left out because it is not installed")
            continue
        contenders[name] = views_by_workers(name, per_image, augment, options.workers, batch.device)
    rivals = list(available_rivals())
    if OPENCV not in rivals:
        console.print("OpenCV is left out because cv2 is not installed")
    for name in rivals:
        contenders[name] = rival_by_workers(name, per_image, augment, options.workers, batch.device)
    contenders["torchvision v2.AugMix, one draw a batch"] = views_by_whole_batch(batch, augment)
    return backends, contenders


def measure(contenders: dict[str, MakeViews], ours: list[str], batch: Tensor, options: argparse.Namespace) -> None:
    """Let the contenders take turns; print the table and write the JSON. The memory of `ours` is measured too."""
    for make in contenders.values():
        make()  # compile, start the workers
    extra_mib = {
        name: extra_memory_mib(make, batch.device, _output_mib(batch, name, options.policy))
        for name, make in contenders.items()
        if name in ours
    }
    calls = {name: max(1, round(TURN_S / _once_s(make, batch.device))) for name, make in contenders.items()}
    rounds = [
        {name: _views_per_s(make, calls[name], batch.device) for name, make in contenders.items()}
        for _ in range(options.rounds)
    ]
    measured = summarise(rounds, extra_mib, policy_reference if options.policy else REFERENCE)
    what = f"{options.policy}: images/s" if options.policy else "AugMix views/s"
    print_table(measured, f"{what}, {options.size} x {options.size} px on {options.device}, {options.workers} workers")
    if options.out:
        write_result(options.out, "augment", _settings(options), {"contenders": measured}, batch.device)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OwnOptions("python -m benchmarks.augment", __doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="device of the batch (default: cpu)")
    parser.add_argument("--size", type=int, choices=sorted(SIZES), default=32, help="side of the images in px")
    parser.add_argument("--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use digits)")
    parser.add_argument("--aug_severity", type=int, default=3, help="AugMix's strength, 1..10 (default: 3)")
    parser.add_argument("--backends", nargs="+", choices=[*BACKENDS], default=[*BACKENDS], help="backends to measure")
    parser.add_argument("--batch_size", type=int, help="images in a backend's batch (default: 512, or 32 at 224 px)")
    parser.add_argument("--num_per_image", type=int, help="images for per-image code (default: 2048, or 64 at 224 px)")
    parser.add_argument("--workers", type=int, default=2, help="data-loading processes of per-image code (default: 2)")
    parser.add_argument("--policy", choices=POLICIES, help="measure this policy in place of AugMix")
    parser.add_argument("--only_ours", action="store_true", help="leave out everything that is not fastmagn's")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender (default: 7)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--pictures", type=Path, help="PNG file of originals, views of each backend and differences")
    options = parser.parse_args(arguments)
    options.batch_size = SIZES[options.size]["batch"] if options.batch_size is None else options.batch_size
    options.num_per_image = SIZES[options.size]["per_image"] if options.num_per_image is None else options.num_per_image
    for name in ("batch_size", "num_per_image", "workers", "rounds"):
        check(getattr(options, name) >= 1, name, getattr(options, name), "1 or more")
    has_device = options.device == "cpu" or torch.cuda.is_available()
    check(has_device, "device", options.device, "cpu: PyTorch finds no CUDA device")
    return options


def available_backends(names: list[str], device: torch.device) -> list[str]:
    """Return the installed backends except Pillow, which the workers time; print one line for each that is missing."""
    available = []
    for name in names:
        try:
            choose_engine(name, device)
        except InputError as error:
            console.print(f"{name} is left out. {error}", soft_wrap=True)
        else:
            available.append(name)
    return [name for name in available if name != "pil"]


def augmix_views(batch: Tensor, augment: AugmentConfig, backend: str) -> int:
    """Make two AugMix views of the images uint8 [B, 3, H, W] as they are; return the number of views."""
    params = sample_view_params(0, 0, torch.arange(len(batch)), TWO_VIEWS, augment, tuple(batch.shape[2:]))
    make_views(batch, identity_base(params), backend)
    return 2 * len(batch)


def public_contenders(batch: Tensor, aug_severity: int) -> dict[str, MakeViews]:
    """Return functions that call the public class twice on the images uint8 [B, 3, H, W], by the contender's name."""
    augmix = AugMix(aug_severity=aug_severity)
    planar = batch.contiguous()
    forms = {
        PUBLIC: planar,
        f"{PUBLIC}, channels last": batch,
        f"{PUBLIC}, floats": planar / 255,
        f"{PUBLIC}, floats, channels last": batch / 255,
    }

    def make(images: Tensor, out: Tensor | None = None) -> int:
        return sum(len(augmix(images, out=out)) for _ in range(2))

    contenders: dict[str, MakeViews] = {name: partial(make, images) for name, images in forms.items()}
    contenders[f"{PUBLIC}, out"] = partial(make, planar, torch.empty_like(planar))
    return contenders


def step_views(batch: Tensor, augment: AugmentConfig, backend: str) -> int:
    """Make a training step's views of the images uint8 [B, 3, H, W]; return the number of AugMix views."""
    params = sample_view_params(0, 0, torch.arange(len(batch)), STEP_VIEWS, augment, tuple(batch.shape[2:]))
    make_views(batch, params, backend)
    return 2 * len(batch)


def _output_mib(batch: Tensor, name: str, policy: str | None) -> float:
    if policy or name.startswith(PUBLIC):
        value_bytes = 0 if name.endswith("out") else 4 if "floats" in name else 1
        return batch.numel() * value_bytes / 2**20
    num_views = STEP_VIEWS.num_views if name.endswith("in a step") else TWO_VIEWS.num_views
    return num_views * batch.numel() * 4 / 2**20


def _synchronised(make: Callable[[], object], calls: int, device: torch.device) -> None:
    for _ in range(calls):
        make()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _once_s(make: MakeViews, device: torch.device) -> float:
    return seconds(lambda: _synchronised(make, 1, device))


def _views_per_s(make: MakeViews, calls: int, device: torch.device) -> float:
    counted: list[int] = []
    elapsed = seconds(lambda: _synchronised(lambda: counted.append(make()), calls, device))
    return sum(counted) / elapsed


def summarise(
    rounds: list[dict[str, float]], extra_mib: dict[str, float], reference: str = REFERENCE
) -> dict[str, dict[str, Any]]:
    """Return each contender's views/s and its ratio to the reference of the same round, with their spread."""
    measured: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        measured[name] = {"views_per_s": spread([turn[name] for turn in rounds])}
        if reference in rounds[0]:
            measured[name]["ratio_to_pillow"] = spread([turn[name] / turn[reference] for turn in rounds])
        if name in extra_mib:
            measured[name]["extra_memory_mib"] = extra_mib[name]
    return measured


def print_table(measured: dict[str, dict[str, Any]], title: str) -> None:
    """Print the contenders, the fastest first."""
    table = Table(title=title)
    for column in ("", "views/s", "times reference", "lowest..highest", "extra MiB"):
        table.add_column(column, justify="left" if not column else "right")
    by_speed = sorted(measured.items(), key=lambda item: -item[1]["views_per_s"]["median"])
    for name, row in by_speed:
        ratio, memory = row.get("ratio_to_pillow"), row.get("extra_memory_mib")
        table.add_row(
            name,
            f"{row['views_per_s']['median']:,.0f}",
            "" if ratio is None else f"{ratio['median']:.2f}",
            "" if ratio is None else f"{ratio['lowest']:.2f}..{ratio['highest']:.2f}",
            "" if memory is None else f"{memory:.0f}",
        )
    console.print(table)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "dataset": "cifar10" if options.data_dir else "digits",
        "size_px": options.size,
        "policy": options.policy,
        "aug_severity": options.aug_severity,
        "batch_size": options.batch_size,
        "num_per_image": options.num_per_image,
        "workers": options.workers,
        "threads": num_threads(),
        "rounds": options.rounds,
        "device": options.device,
    }


if __name__ == "__main__":
    run_command(main)
