"""What torchrun tells each process that it starts, in environment variables. Nothing here imports PyTorch."""

import os
import socket

NO_RUN_ID = "none"  # torchrun's, where no `--rdzv_id` is given


def rank() -> int:
    """The number of this process, 0..world_size() - 1; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def restart_count() -> int:
    """How often torchrun has restarted the processes after a failure (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def max_restarts() -> int:
    """How often torchrun may restart them."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def agent() -> str:
    """The torchrun that started this process: its host and process number."""
    return f"{socket.gethostname()}:{os.getppid()}"


def run_id() -> str:
    """The name of torchrun's job, the same on all hosts."""
    return os.environ.get("TORCHELASTIC_RUN_ID", NO_RUN_ID)
