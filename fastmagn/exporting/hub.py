"""Exported models on the Hugging Face Hub: a file that holds no code, and its model card as README.md."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastmagn.errors import InputError, one_line, without
from fastmagn.exporting.classifier import Classifier, load

_FRONT_MATTER = "---\nlibrary_name: fastmagn\npipeline_tag: image-classification\ntags: [robustness, fastmagn]\n---\n\n"
_SUFFIXES = (".safetensors", ".onnx")


def check_hub() -> None:
    """Raise InputError if huggingface_hub cannot be imported."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise without("huggingface_hub", error, "hub: needs huggingface_hub; pip install 'fastmagn[hub]'.") from error


def push_to_hub(file: str | Path, repo: str) -> str:
    """Send a file of `python -m fastmagn.export` and the card beside it to a repository, in one commit.

    Its name there is model.safetensors or model.onnx. The token is the one that `hf auth login` has stored.

    Args:
        file: NAME.safetensors or NAME.onnx; NAME.safetensors.md beside it is its card.
        repo: OWNER/NAME. If it does not exist, it is made, private.

    Returns:
        The address of the commit.

    Raises:
        InputError: The file or its card is missing, huggingface_hub is not installed, or the hub refuses it.
    """
    check_hub()
    from huggingface_hub import CommitOperationAdd, HfApi

    path = Path(file)
    card = path.with_name(f"{path.name}.md")
    for needed in (path, card):
        if path.suffix not in _SUFFIXES or not needed.is_file():
            raise InputError(f"{needed}: expected a file of python -m fastmagn.export, and its card beside it.")
    name = f"model{path.suffix}"
    text = _FRONT_MATTER + card.read_text(encoding="utf-8").replace(path.name, name)
    with _explained(repo):
        api = HfApi()
        api.create_repo(repo, private=True, exist_ok=True)
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=path),
            CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=text.encode()),
        ]
        return str(api.create_commit(repo, operations, commit_message=f"fastmagn: {path.name}").commit_url)


def from_hub(
    repo: str, *, file: str = "model.safetensors", revision: str | None = None, device: str = "auto"
) -> Classifier:
    """Load a classifier that `push_to_hub` has sent. No code of the repository is run.

    Args:
        repo: OWNER/NAME.
        file: Its name in the repository: NAME.safetensors or NAME.onnx.
        revision: A branch, tag or commit; None is the newest. A commit's hash always gives the same file.
        device: As in `fastmagn.load`.

    Raises:
        InputError: huggingface_hub is not installed, the hub does not have the file, or `load` refuses it.
    """
    check_hub()
    from huggingface_hub import HfApi

    if Path(file).suffix not in _SUFFIXES:
        raise InputError(f"{repo}: file: got {file!r}; expected NAME.safetensors or NAME.onnx.")
    with _explained(repo):
        path = HfApi().hf_hub_download(repo, file, revision=revision)
    return load(path, device)


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Whatever the hub's client raises is one line."""
    try:
        yield
    except Exception as error:  # its own errors, and those of the HTTP library that it was installed with
        raise InputError(f"hub: {repo}: {type(error).__name__}: {one_line(error)}") from error
