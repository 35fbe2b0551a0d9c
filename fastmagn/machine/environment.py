"""The machine and the versions that a number was measured with. What cannot be found out is None, never an error."""

import platform
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fastmagn.version import __version__
from fastmagn_kernels.random.draws import OPS_VERSION
from fastmagn_kernels.random.policies import POLICY_VERSION

GIT_LIMIT_S = 20.0  # git looks at every file of the checkout, which may lie on a disk that does not answer


def environment(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that a number was measured with; None for what cannot be found out.

    Nothing is raised: the results of hours must not be lost for the sake of their description.
    """
    packages = ("torchvision", "numpy", "numba", "scipy", "pillow")
    return {
        "fastmagn": __version__,
        "commit": found(commit_of, Path(__file__).parent.parent.parent),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: found(metadata.version, name) for name in packages},
        "augmix_operations": OPS_VERSION,
        "policy_operations": POLICY_VERSION,
        "platform": found(platform.platform),
        "cpu": found(_cpu_name),
        "cpu_threads": torch.get_num_threads(),
        "device": found(torch.cuda.get_device_name, device) if device.type == "cuda" else device.type,
    }


def found(look_up: Callable[..., Any], *arguments: Any) -> Any:
    """What `look_up` returns; None if it fails in any way."""
    try:
        return look_up(*arguments)
    except Exception:
        return None


def commit_of(root: Path) -> str | None:
    """The commit of a source checkout, with `-dirty` if files differ; None for an installed wheel."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=GIT_LIMIT_S
    )
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
