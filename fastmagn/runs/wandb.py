"""Weights & Biases, on request (`train.wandb_project`). No other module imports its package."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import one_line, without
from fastmagn.machine.console import warn

_begun: dict[str, Any] = {}  # by id, the W&B runs that are open and ours


def check_wandb(config: Config) -> None:
    """Raise InputError if `train.wandb_project` is set and the package is missing; called before training."""
    if config.train.wandb_project is not None:
        _package()


def log_row(config: Config, row: dict[str, Any]) -> None:
    """Log the row of an epoch; does nothing without `train.wandb_project`. If it fails, there is a warning."""
    if config.train.wandb_project is not None:
        with _failures_are_warnings():
            _run(config).log(row, step=row["epoch"])


def log_summary(config: Config, results: dict[str, Any]) -> None:
    """Log the results as the summary; does nothing without `train.wandb_project`. If it fails, there is a warning."""
    if config.train.wandb_project is not None:
        with _failures_are_warnings():
            summary = {name: value for name, value in results.items() if name not in ("config", "reliability")}
            _run(config).summary.update(summary)


@contextmanager
def finished_at_the_end(config: Config) -> Iterator[None]:
    """Finish the W&B run that was begun inside, whatever ends this: the next run of this process has its own."""
    try:
        yield
    finally:
        run = _begun.pop(run_id(config.run_folder), None)
        if run is not None:
            with _failures_are_warnings():
                run.finish()


def run_id(run_dir: Path) -> str:
    """The id of a run folder: a resumed run keeps its id."""
    return hashlib.sha256(str(run_dir.absolute()).encode()).hexdigest()[:16]


@contextmanager
def _failures_are_warnings() -> Iterator[None]:
    """Turn any failure into a warning: neither the network nor a full disk may end the run."""
    try:
        yield
    except Exception as error:
        warn(f"W&B: not logged ({type(error).__name__}: {one_line(error)}). The run continues.")


def _run(config: Config) -> Any:
    """The W&B run of this run folder, begun at the first call; or the one that the user has begun, who finishes it."""
    wandb, own_id = _package(), run_id(config.run_folder)
    if own_id not in _begun:
        if wandb.run is not None:
            return wandb.run
        _begun[own_id] = wandb.init(
            project=config.train.wandb_project,
            name=config.run_folder.name,
            id=own_id,
            resume="allow",
            dir=str(config.run_folder),
            config=flatten(config),
        )
    return _begun[own_id]


def _package() -> Any:
    try:
        import wandb
    except ImportError as error:
        needs = "train.wandb_project: needs the package wandb; pip install 'fastmagn[wandb]'."
        raise without("wandb", error, needs) from error
    return wandb
