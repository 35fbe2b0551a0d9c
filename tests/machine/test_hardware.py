"""What `auto` means, what is refused, and that float32 is float32; a GPU is played by what PyTorch says of it."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.config.schema import Config, TrainConfig
from fastmagn.errors import InputError
from fastmagn.evaluation import measure
from fastmagn.evaluation.measure import predict
from fastmagn.exporting.classifier import _in_torch
from fastmagn.machine.hardware import (
    full_float32,
    in_runs_precision,
    indexed,
    is_slow_precision,
    precision,
    set_backends,
    settle_hardware,
)
from fastmagn.machine.processes import join_world

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def settings() -> tuple[str, str, str]:
    """The precision of convolutions, recurrent networks and matrix products of float32 on CUDA."""
    backends = torch.backends
    return (
        backends.cudnn.conv.fp32_precision,
        backends.cudnn.rnn.fp32_precision,
        backends.cuda.matmul.fp32_precision,
    )


@pytest.fixture(autouse=True)
def _restored():
    benchmark = torch.backends.cudnn.benchmark
    with full_float32():  # which puts back what was there
        yield
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)


def allow_tf32() -> None:
    """As a user's program may, for all products."""
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True


def forbid_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def use_newer_settings() -> None:
    """They differ from the older ones from then on, and PyTorch refuses to read those."""
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def tf32_is_allowed() -> tuple[bool, bool]:
    """By PyTorch's older settings, which refuse to answer if the newer ones do not agree."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


class Recorder(nn.Module):
    """A network that notes the settings of its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(settings())
        return images.flatten(1)[:, :3]


def multiply_coarsely() -> None:
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")


@pytest.mark.parametrize("choose", [allow_tf32, forbid_tf32, multiply_coarsely])
def test_full_float32_turns_tensorfloat_off_and_leaves_the_programs_own_choice(choose):
    choose()
    before, by_older = settings(), (tf32_is_allowed(), torch.get_float32_matmul_precision())
    with full_float32():
        assert settings() == ("ieee",) * 3
        assert tf32_is_allowed() == (False, False)
    assert settings() == before
    assert (tf32_is_allowed(), torch.get_float32_matmul_precision()) == by_older


def test_full_float32_leaves_the_choice_of_a_program_that_uses_pytorchs_newer_settings():
    use_newer_settings()
    before = settings()
    with full_float32():
        assert settings() == ("ieee",) * 3
        assert tf32_is_allowed() == (False, False)
    assert settings() == before


def test_a_device_keeps_the_number_that_it_had_first(monkeypatch):
    """`cuda` alone is the thread's current device, which may be another one later."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert indexed(CUDA) == torch.device("cuda", 1)
    assert indexed(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert indexed(CPU) == CPU
    with join_world(CUDA) as (_, device):
        assert device == torch.device("cuda", 1)


def test_a_prediction_sends_its_images_without_waiting_for_the_device(monkeypatch):
    sent = []
    monkeypatch.setattr(measure, "to_device", lambda tensor, device: sent.append((tensor.shape, device)) or tensor)
    predict(Recorder(), np.zeros((5, 4, 4, 3), np.uint8), device=CPU, amp="float32", batch_size=2)
    assert sent == [((2, 4, 4, 3), CPU), ((2, 4, 4, 3), CPU), ((1, 4, 4, 3), CPU)]


def test_threads_that_overlap_have_float32_until_the_last_one_leaves():
    """The first to enter leaves first, as a server's threads may."""
    allow_tf32()
    first, second, third = (full_float32() for _ in range(3))
    for context in (first, second, third):
        context.__enter__()
    for context in (first, third):
        context.__exit__(None, None, None)
        assert settings() == ("ieee",) * 3
    second.__exit__(None, None, None)
    assert settings() == ("tf32",) * 3


@pytest.mark.parametrize("amp", ["bfloat16", "auto", "f32", ""])
def test_another_name_of_a_precision_is_refused(amp):
    with pytest.raises(InputError, match=f"amp: got '{amp}'; expected float32, bf16 or fp16"):
        predict(Recorder(), np.zeros((2, 4, 4, 3), np.uint8), device=CPU, amp=amp, batch_size=2)


