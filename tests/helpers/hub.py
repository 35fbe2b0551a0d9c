"""A stand-in for the Hugging Face Hub, which keeps files in a folder. Needs the extra hub."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

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


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """The hub's client until the test ends; its files are in `folder`."""
    client = type("Hub", (StandIn,), {"folder": folder, "calls": []})
    monkeypatch.setattr(huggingface_hub, "HfApi", client)
    return client
