"""Writes config.yaml, metrics.jsonl, views.png and TensorBoard's files. What a full disk refuses is written later."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastmagn.machine.console import warn
from fastmagn.machine.files import replace_file, write_text
from fastmagn.runs.events import EventFile, open_events
from fastmagn.runs.paths import CODE, CONFIG, METRICS, POLICY, RESULTS, TENSORBOARD, VIEWS


class RunFiles:
    """The files of a run other than its checkpoints, kept in step with its rows.

    Args:
        run_dir: The run folder.
        config_yaml: The text of config.yaml.
        rows: The rows that metrics.jsonl starts with; they replace what the file holds.
        policy: The file that `augment.policy` names, of which policy.yaml is a copy; None if it names none.
        code: What was run of the file that `--import` names, of which imports.py is a copy; None without one.
    """

    def __init__(
        self,
        run_dir: Path,
        config_yaml: str,
        rows: list[dict[str, Any]],
        policy: Path | None = None,
        code: bytes | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._rows = list(rows)
        self._metrics_whole = False  # whether the file is known to hold every row but the newest
        self._events: EventFile | None = None
        self._views: Image.Image | None = None  # not yet in TensorBoard
        self._to_log: list[dict[str, Any]] = []
        self._owed: dict[str, Callable[[], None]] = {
            CONFIG: lambda: write_text(run_dir / CONFIG, config_yaml),
            METRICS: self._write_metrics,
        }
        if policy is not None:
            self._owed[POLICY] = lambda: write_text(run_dir / POLICY, policy.read_text(encoding="utf-8"))
        if code is not None:
            self._owed[CODE] = lambda: self._write_code(code)
        self._catch_up()

    def add(self, row: dict[str, Any]) -> None:
        """Write the row of an epoch to metrics.jsonl and TensorBoard. If that fails, warn; the next epoch retries."""
        self._rows.append(row)
        self._to_log.append(row)
        self._owed |= {METRICS: self._write_metrics, TENSORBOARD: self._log_scalars}
        self._catch_up()

    def has_views(self) -> bool:
        """Whether the picture exists and stays. TensorBoard drops everything of a run that has no row yet."""
        return bool(self._rows) and (self._run_dir / VIEWS).exists()

    def add_views(self, grid: Image.Image) -> None:
        """Write the picture of the views to views.png and to TensorBoard."""
        self._views = grid
        self._owed |= {VIEWS: lambda: self._write_views(grid), TENSORBOARD: self._log_scalars}
        self._catch_up()

    def close(self) -> None:
        """Write what has not been written yet, and close TensorBoard's file."""
        self._catch_up()
        self._close_events()

    def _catch_up(self) -> None:
        for name, write in list(self._owed.items()):
            try:
                write()
            except OSError as error:
                warn(f"{self._run_dir / name} not written ({error.strerror}). The run continues and tries again later.")
            else:
                del self._owed[name]

    def _write_metrics(self) -> None:
        path = self._run_dir / METRICS
        append, self._metrics_whole = self._metrics_whole, False
        if append:
            append_row(path, self._rows[-1])
        else:
            write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in self._rows))
        self._metrics_whole = True

    def _write_code(self, code: bytes) -> None:
        with replace_file(self._run_dir / CODE) as file:
            file.write(code)

    def _write_views(self, grid: Image.Image) -> None:
        with replace_file(self._run_dir / VIEWS) as file:
            grid.save(file, format="PNG")

    def _log_scalars(self) -> None:
        try:
            if self._events is None:
                first = self._to_log[0]["epoch"] if self._to_log else len(self._rows)
                self._events = open_events(self._run_dir / TENSORBOARD, first)
            if self._events is None:
                return
            if self._views is not None:
                self._events.add_image("views", np.asarray(self._views), 0)
                self._views = None
            while self._to_log:
                self._events.add_scalars(self._to_log[0], self._to_log[0]["epoch"])
                del self._to_log[0]
        except OSError:
            self._close_events()
            raise

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append the row of one epoch to metrics.jsonl."""
    with path.open("a") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def log_results(run_dir: Path, results: dict[str, Any], epochs: int) -> None:
    """Log the results as TensorBoard scalars, after `epochs` rows; does nothing without TensorBoard."""
    rms = results["rms_calibration_error"]
    scalars = {"clean_accuracy": results["clean_accuracy"]}
    scalars |= {f"mca_{name}": value for name, value in results["mca"].items()}
    scalars |= {f"rms_calibration_error_{part}": rms[part] for part in ("clean", "corrupt")}
    scalars = {name: value for name, value in scalars.items() if value is not None}  # not measured, or NaN logits
    try:
        events = open_events(run_dir / TENSORBOARD, epochs)
        if events is not None:
            with closing(events):
                events.add_scalars({f"results/{name}": value for name, value in scalars.items()}, epochs)
    except OSError as error:
        warn(f"{run_dir / TENSORBOARD} not written ({error.strerror}); the results are in {RESULTS}.")
