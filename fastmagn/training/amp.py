"""The precision of a run: `train.amp auto` keeps what a run began with, and one that is slow here is a warning."""

import dataclasses
import shlex
from typing import Any

from fastmagn.config.schema import Config
from fastmagn.machine.console import warn
from fastmagn.machine.hardware import is_slow_precision
from fastmagn.machine.processes import World
from fastmagn.runs.checkpoint import newest_readable
from fastmagn.runs.progress import Progress
from fastmagn.training.step import Run

_PRECISIONS = ("float32", "bf16", "fp16")


def in_begun_precision(config: Config, asked: str, world: World) -> Config:
    """The settled config, with the precision of the checkpoint that it resumes from if `train.amp` was `auto`.

    Without a checkpoint `auto` is what it means on the hosts of all processes, or float32 if they differ. Call it while
    holding the run's lock.

    Args:
        config: The settled config of this process.
        asked: The `train.amp` that was given.
        world: All processes, which take part.
    """
    if asked != "auto":
        return config
    state = world.together(lambda: newest_readable(config.run_folder) if world.rank == 0 else None)
    saved = world.gather(state and state["config"].get("train.amp"))[0]
    meant = set(world.gather(config.train.amp))
    amp: Any = saved if saved in _PRECISIONS else meant.pop() if len(meant) == 1 else "float32"
    return dataclasses.replace(config, train=dataclasses.replace(config.train, amp=amp))


def warn_if_slow(run: Run, progress: Progress, is_resumed: bool) -> None:
    """Say that a process has a device that emulates the run's precision, and what to do. All processes take part.

    Args:
        run: The run.
        progress: Its position.
        is_resumed: Whether the weights are those of a checkpoint.
    """
    amp = run.config.train.amp
    if not run.world.max(is_slow_precision(run.config.device, amp)):
        return
    command = shlex.join(["python", "-m", "fastmagn.evaluate", "--run", str(run.config.run_dir)])
    if run.steps_done(progress) == run.last_step:
        warn(f"train.amp: {amp}, in which the run was trained, is slow here; `{command}` measures in float32.")
    elif is_resumed:
        warn(f"train.amp: {amp}, in which the run began, is slow here; float32 needs another --run_dir.")
    else:
        warn(f"train.amp: {amp} is slow here; --train.amp float32 is faster.")
