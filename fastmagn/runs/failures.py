"""Failures of the machine, explained: one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastmagn.config.schema import Config
from fastmagn.errors import InputError, one_line
from fastmagn.machine.files import DISK_FAILURES
from fastmagn.runs.paths import last_checkpoint

# In the messages of PyTorch, of numba-cuda (`[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY`), of NVIDIA's
# cuda.core (`CUDA_ERROR_ILLEGAL_ADDRESS: …`) and of the compilers behind them. Their classes have no common base.
_NO_MEMORY = (
    *("DefaultCPUAllocator: can't allocate memory", "CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
_NOT_COMPILED = (
    *("NVVM_ERROR", "NVRTC_ERROR", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "CUDA_ERROR_INVALID_PTX"),
    *("CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "CUDA_ERROR_INVALID_IMAGE"),
    *("CUDA_ERROR_INVALID_SOURCE", "libNVVM", "libnvvm", "libdevice"),
)
_LOST_DEVICE = (
    *("CUDA error", "CUDA_ERROR_", "NCCL error", "device-side assert"),
    *("CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED"),
)
_COMPILERS = ("numba.cuda", "cuda.core", "cuda.bindings", "cuda.pathfinder")  # where their own classes of errors are


@contextmanager
def explain_failures(config: Config) -> Iterator[None]:
    """Turn a full disk, lack of memory, a kernel that does not compile and a lost device into an InputError.

    It says what to do. Other errors stay as they are.
    """
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.errno not in DISK_FAILURES:
            raise
        where = error.filename or config.run_dir
        raise InputError(
            f"run_dir: {where} cannot be written ({error.strerror}); make room, then {_what_is_saved(config)}."
        ) from error
    except Exception as error:
        too_large = (
            f"train.batch_size: got {config.train.batch_size} in {config.train.accumulation_steps} piece(s);"
            f" the memory of {config.device} is too small for that. Lower it, or raise train.accumulation_steps."
        )
        explanation = _explanation(error, config.device, too_large, _what_is_saved(config))
        if explanation is None:
            raise
        raise InputError(explanation) from error


@contextmanager
def explain_measuring(device: str, batch_size: int, field: str = "eval.batch_size") -> Iterator[None]:
    """Turn lack of memory and a lost device into an InputError, where a model is measured.

    Args:
        device: Where it is measured.
        batch_size: Images per forward pass.
        field: The name of the field that holds this number.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        too_large = f"{field}: got {batch_size}; the memory of {device} is too small for that. Lower it."
        explanation = _explanation(error, device, too_large, "the same command measures again")
        if explanation is None:
            raise
        raise InputError(explanation) from error


def is_of_the_machine(error: Exception) -> bool:
    """Whether memory is lacking, or a device is busy or lost: what was being read is not damaged."""
    of_the_device = isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError | MemoryError)
    return of_the_device or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY))


def _explanation(error: Exception, device: str, too_large: str, what_then: str) -> str | None:
    """What happened, and what to do; None if it is not the machine's failure.

    Args:
        error: What was raised.
        device: Where the work was done.
        too_large: The explanation of a lack of memory.
        what_then: What the same command does once the machine is well.
    """
    text = str(error)

    def says(signs: tuple[str, ...]) -> bool:
        return any(sign in text for sign in signs)

    is_compilers = type(error).__module__.startswith(_COMPILERS)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (_is_of_a_library(error) and says(_NO_MEMORY)):
        return too_large
    if not _is_of_a_library(error):
        return None
    if says(_NOT_COMPILED) or (is_compilers and not says(_LOST_DEVICE)):
        return (
            f"augment.backend: the views' kernel cannot be compiled for {device} ({one_line(error)}); use"
            f" augment.backend pil, or a driver and a numba-cuda that fit each other; then {what_then}."
        )
    if says(_LOST_DEVICE):
        return f"device: {device} failed ({text.splitlines()[0]}); {what_then}."
    return None


def _is_of_a_library(error: Exception) -> bool:
    """Whether PyTorch, numba-cuda or cuda.core may have raised it: a RuntimeError, or a class of their own."""
    return isinstance(error, RuntimeError | MemoryError) or type(error).__module__.startswith(_COMPILERS)


def _what_is_saved(config: Config) -> str:
    checkpoint = last_checkpoint(config.run_folder)
    return f"the same command resumes from {checkpoint}" if checkpoint.exists() else "nothing has been saved yet"
