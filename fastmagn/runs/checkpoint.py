"""Checkpoints: all that a run needs to resume bit for bit.

Neither the random stream nor the learning rate has state: every draw is a function of seed, epoch and sample index. So
a checkpoint holds the weights, the optimiser, the loss scaler, the position and the running sums of the epoch.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastmagn.archives import check_members
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import InputError, one_line
from fastmagn.machine.console import console, warn
from fastmagn.machine.files import replace_file
from fastmagn.runs.changes import may_change, views_of
from fastmagn.runs.checksum import add_checksum, find_damage
from fastmagn.runs.failures import is_of_the_machine
from fastmagn.runs.paths import POLICY, last_checkpoint, step_checkpoints
from fastmagn.runs.progress import Progress

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
    recipe: dict[str, int | str] | None = None,
    decoder: str | None = None,
    **states: dict[str, Any],
) -> None:
    """Write a checkpoint and its checksum beside `path`, flush the file, and rename it to `path`.

    Args:
        path: The file.
        step: Steps of the whole run that are done.
        progress: The position of the run; all its numbers are finite.
        config: The flat configuration of the run.
        data_fingerprint: Fingerprint of the training images.
        recipe: What `augment.policies.recipe.read_recipe` returns.
        decoder: What decodes the training images, `cpu` or `gpu`; None if they are arrays.
        states: The state_dict of everything that trains: `model`, `optimizer`, `scaler`, `average`; and
            `statistics`, the average's buffers that further epochs average on, where other ones were measured.
    """
    state = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "config": config,
        "config_sha256": config_sha256(config),
        "data_fingerprint": data_fingerprint,
        "recipe": recipe,
        "decoder": decoder,
        **states,
        "progress": progress.state(),
    }
    with replace_file(path) as file:
        torch.save(state, file)
        add_checksum(file, step)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto `device`.

    No code in the file is run. The checksum is verified before anything else is read.

    Raises:
        InputError: The file is missing or damaged, or has another format version.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a file; expected a checkpoint. Remove it.")  # a pipe would block
    try:
        with path.open("rb") as file:
            if reason := find_damage(file):
                raise InputError(
                    f"{path}: {reason}. python -m fastmagn.train with this --run_dir resumes from the checkpoint"
                    " before it; or put an intact copy in its place."
                )
            check_members(file)
            state = torch.load(file, map_location=device, weights_only=True)
        version = state["format_version"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; expected a run folder with a trained model.") from None
    except InputError:
        raise
    except Exception as error:  # a forged file can make the reader fail in any way
        if is_of_the_machine(error):
            raise InputError(
                f"{path}: cannot be read now ({one_line(error)}); it need not be damaged. Make"
                " room in the memory, or wait for the device; the same command tries again."
            ) from error
        raise InputError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); remove it.") from error
    if type(version) is not int or version != FORMAT_VERSION:
        raise InputError(
            f"{path}: got checkpoint format {str(version)[:40]}; expected {FORMAT_VERSION}. Use its own fastmagn."
        )
    if missing := [name for name, kind in _KEYS.items() if not isinstance(state.get(name), kind)]:
        raise InputError(f"{path}: has no {', '.join(sorted(missing))}; it is not the checkpoint of a run. Remove it.")
    return state


def newest_readable(run_dir: Path) -> dict[str, Any] | None:
    """What the newest checkpoint of a run that can be read holds, in the host's memory; None if there is none."""
    for path in (last_checkpoint(run_dir), *step_checkpoints(run_dir).values()):
        with suppress(InputError):
            return read_checkpoint(path, torch.device("cpu"))
    return None


