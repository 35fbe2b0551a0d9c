"""The tables of names, put back as they were: what `--import` and `fastmagn.extend` add stays for the whole process."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from fastmagn.config import corruption_sets, own_code
from fastmagn.corruptions import CORRUPTIONS
from fastmagn.data import DATASETS
from fastmagn.methods.table import METHODS
from fastmagn.models import MODELS
from tests.helpers.processes import ROOT


@contextmanager
def forgotten() -> Iterator[Callable[[], None]]:
    """Forget, at the end, what was added meanwhile; the function that it yields does so at once, as a new process."""
    tables = [(table, dict(table)) for table in (DATASETS, METHODS, MODELS, CORRUPTIONS)]
    names = list(corruption_sets.SET_NAMES)

    with pytest.MonkeyPatch.context() as patched:

        def forget() -> None:
            patched.setattr(own_code, "_sources", {})
            for table, before in tables:
                table.clear()
                table.update(before)
            corruption_sets.SET_NAMES[:] = names

        forget()
        yield forget
        forget()


@contextmanager
def loaded_anew(name: str) -> Iterator[ModuleType]:
    """The module benchmarks/NAME.py, loaded anew; what it adds to the tables is forgotten at the end."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with forgotten():
        spec.loader.exec_module(module)
        yield module
