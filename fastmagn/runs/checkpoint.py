"""A run's state on disk: what a resumed run needs to go on bit for bit.

The random stream has no state (every draw is a function of seed, epoch and sample index), nor has the learning rate,
so that weights, optimiser, loss scaler, position and the epoch's running sums are everything.
"""

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import InputError
from fastmagn.machine.files import replace_file
from fastmagn.runs.progress import Progress

_DIGITS = 64  # of a SHA-256
_HEAD = re.compile(rb"fastmagn step (\d{12}) sha256 ")
_HEAD_BYTES = len(b"fastmagn step 000000000000 sha256 ")
_CHUNK_BYTES = 1 << 20

FORMAT_VERSION = 3
_KEYS = {
    **{"step": int, "config": dict, "config_sha256": str, "data_fingerprint": str},
    **{"model": dict, "optimizer": dict, "scaler": dict, "progress": dict},
}


def save_checkpoint(
    path: Path,
    *,
    step: int,
    progress: Progress,
    config: dict[str, Any],
    data_fingerprint: str,
    **states: dict[str, Any],
) -> None:
    """Write a checkpoint beside `path`, with its checksum, flush it, and rename it over `path`.

    Args:
        path: The file.
        step: Steps of the whole run that are done.
        progress: Where the run stands, all of it finite.
        config: The run's, flat.
        data_fingerprint: Of the images that it is trained on.
        states: The state_dict of all that trains: `model`, `optimizer`, `scaler`, `average`.
    """
    state = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "config": config,
        "config_sha256": config_sha256(config),
        "data_fingerprint": data_fingerprint,
        **states,
        "progress": progress.state(),
    }
    with replace_file(path) as file:
        torch.save(state, file)
        seal(file, step)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on `device`; no code in the file is run, and nothing in it looked at before its
    checksum.

    Raises:
        InputError: The file is missing, damaged, or of another format version.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a file; expected a checkpoint. Remove it.")  # a pipe would be waited for
    try:
        with path.open("rb") as file:
            if reason := damage(file):
                raise InputError(
                    f"{path}: {reason}. python -m fastmagn.train with this --run_dir goes on from the checkpoint before"
                    " it; or put a whole copy in its place."
                )
            _check_members(file)
            state = torch.load(file, map_location=device, weights_only=True)
        version = state["format_version"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; expected a run folder with a trained model.") from None
    except InputError:
        raise
    except Exception as error:  # a forged file can make the reader fail in any way
        raise InputError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); remove it.") from error
    if type(version) is not int or version != FORMAT_VERSION:
        raise InputError(
            f"{path}: got checkpoint format {str(version)[:40]}; expected {FORMAT_VERSION}. Use its own fastmagn."
        )
    if missing := [name for name, kind in _KEYS.items() if not isinstance(state.get(name), kind)]:
        raise InputError(f"{path}: has no {', '.join(sorted(missing))}; it is no checkpoint of a run. Remove it.")
    return state


def _check_members(file: IO[bytes]) -> None:
    """Refuse an archive that unfolds to more than it is; the file is left at its beginning.

    Raises:
        ValueError: It does.
        zipfile.BadZipFile: It is no archive.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > size:
            raise ValueError("it unfolds to more than its size")
    file.seek(0)


def config_sha256(config: dict[str, Any]) -> str:
    """The SHA-256 of a flat config, whatever its order."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def load_model(state: dict[str, Any], model: nn.Module, path: Path, weights: str = "last") -> None:
    """Load the weights of a read checkpoint, the last step's or their average (`ema`).

    Raises:
        InputError: They do not fit the model, or there is no average.
    """
    name = {"last": "model", "ema": "average"}[weights]
    if name == "average" and "average" not in state:
        raise InputError(f"eval.weights: got 'ema'; expected last, as {path} was trained with train.ema_decay 0.")
    try:
        model.load_state_dict(state[name])
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its weights do not fit this model; check model.name and data.name.") from error


def check_same_run(state: dict[str, Any], config: dict[str, Any], data_fingerprint: str, path: Path) -> None:
    """Raise InputError unless a read checkpoint is of this run: a config that decides the same weights, the same data.

    Args:
        state: From `read_checkpoint`.
        config: This run's, flat.
        data_fingerprint: Of the images that this run trains on.
        path: Where the checkpoint is, for the message.
    """
    if state["config_sha256"] != config_sha256(config):
        saved, defaults = state["config"], flatten(Config())
        for name, value in config.items():
            before = saved.get(name, defaults[name])  # a field that is younger than the checkpoint
            if not _may_change(name) and before != value:
                raise InputError(
                    f"{name}: got {value!r}; expected {before!r}, with which {path} was made. "
                    "Name another --run_dir to train anew."
                )
    before = state["data_fingerprint"]
    if before != data_fingerprint:
        raise InputError(
            f"data.dir: {config['data.dir']} has other training images or labels than {path} was made with (fingerprint"
            f" {data_fingerprint[:16]}, then {before[:16]}); give the folder that has them, or name another --run_dir"
            " to train anew."
        )


def _may_change(name: str) -> bool:
    """Whether a resumed run may have another value of this field: it decides nothing about the weights."""
    return name.startswith("eval.") or name in {
        *("run_dir", "resume", "device", "data.dir", "data.download", "data.source", "data.num_workers"),
        *("train.max_steps", "train.checkpoint_every_steps", "train.keep_checkpoints", "train.profile"),
        "train.wandb_project",
        *("train.compile", "train.compile_mode", "train.deterministic", "augment.backend"),
    }


def seal(file: IO[bytes], step: int) -> None:
    """Add step and checksum to a zip archive without a comment, open for reading and writing."""
    head = b"fastmagn step %012d sha256 " % step
    file.seek(-2, os.SEEK_END)
    assert file.read(2) == b"\0\0", "the archive has a comment"
    file.seek(-2, os.SEEK_END)
    file.write((len(head) + _DIGITS).to_bytes(2, "little") + head)
    size = file.tell()
    file.seek(0)
    digest = _sha256(file, size)
    file.seek(size)
    file.write(digest)


def damage(file: IO[bytes]) -> str | None:
    """What is wrong with a sealed file, in words that follow its name; None if it is as it was written.

    Nothing in it is interpreted. The file is left at its beginning.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return "is empty"
    if _step(file, size) is None:
        return "does not end with a checksum: it is cut short, or of another version of fastmagn"
    file.seek(0)
    digest, written = _sha256(file, size - _DIGITS), file.read(_DIGITS)
    file.seek(0)
    return None if digest == written else "does not match its checksum: it is damaged"


def sealed_step(path: Path) -> int | None:
    """The step in a sealed file's comment; None where it has none. The checksum is not looked at."""
    with path.open("rb") as file:
        return _step(file, file.seek(0, os.SEEK_END))


def _step(file: IO[bytes], size: int) -> int | None:
    if size < _HEAD_BYTES + _DIGITS:
        return None
    file.seek(size - _DIGITS - _HEAD_BYTES)
    head = _HEAD.fullmatch(file.read(_HEAD_BYTES))
    return None if head is None else int(head[1])


def _sha256(file: IO[bytes], num_bytes: int) -> bytes:
    """The digits of the next `num_bytes` bytes."""
    digest = hashlib.sha256()
    while num_bytes > 0 and (chunk := file.read(min(num_bytes, _CHUNK_BYTES))):
        digest.update(chunk)
        num_bytes -= len(chunk)
    return digest.hexdigest().encode()
