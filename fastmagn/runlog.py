"""What a run leaves behind and shows: metrics.jsonl, TensorBoard, the environment, progress, tables."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fastmagn.augment.ops import OPS_VERSION

console = Console(highlight=False)


def warn(message: str) -> None:
    """Print a warning that is not to be missed, in one line."""
    console.print(f"warning: {message}", style="bold yellow", markup=False, soft_wrap=True)


def environment(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that a number was measured with."""
    packages = ("torchvision", "numpy", "numba", "scipy", "pillow")
    return {
        "fastmagn": metadata.version("fastmagn"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in packages},
        "augmix_operations": OPS_VERSION,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def _commit() -> str | None:
    """The commit of a source checkout, with `-dirty` where files differ; None for an installed wheel."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def progress_bar() -> Progress:
    """A progress display for a terminal; shows nothing where the output is not one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one epoch's row to metrics.jsonl."""
    with path.open("a") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def tensorboard_writer(run_dir: Path, epoch: int) -> Any | None:
    """A SummaryWriter for RUN/tensorboard that goes on at `epoch`; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run_dir / "tensorboard", purge_step=epoch)


def log_scalars(writer: Any | None, row: dict[str, Any]) -> None:
    """An epoch's row as TensorBoard scalars, by epoch; does nothing without a writer."""
    if writer is not None:
        for name, value in row.items():
            writer.add_scalar(name, value, global_step=row["epoch"])
        writer.flush()


def log_results(run_dir: Path, results: dict[str, Any], epochs: int) -> None:
    """A run's results as TensorBoard scalars, after its `epochs` rows; does nothing where it is not installed."""
    rms = results["rms_calibration_error"]
    scalars = {"clean_accuracy": results["clean_accuracy"]}
    scalars |= {f"mca_{name}": value for name, value in results["mca"].items() if value is not None}
    scalars |= {f"rms_calibration_error_{part}": rms[part] for part in ("clean", "corrupt")}
    try:
        writer = tensorboard_writer(run_dir, epochs)
        for name, value in scalars.items() if writer is not None else ():
            writer.add_scalar(f"results/{name}", value, global_step=epochs)
        if writer is not None:
            writer.close()
    except OSError as error:
        warn(f"{run_dir / 'tensorboard'} not written ({error.strerror}); the results are in results.json.")


def print_epoch(row: dict[str, Any], epochs: int) -> None:
    """One line for one epoch."""
    known = {"epoch", "step", "lr", "loss", "train_accuracy", "validation_accuracy", "images_per_s", "epoch_s"}
    parts = "".join(f"  {name} {value:.4f}" for name, value in row.items() if name not in known)
    validation = f"  validation {row['validation_accuracy']:.2%}" if "validation_accuracy" in row else ""
    console.print(
        f"epoch {row['epoch'] + 1:>3}/{epochs}  loss {row['loss']:.4f}{parts}  train {row['train_accuracy']:.2%}"
        f"{validation}  {row['images_per_s']:.0f} images/s  {row['epoch_s']:.1f} s",
        soft_wrap=True,
    )


def print_results(results: dict[str, Any], title: str) -> None:
    """The corruption table and the summary of a results.json, in per cent."""
    table = Table(title=title, caption="accuracy in %, severity 1 to 5")
    table.add_column("corruption")
    for severity in range(1, 6):
        table.add_column(str(severity), justify="right")
    table.add_column("mean", justify="right")
    for name, accuracies in results["corruption_accuracy"].items():
        mean = sum(accuracies) / len(accuracies)
        table.add_row(name, *(f"{100 * accuracy:.1f}" for accuracy in (*accuracies, mean)))
    console.print(table)
    rms = results["rms_calibration_error"]
    mca = "  ".join(f"{name} {100 * value:.2f}" for name, value in results["mca"].items() if value is not None)
    console.print(f"clean accuracy {100 * results['clean_accuracy']:.2f} %")
    console.print(f"mCA {mca} %")
    if results.get("mce_alexnet") is not None:
        console.print(f"mCE normalised by AlexNet's {100 * results['mce_alexnet']:.2f} %")
    console.print(
        f"RMS calibration error: clean {100 * rms['clean']:.2f} %, corrupt ({rms['corruption_set']}) "
        f"{100 * rms['corrupt']:.2f} %"
    )
