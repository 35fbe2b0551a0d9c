"""Failures of the machine, explained: one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastmagn.config.schema import Config
from fastmagn.errors import InputError
from fastmagn.machine.files import DISK_FAILURES
from fastmagn.runs.paths import last_checkpoint

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
_LOST_DEVICE = ("CUDA error", "NCCL error", "device-side assert", "CUDNN_STATUS_EXECUTION_FAILED")


@contextmanager
def explain_failures(config: Config) -> Iterator[None]:
    """Turn a full disk, lack of memory and a lost device into an InputError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAILURES:
            raise
        where = error.filename or config.run_dir
        raise InputError(
            f"run_dir: {where} cannot be written ({error.strerror}); make room, then {_what_is_saved(config)}."
        ) from error
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_OUT_OF_MEMORY in text:
            raise InputError(
                f"train.batch_size: got {config.train.batch_size} in {config.train.accumulation_steps} piece(s);"
                f" the memory of {config.device} is too small for that. Lower it, or raise train.accumulation_steps."
            ) from error
        if any(sign in text for sign in _LOST_DEVICE):
            first_line = text.splitlines()[0]
            raise InputError(f"device: {config.device} failed ({first_line}); {_what_is_saved(config)}.") from error
        raise


def _what_is_saved(config: Config) -> str:
    checkpoint = last_checkpoint(config.run_dir)
    return f"the same command resumes from {checkpoint}" if checkpoint.exists() else "nothing has been saved yet"
