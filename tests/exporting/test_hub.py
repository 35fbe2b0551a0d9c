"""Models are pushed to a stand-in for the hub, which keeps files in a folder, and pulled from it."""

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import fastmagn
from fastmagn.errors import InputError
from fastmagn.export import main
from fastmagn.exporting.hub import from_hub, push_to_hub

huggingface_hub = pytest.importorskip("huggingface_hub")
REAL = huggingface_hub.HfApi


class StandIn:
    """Takes what the real client's methods take: each call is bound to their signatures first."""

    folder: Path
    calls: list[tuple[str, dict]]

    def _bound(self, name: str, *arguments: object, **options: object) -> dict:
        given = inspect.signature(getattr(REAL, name)).bind(self, *arguments, **options).arguments
        self.calls.append((name, given))
        return given

    def create_repo(self, *arguments, **options) -> None:
        given = self._bound("create_repo", *arguments, **options)
        (self.folder / given["repo_id"]).mkdir(parents=True, exist_ok=given["exist_ok"])

    def create_commit(self, *arguments, **options) -> SimpleNamespace:
        given = self._bound("create_commit", *arguments, **options)
        for operation in given["operations"]:
            with operation.as_file() as file:
                (self.folder / given["repo_id"] / operation.path_in_repo).write_bytes(file.read())
        return SimpleNamespace(commit_url=f"hub/{given['repo_id']}/commit/1")

    def hf_hub_download(self, *arguments, **options) -> str:
        given = self._bound("hf_hub_download", *arguments, **options)
        path = self.folder / given["repo_id"] / given["filename"]
        if not path.is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there,\nnor in the cache")
        return str(path)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> type[StandIn]:
    stand_in = type("Hub", (StandIn,), {"folder": tmp_path / "hub", "calls": []})
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    return stand_in


def test_a_model_is_pushed_and_pulled(run_dir, images_u8, hub, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    arguments = ["--run", str(run_dir), "--format", "safetensors", "--out", str(out), "--push", "me/mine"]
    assert main(arguments) == 0
    assert "pushed: hub/me/mine/commit/1" in capsys.readouterr().out
    assert [name for name, _ in hub.calls] == ["create_repo", "create_commit"]
    assert hub.calls[0][1]["private"] is True
    pushed = hub.folder / "me" / "mine"
    assert sorted(path.name for path in pushed.iterdir()) == ["README.md", "model.safetensors"]
    assert (pushed / "model.safetensors").read_bytes() == out.read_bytes()
    _, matter, card = (pushed / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(matter)["pipeline_tag"] == "image-classification"
    assert card.strip().startswith("# model.safetensors\n")
    assert "mine.safetensors" not in card
    pulled = from_hub("me/mine", revision="main", device="cpu").predict(images_u8)
    np.testing.assert_array_equal(pulled.probabilities, fastmagn.load(out, "cpu").predict(images_u8).probabilities)
    assert hub.calls[-1][1]["revision"] == "main"


def test_what_cannot_be_pushed_or_pulled_is_one_line(hub, tmp_path, monkeypatch):
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"m\.safetensors\.md: expected a file of python -m fastmagn\.export"):
        push_to_hub(file, "me/mine")
    with pytest.raises(InputError, match=r"^hub: me/mine: LocalEntryNotFoundError: not there, nor in the cache$"):
        from_hub("me/mine")
    with pytest.raises(InputError, match=r"got 'model\.pkl'; expected NAME\.safetensors or NAME\.onnx\.$"):
        from_hub("me/mine", file="model.pkl")
    assert [name for name, _ in hub.calls] == ["hf_hub_download"]
    monkeypatch.setattr(huggingface_hub, "HfApi", REAL)
    (tmp_path / "m.safetensors.md").write_text("card")
    with pytest.raises(InputError, match=r"^hub: a/b/c: HFValidationError: "):
        from_hub("a/b/c")


def test_without_the_extra_nothing_is_exported(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    out = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match=r"^hub: needs huggingface_hub; pip install 'fastmagn\[hub\]'\.$"):
        main(["--run", str(run_dir), "--format", "safetensors", "--out", str(out), "--push", "me/mine"])
    assert not out.exists()
