"""Each failure of the machine is one line that says what to do, whichever library raised it."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from fastmagn.augment.policies.recipe import has_recipe
from fastmagn.augment.views import choose_engine
from fastmagn.config.schema import AugmentConfig, Config, TrainConfig
from fastmagn.errors import InputError
from fastmagn.evaluation import run as evaluation_run
from fastmagn.runs.failures import explain_failures, explain_measuring
from fastmagn.runs.paths import last_checkpoint
from fastmagn.theory import runs as theory_runs
from fastmagn.theory.config import GeometryConfig, TheoryConfig
from fastmagn.training import loop
from fastmagn.training import run as training_run
from tests.helpers.small_runs import knows_the_network, small

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")

MEMORY = (
    "train.batch_size: got 64 in 1 piece(s); the memory of cuda is too small for that. Lower it, or raise"
    " train.accumulation_steps."
)
COMPILE = (
    "augment.backend: the views' kernel cannot be compiled for cuda ({}); use augment.backend pil, or a driver and a"
    " numba-cuda that fit each other; then nothing has been saved yet."
)
LOST = "device: cuda failed ({}); nothing has been saved yet."


def raised(where: str, *arguments: object) -> Exception:
    """An error of a library's own class, `module:class`."""
    module, name = where.split(":")
    return getattr(importlib.import_module(module), name)(*arguments)


def explained(error: Exception, run_dir: Path) -> str:
    config = Config(device="cuda", run_dir=run_dir, train=TrainConfig(batch_size=64))
    with pytest.raises(InputError) as caught, explain_failures(config):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


NUMBA = "numba.cuda.cudadrv"
CASES = [
    (f"{NUMBA}.driver:CudaAPIError", (2, "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"), MEMORY),
    ("cuda.core._utils.cuda_utils:CUDAError", ("CUDA_ERROR_OUT_OF_MEMORY: The API call failed",), MEMORY),
    ("builtins:RuntimeError", ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",), MEMORY),
    (
        f"{NUMBA}.driver:CudaAPIError",
        (700, "Call to cuCtxSynchronize results in CUDA_ERROR_ILLEGAL_ADDRESS"),
        LOST.format("[700] Call to cuCtxSynchronize results in CUDA_ERROR_ILLEGAL_ADDRESS"),
    ),
    (
        "cuda.core._utils.cuda_utils:CUDAError",
        ("CUDA_ERROR_LAUNCH_FAILED: An exception occurred\nwhile executing a kernel",),
        LOST.format("CUDA_ERROR_LAUNCH_FAILED: An exception occurred"),
    ),
    (
        f"{NUMBA}.driver:LinkerError",
        ("[222] Call to cuLinkAddData results in CUDA_ERROR_UNSUPPORTED_PTX_VERSION",),
        COMPILE.format("[222] Call to cuLinkAddData results in CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    ),
    (f"{NUMBA}.error:NvvmError", ("Failed to compile",), COMPILE.format("Failed to compile")),
    (
        "cuda.core._utils.cuda_utils:NVRTCError",
        ("NVRTC_ERROR_COMPILATION: line 3",),
        COMPILE.format("NVRTC_ERROR_COMPILATION: line 3"),
    ),
    (
        f"{NUMBA}.error:CudaSupportError",
        ("Error at driver init: Call to cuInit",),
        COMPILE.format("Error at driver init: Call to cuInit"),
    ),
]


@pytest.mark.parametrize(("where", "arguments", "message"), CASES)
def test_errors_of_numba_cuda_and_cuda_core(where, arguments, message, tmp_path):
    assert explained(raised(where, *arguments), tmp_path / "run") == message


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AugmentConfig(policy="trivialaugment"),
        AugmentConfig(erase_probability=0.5),
        AugmentConfig(patch_linf=0.1),
    ],
    ids=["without a recipe", "policy", "erasing", "patches"],
)
def test_the_engine_that_is_advised_takes_the_runs_views(augment, tmp_path):
    text = explained(raised(f"{NUMBA}.error:NvvmError", "Failed to compile"), tmp_path / "run")
    (advised,) = re.findall(r"use augment\.backend (\w+)", text)
    assert choose_engine(advised, torch.device("cuda"), has_recipe(augment)).backend == advised


def test_the_line_says_from_where_the_run_resumes(tmp_path):
    last = last_checkpoint(tmp_path / "run")
    last.parent.mkdir(parents=True)
    last.touch()
    error = raised(f"{NUMBA}.driver:CudaAPIError", 719, "Call to cuLaunchKernel results in CUDA_ERROR_LAUNCH_FAILED")
    assert explained(error, tmp_path / "run").endswith(f"; the same command resumes from {last}.")


@pytest.mark.parametrize(
    "error",
    [
        InputError("data.dir: got 'CUDA error'; expected a folder."),
        ValueError("CUDA_ERROR_OUT_OF_MEMORY is only a text here"),
        KeyError("a key"),
        RuntimeError("shapes do not fit"),
        FileNotFoundError(2, "No such file or directory", "weights.pt"),
    ],
)
def test_other_errors_stay_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as caught, explain_failures(Config(device="cuda", run_dir=tmp_path)):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            "{field}: got 7; the memory of cuda is too small for that. Lower it.",
        ),
        (
            RuntimeError("CUDA error: misaligned address\nCompile with it"),
            "device: cuda failed (CUDA error: misaligned address); the same command measures again.",
        ),
    ],
)
@pytest.mark.parametrize("field", ["eval.batch_size", "batch_size"])
def test_where_a_model_is_measured_its_own_field_is_named(error, message, field):
    with pytest.raises(InputError) as caught, explain_measuring("cuda", 7, field):
        raise error
    assert str(caught.value) == message.format(field=field)


