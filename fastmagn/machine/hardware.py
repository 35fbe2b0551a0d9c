"""What `auto` means on this machine (device, precision, compilation), and the settings of PyTorch's backends."""

import dataclasses
import os
from contextlib import AbstractContextManager

import torch

from fastmagn.config.schema import Config
from fastmagn.errors import InputError


def settle_hardware(config: Config) -> Config:
    """The config with every `auto` of device, train.amp and train.compile resolved, so that the run can be repeated.

    Raises:
        InputError: device is cuda and there is no CUDA device.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: got 'cuda'; expected cpu or auto, as PyTorch finds no CUDA device here.")
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    amp, compiled = config.train.amp, config.train.compile
    if amp == "auto":
        amp = "bf16" if _has_bf16(device) else "float32"
    if compiled == "auto":
        compiled = device == "cuda"
    return dataclasses.replace(
        config, device=device, train=dataclasses.replace(config.train, amp=amp, compile=compiled)
    )


_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision(device: torch.device, amp: str) -> AbstractContextManager:
    """Autocast to bfloat16 for amp `bf16`, to float16 for `fp16`; nothing for `float32`."""
    return torch.autocast(device.type, _AUTOCAST.get(amp, torch.bfloat16), enabled=amp in _AUTOCAST)


def set_backends(device: torch.device, deterministic: bool) -> None:
    """Let cuDNN try its algorithms for the fixed shapes, or allow only deterministic operations."""
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it before its first call
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not deterministic


def _has_bf16(device: str) -> bool:
    """Whether bfloat16 products run at full speed. CPUs without the instructions emulate them slowly."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
