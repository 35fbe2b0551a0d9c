"""Models are pushed to a stand-in for the hub, which keeps files in a folder, and pulled from it."""

import socket
import sys

import numpy as np
import pytest
import yaml

import fastmagn
from fastmagn.errors import InputError
from fastmagn.export import main
from fastmagn.exporting.hub import from_hub, push_to_hub

huggingface_hub = pytest.importorskip("huggingface_hub")
REAL = huggingface_hub.HfApi


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from tests.helpers.hub import stand_in  # needs huggingface_hub

    return stand_in(tmp_path / "hub", monkeypatch)


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


def test_a_hub_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"")
    (tmp_path / "m.safetensors.md").write_text("card")
    with socket.socket() as closed:  # bound and not listening, so that nobody else does
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: REAL(endpoint=endpoint, token="none"))
        with pytest.raises(InputError, match=r"^hub: me/mine: ConnectError: .*refused.*$"):
            push_to_hub(file, "me/mine")
        with pytest.raises(InputError, match=r"^hub: me/mine: \w+: .+$"):
            from_hub("me/mine")


def test_without_the_extra_nothing_is_exported(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    out = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match=r"^hub: needs huggingface_hub; pip install 'fastmagn\[hub\]'\.$"):
        main(["--run", str(run_dir), "--format", "safetensors", "--out", str(out), "--push", "me/mine"])
    assert not out.exists()
