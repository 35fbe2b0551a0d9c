"""Weights & Biases, on request (`train.wandb_project`). No other module imports its package."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import InputError, one_line
from fastmagn.machine.console import warn


def check_wandb(config: Config) -> None:
    """Raise InputError if `train.wandb_project` is set and the package is missing; called before training."""
    if config.train.wandb_project is not None:
        _package()


def log_row(config: Config, row: dict[str, Any]) -> None:
    """Log the row of an epoch; does nothing without `train.wandb_project`. If it fails, there is a warning."""
    if config.train.wandb_project is not None:
        with _failures_are_warnings():
            _run(config).log(row, step=row["epoch"])


def finish_run(config: Config, results: dict[str, Any]) -> None:
    """Log the results as the summary and finish the W&B run; does nothing without `train.wandb_project`.

    If it fails, there is a warning.
    """
    if config.train.wandb_project is None:
        return
    with _failures_are_warnings():
        run = _run(config)
        run.summary.update({name: value for name, value in results.items() if name not in ("config", "reliability")})
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
    """The W&B run of this process, started at the first call."""
    wandb = _package()
    if wandb.run is not None:
        return wandb.run
    return wandb.init(
        project=config.train.wandb_project,
        name=config.run_folder.name,
        id=run_id(config.run_folder),
        resume="allow",
        dir=str(config.run_folder),
        config=flatten(config),
    )


def _package() -> Any:
    try:
        import wandb
    except ImportError:
        raise InputError("train.wandb_project: needs the package wandb; pip install 'fastmagn[wandb]'.") from None
    return wandb