@pytest.mark.parametrize(
    "error", [InputError("data.dir: CUDA error"), OSError(28, "No space left"), ValueError("CUDA error")]
)
def test_where_a_model_is_measured_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught, explain_measuring("cuda", 7):
        raise error
    assert caught.value is error


def test_commands_that_measure_explain_a_lack_of_memory(undisturbed, tmp_path, monkeypatch):
    """The training of a run succeeds and its evaluation does not; then `evaluate`, and `theory`, which has no eval."""

    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    knows_the_network(monkeypatch)
    for module in (training_run, evaluation_run):
        monkeypatch.setattr(module, "evaluate_model", fail)
    monkeypatch.setattr(theory_runs, "measure_geometry", fail)
    config = small(tmp_path / "run", "--eval.batch_size", "33")
    named = r"^eval\.batch_size: got 33; the memory of cpu is too small for that\. Lower it\.$"
    with pytest.raises(InputError, match=named):
        training_run.train(config)
    with pytest.raises(InputError, match=named):
        evaluation_run.evaluate_run(undisturbed, config)
    with pytest.raises(InputError, match=r"^batch_size: got 64; the memory of cpu is too small for that\. Lower it\.$"):
        theory_runs.measure_runs([undisturbed], TheoryConfig(out=tmp_path / "out", device="cpu"), GeometryConfig())


def test_a_lack_of_memory_for_the_validation_names_its_field(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    knows_the_network(monkeypatch)
    monkeypatch.setattr(loop, "predict", fail)
    with pytest.raises(InputError, match=r"^eval\.batch_size: got 1000; "):
        training_run.train(small(tmp_path / "run"))


@pytest.mark.parametrize("fails", ["torch.load", "the weights", "the optimiser"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_a_lack_of_memory_is_no_damage_to_a_checkpoint(error, fails, tmp_path, monkeypatch):
    """It said that the file cannot be read, and to remove it."""

    def fail(*arguments, **options):
        raise error

    knows_the_network(monkeypatch)
    training_run.train(small(tmp_path / "run", "--train.max_steps", "2"))
    kept = last_checkpoint(tmp_path / "run").read_bytes()
    owner, name = {
        "torch.load": (torch, "load"),
        "the weights": (nn.Module, "load_state_dict"),
        "the optimiser": (torch.optim.Optimizer, "load_state_dict"),
    }[fails]
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(InputError) as caught:
        training_run.train(small(tmp_path / "run"))
    line = {"torch.load": f"{last_checkpoint(tmp_path / 'run')}: cannot be read now ({error}); it need not be damaged."}
    assert line.get(fails, "the memory of cpu is too small for that") in str(caught.value)
    assert "emove" not in str(caught.value)
    assert last_checkpoint(tmp_path / "run").read_bytes() == kept
