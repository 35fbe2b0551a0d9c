"""The machine and the versions that a number was measured with."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fastmagn_kernels.random.draws import OPS_VERSION
from fastmagn_kernels.random.policies import POLICY_VERSION


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
        "policy_operations": POLICY_VERSION,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def _commit() -> str | None:
    """The commit of a source checkout, with `-dirty` if files differ; None for an installed wheel."""
    root = Path(__file__).parent.parent.parent
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
