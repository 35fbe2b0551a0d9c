"""What `auto` means on this machine (device, precision, compilation), and the settings of PyTorch's backends."""

import dataclasses
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fastmagn.config.schema import Config
from fastmagn.errors import InputError, check
from fastmagn.machine.console import warn
from fastmagn.machine.memory import keep_freed_memory
from fastmagn.machine.torchrun import rank


def settle_hardware(config: Config) -> Config:
    """The config with every `auto` of device, train.amp and train.compile resolved, so that the run can be repeated.

    Raises:
        InputError: device is cuda and there is no CUDA device; or CUDA graphs are asked for with accumulation steps.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device: got 'cuda'; expected cpu or auto, as PyTorch finds no CUDA device here. If a run's config.yaml"
            " says it, add --device auto."
        )
    device = _settled(config.device)
    amp, compiled = config.train.amp, config.train.compile
    if amp == "auto":
        amp = "bf16" if _has_bf16(device) else "float32"
    if compiled == "auto":
        compiled = device == "cuda"
    uses_graphs = device == "cuda" and compiled and config.train.compile_mode != "default"
    if uses_graphs and config.train.accumulation_steps > 1:
        raise InputError(
            f"train.accumulation_steps: got {config.train.accumulation_steps}; expected 1 with train.compile_mode"
            f" {config.train.compile_mode}, because a CUDA graph overwrites the gradients of the piece before. Use"
            " train.compile_mode default."
        )
    return dataclasses.replace(
        config, device=device, train=dataclasses.replace(config.train, amp=amp, compile=compiled)
    )


def in_runs_precision(config: Config) -> Config:
    """The config of a run to measure here: `train.amp` as in the training, or float32, with a line, if it is slow."""
    amp = config.train.amp
    if not is_slow_precision(_settled(config.device), amp):
        return config
    if rank() == 0:
        warn(f"measured in float32, as {amp}, in which the run was trained, is slow here; --train.amp {amp} keeps it.")
    return dataclasses.replace(config, train=dataclasses.replace(config.train, amp="float32"))


def is_slow_precision(device: str, amp: str) -> bool:
    """Whether this machine's device, cpu or cuda, emulates products in this precision, which float32 outruns.

    A CUDA device that is not there is not slow: `settle_hardware` refuses it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return False
    return (amp == "fp16" and device == "cpu") or (amp == "bf16" and not _has_bf16(device))


def _settled(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The device, cuda or cpu, that `device` means."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def indexed(device: torch.device) -> torch.device:
    """The device, with its number on CUDA: `cuda` alone means another one where another is the thread's current one."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def keep_memory_on_cpu(device: Literal["auto", "cpu", "cuda"]) -> None:
    """Let a command whose `device` is or means the CPU keep the memory of its steps (`keep_freed_memory`)."""
    if _settled(device) == "cpu":
        keep_freed_memory()


_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision(device: torch.device, amp: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16 for amp `bf16`, to float16 for `fp16`; `full_float32` without autocast for `float32`.

    In a graph that is being compiled, PyTorch's settings cannot change: `set_backends` has made them.

    Raises:
        InputError: `amp` is none of these.
    """
    check(amp == "float32" or amp in _AUTOCAST, "amp", amp, f"float32, {' or '.join(_AUTOCAST)}")
    autocast = torch.autocast(device.type, _AUTOCAST.get(amp, torch.bfloat16), enabled=amp in _AUTOCAST)
    return autocast if amp in _AUTOCAST or torch.compiler.is_compiling() else full_float32(autocast)


@dataclass(eq=False)
class _Found:
    """PyTorch's settings of float32's products, as a `full_float32` found them: the newer ones and the older ones."""

    newer: list[str]
    older: tuple[bool, str] | None


_found: list[_Found] = []  # by those that are within now, in the order in which they entered
_changing = threading.Lock()


@contextmanager
def full_float32(within: AbstractContextManager[None] | None = None) -> Iterator[None]:
    """Turn off TensorFloat-32, PyTorch's default for convolutions on CUDA: it rounds float32 to 10 bits.

    The settings are the process's. Where several threads are within, they hold until the last one leaves.

    Args:
        within: A context that is entered too.
    """
    with _changing:
        mine = _Found([owner.fp32_precision for owner in _float32_products()], _older_settings())
        _found.append(mine)
        forbid_tf32()
    try:
        with within or nullcontext():
            yield
    finally:
        with _changing:
            _leave(mine)


def _leave(mine: _Found) -> None:
    """Put back what `mine` has, or leave it to the one that entered next and is still within."""
    position = _found.index(mine)
    del _found[position]
    if position < len(_found):
        _found[position].newer, _found[position].older = mine.newer, mine.older
        return
    if mine.older is not None:
        torch.backends.cudnn.allow_tf32 = mine.older[0]
        torch.set_float32_matmul_precision(mine.older[1])
    for owner, value in zip(_float32_products(), mine.newer, strict=True):
        owner.fp32_precision = value


def forbid_tf32() -> None:
    """Turn off TensorFloat-32 for good, in PyTorch's older settings and in its newer ones, which must agree."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for owner in _float32_products():
        owner.fp32_precision = "ieee"


def _float32_products() -> tuple[Any, ...]:
    """The owners of the settings of float32's convolutions and matrix products."""
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    return cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, mkldnn.conv, mkldnn.matmul


def _older_settings() -> tuple[bool, str] | None:
    """PyTorch's older settings of the same; None where a program has used the newer ones, so that they disagree."""
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def set_backends(device: torch.device, deterministic: bool, amp: str) -> None:
    """Set PyTorch's backends for a run, until they are set again.

    cuDNN tries its algorithms for the fixed shapes, or only deterministic operations are allowed. With amp `float32`,
    there is no TensorFloat-32 in any pass, backward and compiled ones among them.
    """
    if torch.get_deterministic_debug_mode() != (2 if deterministic else 0):
        torch.use_deterministic_algorithms(deterministic)  # imports PyTorch's compiler, which takes seconds
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it before its first call
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not deterministic
    if amp == "float32":
        forbid_tf32()


def _has_bf16(device: str) -> bool:
    """Whether bfloat16 products run at full speed. CPUs without the instructions emulate them slowly."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
