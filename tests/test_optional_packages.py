"""A package of an extra that is not there, and one that is there and cannot be loaded, are told apart."""

import importlib
import sys
from types import ModuleType

import pytest

from fastmagn.config.completion import completion_script
from fastmagn.data.hf_set import hub_files
from fastmagn.errors import InputError, without
from fastmagn.exporting.hub import check_hub
from fastmagn.exporting.onnx_file import _require
from fastmagn.models.timm_networks import timm_network
from fastmagn.runs.wandb import _package
from fastmagn.sweeping import on_ray

BROKEN = "libcudart.so.12: cannot open shared object file"
USES = {
    "datasets": ("data.dir", lambda: hub_files("owner/set", ("train",))),
    "huggingface_hub": ("hub", check_hub),
    "onnxruntime": ("onnx", lambda: _require("onnxruntime")),
    "shtab": ("--print_completion", lambda: completion_script("fastmagn", {}, {}, "bash")),
    "timm": ("model.name", lambda: timm_network("resnet18", 10, (32, 32))),
    "wandb": ("train.wandb_project", _package),
}


def said(package: str, module: str) -> str:
    """What is said of `package` where the import of `module` fails."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(without(package, error, "field: needs it."))
    raise AssertionError(f"{module} can be imported")


@pytest.mark.parametrize(
    ("package", "module", "missing"),
    [
        ("absent_one", "absent_one", True),
        ("absent_one.part", "absent_one.part.inner", True),
        ("spaces.absent_part", "spaces.absent_part", True),
        ("needs_another", "needs_another", False),
        ("spaces.broken", "spaces.broken", False),
        ("spaces.whole", "spaces.whole.absent_part", False),
    ],
)
def test_only_a_package_that_is_not_there_is_missing(package, module, missing, tmp_path, monkeypatch):
    (tmp_path / "spaces" / "whole").mkdir(parents=True)
    (tmp_path / "spaces" / "whole" / "__init__.py").touch()
    (tmp_path / "spaces" / "broken.py").write_text(f"raise ImportError({BROKEN!r})")
    (tmp_path / "needs_another.py").write_text("import absent_one")
    monkeypatch.syspath_prepend(tmp_path)
    text = said(package, module)
    assert (text == "field: needs it.") is missing
    assert text.startswith(f"field: {package} is installed, but cannot be used (") is not missing


@pytest.mark.parametrize("package", USES)
def test_a_package_that_cannot_be_loaded_is_not_called_missing(package, tmp_path, monkeypatch):
    field, use = USES[package]
    (tmp_path / f"{package}.py").write_text(f"raise ImportError({BROKEN!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(InputError) as error:
        use()
    assert str(error.value) == f"{field}: {package} is installed, but cannot be used ({BROKEN}); install it anew."


def test_a_ray_that_cannot_be_loaded_is_not_called_missing(monkeypatch):
    monkeypatch.setattr(on_ray, "_fault", ImportError(BROKEN))
    with pytest.raises(InputError, match=r"^sweep: ray is installed, but cannot be used \(libcudart"):
        on_ray.check_ray()
    monkeypatch.setattr(on_ray, "_fault", ModuleNotFoundError("No module named 'ray'", name="ray"))
    with pytest.raises(InputError, match=r"^sweep: needs Ray Tune; pip install 'fastmagn\[ray\]'\.$"):
        on_ray.check_ray()


@pytest.mark.parametrize(
    ("package", "module", "field"),
    [
        ("kornia", "fastmagn.augment.engines.kornia", "augment.backend"),
        ("nvidia.dali", "fastmagn.augment.engines.dali", "augment.backend"),
        ("nvidia.dali", "fastmagn.data.files.dali_crops", "data.source"),
        ("pyarrow", "fastmagn.data.files.arrow_rows", "data.name"),
    ],
)
def test_a_package_without_what_is_imported_is_not_called_missing(package, module, field, monkeypatch):
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(InputError) as error:
        importlib.import_module(module)
    assert str(error.value).startswith(f"{field}: {package} is installed, but cannot be used (")
