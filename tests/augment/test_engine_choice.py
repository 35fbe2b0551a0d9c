"""Which engine makes the views of images on CUDA: numba-cuda's only where it can compile. It needs no GPU."""

import importlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastmagn.augment import views
from fastmagn.augment.views import Engine, choose_engine, make_views, numba_cuda_fault
from fastmagn.errors import InputError
from tests.helpers.processes import command_environment
from tests.helpers.views import params_for

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _forgotten():
    numba_cuda_fault.cache_clear()
    yield
    numba_cuda_fault.cache_clear()


def lacks_libnvvm(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling = pytest.importorskip("fastmagn_kernels.augmix_cuda.compiling")

    def missing() -> None:
        raise RuntimeError('Failure finding "libnvvm.so"')

    monkeypatch.setattr(compiling.nvvm, "NVVM", missing)


def lacks_libdevice(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling = pytest.importorskip("fastmagn_kernels.augmix_cuda.compiling")

    def missing() -> None:
        raise FileNotFoundError(2, "No such file or directory", "libdevice.10.bc")

    monkeypatch.setattr(compiling, "get_libdevice", missing)


def does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(views.CUDA_BACKENDS, "numba", "tests.augment.no_such_engine:fill_views")


def does_not_fit_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise AttributeError("module 'numba.core.types' has no attribute 'NPDatetime'")

    monkeypatch.setattr(importlib, "import_module", import_module)


FAULTS = {
    lacks_libnvvm: 'Failure finding "libnvvm.so"',
    lacks_libdevice: "[Errno 2] No such file or directory: 'libdevice.10.bc'",
    does_not_import: "No module named 'tests.augment.no_such_engine'",
    does_not_fit_numba: "module 'numba.core.types' has no attribute 'NPDatetime'",
}


@pytest.mark.parametrize("spoil", FAULTS)
def test_a_numba_cuda_that_cannot_be_used_is_one_warning_and_the_host_makes_the_views(spoil, monkeypatch):
    with monkeypatch.context() as spoiled:
        spoil(spoiled)
        with pytest.warns(UserWarning, match="numba-cuda cannot be used") as shown:
            fault = numba_cuda_fault()
    assert [str(warning.message) for warning in shown] == [
        f"numba-cuda cannot be used ({FAULTS[spoil]}): augment.backend auto makes the views of images on CUDA on the"
        " host."
    ]
    assert fault == f"cannot be used ({FAULTS[spoil]})"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a second one
        assert str(choose_engine("auto", CUDA)) == "numba on cpu"
        with pytest.raises(InputError) as error:
            choose_engine("numba", CUDA)
    assert str(error.value) == (
        f"augment.backend: got numba with images on CUDA, which needs numba-cuda; it {fault}. Install"
        " 'fastmagn[cuda]', or use auto, which makes the views on the host."
    )


def test_without_numba_cuda_the_host_makes_the_views_and_nothing_is_said(monkeypatch):
    monkeypatch.setattr(views, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(choose_engine("auto", CUDA)) == "numba on cpu"
    with pytest.raises(InputError, match="which needs numba-cuda; it is not installed"):
        choose_engine("numba", CUDA)


def test_other_engines_do_not_ask_for_numba_cuda(monkeypatch):
    does_not_import(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(choose_engine("pil", CUDA)) == "pil on cpu"
        assert str(choose_engine("auto", torch.device("cpu"))) == "numba on cpu"


def test_a_numba_cuda_that_compiles_makes_the_views_on_the_device():
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
    assert str(choose_engine("auto", CUDA)) == "numba on cuda"


@pytest.mark.parametrize("place", ["cuda:0", "cuda:1"])
def test_an_engine_on_the_device_works_on_that_of_the_images(place, monkeypatch):
    """Whichever device is the current one; the tensors are fake, so no device is needed."""
    given = []
    engine = Engine("numba", "cuda", lambda images, params, out: given.append((images.device, out.device)))
    monkeypatch.setattr(views, "choose_engine", lambda *_: engine)
    params = params_for(np.zeros((2, 8, 9, 3)))
    with FakeTensorMode():
        made = make_views(torch.empty(2, 3, 8, 9, dtype=torch.uint8, device=place), params)
    assert made.device == torch.device(place)
    assert given == [(torch.device(place), torch.device(place))]


WITHOUT_ROW_STACK = """
import numpy
del numpy.row_stack
from fastmagn_kernels.augmix_cuda.compiling import load_compiler
load_compiler()
print(hasattr(numpy, "row_stack"))
"""


@pytest.mark.process
def test_the_compiler_loads_beside_a_numpy_without_row_stack_and_leaves_it_without():
    """NumPy 2.5 has removed it; numba-cuda 0.30.4 reads it."""
    pytest.importorskip("numba_cuda")
    command = [sys.executable, "-c", WITHOUT_ROW_STACK]
    done = subprocess.run(command, env=command_environment(), capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