@pytest.mark.parametrize("amp", ["float32", "bf16"])
def test_a_prediction_in_float32_is_without_tensorfloat(amp):
    allow_tf32()
    model, images = Recorder(), np.zeros((2, 4, 4, 3), np.uint8)
    predict(model, images, device=CPU, amp=amp, batch_size=2)
    assert model.seen == [("ieee" if amp == "float32" else "tf32",) * 3]


def test_a_classifier_predicts_without_tensorfloat():
    allow_tf32()
    model = Recorder()
    _in_torch(model, "cpu")(np.zeros((2, 4, 4, 3), np.uint8))
    assert model.seen == [("ieee",) * 3]
    assert settings() == ("tf32",) * 3


def test_float32_ends_an_autocast_around_it_and_bf16_begins_one():
    with torch.autocast("cpu", torch.bfloat16):
        with precision(CPU, "float32"):
            assert not torch.is_autocast_enabled("cpu")
        with precision(CPU, "fp16"):
            assert torch.get_autocast_dtype("cpu") == torch.float16
    with precision(CPU, "bf16"):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("amp", "expected"), [("float32", "ieee"), ("bf16", "tf32"), ("fp16", "tf32")])
def test_a_run_in_float32_has_no_tensorfloat_in_any_pass(amp, expected):
    allow_tf32()
    set_backends(CUDA, False, amp)
    assert settings() == (expected,) * 3


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("before", ["default", "warn", "error"])
def test_only_deterministic_operations_are_allowed_or_all(before, deterministic):
    torch.set_deterministic_debug_mode(before)
    set_backends(CPU, deterministic, "float32")
    assert torch.get_deterministic_debug_mode() == (2 if deterministic else 0)


def train_config(**fields: object) -> Config:
    return Config(device="cuda", train=TrainConfig(batch_size=64, **fields))


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_cuda_graphs_refuse_accumulation_steps(mode, gpu):
    """The graph's replay for a piece writes where the gradients of the piece before still are."""
    with pytest.raises(InputError) as error:
        settle_hardware(train_config(accumulation_steps=4, compile_mode=mode))
    assert str(error.value) == (
        f"train.accumulation_steps: got 4; expected 1 with train.compile_mode {mode}, because a CUDA graph overwrites"
        " the gradients of the piece before. Use train.compile_mode default."
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"compile_mode": "reduce-overhead"},
        {"accumulation_steps": 4},
        {"accumulation_steps": 4, "compile_mode": "max-autotune", "compile": False},
    ],
)
def test_what_has_no_graphs_or_no_pieces_is_settled(fields, gpu):
    assert settle_hardware(train_config(**fields)).device == "cuda"


@pytest.mark.parametrize(
    ("device", "amp", "has_bf16", "measured"),
    [
        ("cpu", "bf16", False, "float32"),
        ("cpu", "bf16", True, "bf16"),
        ("cpu", "fp16", True, "float32"),
        ("cpu", "float32", False, "float32"),
        ("cuda", "fp16", False, "fp16"),
        ("cuda", "bf16", False, "float32"),
        ("cuda", "float32", True, "float32"),
    ],
)
def test_a_run_is_measured_in_its_precision_where_it_is_fast(device, amp, has_bf16, measured, gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16}, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    config = in_runs_precision(Config(device=device, train=TrainConfig(amp=amp)))
    assert (config.device, config.train.amp) == (device, measured)
    line = f"measured in float32, as {amp}, in which the run was trained, is slow here; --train.amp {amp} keeps it."
    assert (line in capsys.readouterr().out) == (amp != measured)


def test_an_absent_gpu_is_refused_and_not_called_slow(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not is_slow_precision("cuda", "bf16")
    with pytest.raises(InputError, match=r"^device: got 'cuda'"):
        settle_hardware(Config(device="cuda", train=TrainConfig(amp="bf16")))


def test_pieces_on_a_cpu_have_no_cuda_graphs():
    config = dataclasses.replace(
        train_config(accumulation_steps=4, compile=True, compile_mode="max-autotune"), device="cpu"
    )
    assert settle_hardware(config).train.accumulation_steps == 4


def test_auto_is_compiled_bf16_on_a_gpu(gpu):
    settled = settle_hardware(Config())
    assert (settled.device, settled.train.amp, settled.train.compile) == ("cuda", "bf16", True)
