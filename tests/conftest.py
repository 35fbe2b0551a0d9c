"""Fixtures of all tests, and on how many processes and threads they run."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before numpy, numba and PyTorch are imported, for this process and all that it starts. Two processes of tests share
# two cores; and sums of floats depend on the number of threads, so that a run in a process of its own equals one here
# to the bit only on as many.
for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

NUM_PROCESSES = 2

settings.register_profile("fastmagn", deadline=None)  # no test asserts a time: the first example may compile a kernel
settings.load_profile("fastmagn")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`, which pyproject.toml asks for: two for the whole suite, none beside this one for a part of it."""
    return NUM_PROCESSES if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that holds the real cifar-10-batches-py and cifar-100-python; skips where there is none."""
    folder = os.environ.get("FASTMAGN_DATA")
    if not folder:
        pytest.skip("FASTMAGN_DATA is not set (the folder that holds cifar-10-batches-py and cifar-100-python)")
    return Path(folder)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """One headless Chromium for a module's tests."""
    from tests.helpers.browser import chromium

    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def browser(driver):
    """The module's browser, as a desktop's, on an empty light page."""
    from tests.helpers.browser import cleared

    return cleared(driver)


@pytest.fixture(scope="session")
def ptx_builder(tmp_path_factory, pytestconfig):
    """Compiles what runs PTX on the CPU (tests/ptx), once for all processes of the session; skips without g++."""
    from tests.helpers.small_runs import session_folder
    from tests.ptx.building import COMPILER, Builder

    if COMPILER is None:
        pytest.skip("needs g++, which compiles what runs PTX on the CPU")
    return Builder(session_folder(tmp_path_factory, pytestconfig) / "ptx")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, pytestconfig) -> Path:
    """The run folder of `small`, which nothing interrupted. Nobody may write to it, but to a copy."""
    from fastmagn.training.run import train
    from tests.helpers.small_runs import knows_the_network, made_once, small

    def make(run_dir: Path) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            knows_the_network(monkeypatch)
            train(small(run_dir))

    return made_once(tmp_path_factory, pytestconfig, "smooth", make)


@pytest.fixture(scope="session")
def undisturbed_default(tmp_path_factory, pytestconfig) -> Path:
    """The same of `small_default`."""
    from fastmagn.training.run import train
    from tests.helpers.small_runs import made_once, small_default

    return made_once(tmp_path_factory, pytestconfig, "default", lambda run_dir: train(small_default(run_dir)))