def config_sha256(config: dict[str, Any]) -> str:
    """The SHA-256 of a flat config; the order of its fields does not matter."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def load_model(state: dict[str, Any], model: nn.Module, path: Path, weights: str = "last") -> None:
    """Load the weights of a checkpoint into a model: the last step's (`last`) or their average (`ema`).

    Raises:
        InputError: The weights do not fit the model, or there is no average.
    """
    name = {"last": "model", "ema": "average"}[weights]
    if name == "average" and "average" not in state:
        raise InputError(f"eval.weights: got 'ema'; expected last, as {path} was trained without an average.")
    try:
        model.load_state_dict(state[name])
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        if is_of_the_machine(error):
            raise
        raise InputError(f"{path}: its weights do not fit this model; check model.name and data.name.") from error


def check_same_run(
    state: dict[str, Any], config: dict[str, Any], data_fingerprint: str, path: Path, former: str | None = None
) -> None:
    """Raise InputError unless a checkpoint belongs to this run: same data, and a config that gives the same weights.

    Args:
        state: From `read_checkpoint`.
        config: The flat configuration of this run.
        data_fingerprint: Fingerprint of the images that this run trains on.
        path: The checkpoint, for the message.
        former: The fingerprint that an earlier version would have given these images, where it differs.
    """
    if state["config_sha256"] != config_sha256(config):
        saved, defaults = state["config"], flatten(Config())
        for name, value in config.items():
            before = saved.get(name, defaults[name])  # a field that is newer than the checkpoint
            if before != value and not may_change(name, before, value):
                raise InputError(
                    f"{name}: got {value!r}; expected {before!r}, with which {path} was made. "
                    "Name another --run_dir to train from scratch."
                )
    before = state["data_fingerprint"]
    if before == former:
        console.print(
            f"{path} is of an earlier version, which recognised image files by their names and sizes: these are as they"
            " were. The next checkpoint recognises them by their content.",
            soft_wrap=True,
        )
    elif before != data_fingerprint:
        raise InputError(
            f"data.dir: {config['data.dir']} has other training images or labels than {path} was made with (fingerprint"
            f" {data_fingerprint[:16]}, then {before[:16]}); give the folder that has them, or name another --run_dir"
            " to train from scratch."
        )


def check_same_recipe(state: dict[str, Any], recipe: dict[str, int | str] | None, path: Path) -> None:
    """Check that a checkpoint's policy is still that of this run; warn if another version of fastmagn drew it.

    Args:
        state: From `read_checkpoint`.
        recipe: What `augment.policies.recipe.read_recipe` returns.
        path: The checkpoint, for the message.

    Raises:
        InputError: The file that `augment.policy` names has other content than then.
    """
    if recipe is None:
        return
    before = state.get("recipe") or {}  # none in checkpoints of fastmagn 0.1
    if "sha256" in before and before["sha256"] != recipe.get("sha256"):
        raise InputError(
            f"augment.policy: the file has other content than {path} was made with; {path.parent.parent / POLICY} is a"
            " copy of what it was. Restore it, or name another --run_dir to train from scratch."
        )
    if before.get("version") != recipe["version"]:
        warn(
            f"{path} was made by another version of fastmagn, which drew policies otherwise. The run resumes with this"
            " version's draws: its weights will be those of neither version alone."
        )


def warn_of_other_decoder(state: dict[str, Any], decoder: str | None, path: Path) -> None:
    """Warn if a checkpoint's training images were decoded on the GPU and now are not, or the other way round.

    Args:
        state: From `read_checkpoint`. Earlier versions did not record it.
        decoder: As `save_checkpoint` takes it.
        path: The checkpoint, for the message.
    """
    before = state.get("decoder")
    if before is not None and before != decoder:
        then, now = ("GPU", "CPU") if before == "gpu" else ("CPU", "GPU")
        warn(
            f"{path} was trained on images that the {then} decoded; now the {now} decodes them, and some pixels differ"
            " by some levels (data.source). The run resumes: its weights will be those of neither decoder alone."
        )


def check_engine(state: dict[str, Any], backend: str, is_trained: bool, path: Path) -> None:
    """Warn if a checkpoint's views were made by an engine that makes other ones than that of this run.

    Args:
        state: From `read_checkpoint`.
        backend: This run's `augment.backend`.
        is_trained: Whether the checkpoint has all steps of this run.
        path: The checkpoint, for the message.

    Raises:
        InputError: The run is trained: its weights are not those of this engine.
    """
    before = state["config"].get("augment.backend", Config().augment.backend)
    if views_of(before) == views_of(backend):
        return
    if is_trained:
        raise InputError(
            f"augment.backend: got {backend!r}; expected {before!r}, with which {path} was trained. Name another"
            " --run_dir to train from scratch."
        )
    warn(
        f"{path} was trained on views that {before!r} made; now {backend!r} makes them, and some pixels differ by some"
        " levels (augment.backend). The run resumes: its weights will be those of neither engine alone."
    )
