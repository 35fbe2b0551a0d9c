"""The commands that calls are made to fail in, each as small as it can be, and what their results are."""

import hashlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastmagn import models
from fastmagn.reporting import document, page
from fastmagn.runs.paths import CONFIG
from fastmagn.sweeping.trial import Outcome
from tests.faults import judge
from tests.faults.processes import finish, run, start
from tests.helpers import smooth_network

_TRAIN = [
    *("--device", "cpu", "--train.amp", "float32", "--train.compile", "false", "--model.name", smooth_network.NAME),
    *(
        "--method",
        "standard",
        "--train.epochs",
        "2",
        "--train.batch_size",
        "32",
        "--data.num_validation_images",
        "1034",
    ),
    *("--eval.num_images", "4", "--eval.corruption_set", "c15", "--eval.num_bins", "3"),
]
_CORRUPT = ["--dataset", "digits", "--num_images", "4", "--corruption_set", "c15", "--out"]
# Written for the eye of a passer-by, or a lock.
_TRANSIENT = ("tensorboard", ".lock", "trial.log")


class Workload(NamedTuple):
    """A command in the folder of a trial, and what `prepare` puts there before."""

    command: str
    arguments: list[str]
    prepare: Callable[[], None]


def make_sources(folder: Path, commands: list[str]) -> None:
    """What the workloads of these commands begin with: a -C set, a trained run, and a report."""
    sys.modules["ray"] = None  # it has threads; sweeps do without it here
    from fastmagn.sweeping import sweep

    models.MODELS[smooth_network.NAME] = smooth_network.WHERE
    document.to_files = lambda figure: {"png": b"png", "svg": b"svg"}  # drawing takes seconds, and no file
    page.to_svg = lambda figure, **on: b"svg"
    sweep.check_ray = lambda: None
    sweep.run_trials = _run_trials
    log = folder / "log.txt"
    for command, arguments in (
        ("corrupt", [*_CORRUPT, str(folder / "set")]),
        ("train", [*_train(folder), "--run_dir", str(folder / "source"), "--eval.save_logits", "true"]),
        *([("report", [str(folder / "source"), "--out", str(folder / "old-report")])] if "report" in commands else []),
    ):
        ended = run(command, arguments, log)
        assert ended.status == 0, ended


def make_workloads(folder: Path) -> dict[str, Workload]:
    """The workloads by name. `folder` has the sources; the trials take place in `folder/trial`."""
    trial, source = folder / "trial", folder / "source"
    run_dir, report = trial / "run", trial / "report"
    evaluated = ["--eval.corrupted_dir", str(folder / "set")]
    return {
        "train": Workload(
            "train", [*_train(folder), "--run_dir", str(run_dir), "--eval.save_logits", "true"], lambda: None
        ),
        "evaluate": Workload(
            "evaluate", ["--run", str(run_dir), "--save_logits", *evaluated], lambda: _copy(source, run_dir)
        ),
        "report": Workload("report", [str(source), "--out", str(report)], lambda: _copy(folder / "old-report", report)),
        "corrupt": Workload("corrupt", [*_CORRUPT, str(trial / "set")], lambda: None),
        "export": Workload(
            "export",
            ["--run", str(source), "--format", "safetensors", "--out", str(trial / "model.safetensors")],
            lambda: None,
        ),
        "sweep": Workload(
            "sweep", [*_train(folder), "--grid", "train.seed=0", "--out", str(trial / "sweep")], lambda: None
        ),
    }


def _train(folder: Path) -> list[str]:
    return [*_TRAIN, "--eval.corrupted_dir", str(folder / "set")]


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target)


def _run_trials(
    run_dirs: list[Path],
    machines: object,
    on_cpu: bool,
    started: Callable[[str], None],
    ended: Callable[[Outcome], None],
    imports: Path | None,
) -> int:
    """In place of Ray's: one after another, each forked from the sweep's process."""
    for run_dir in run_dirs:
        started(run_dir.name)
        pid = start("train", ["--config", str(run_dir / CONFIG)], Path(os.devnull))
        status = finish(pid, Path(os.devnull)).status
        ended(Outcome(run_dir.name, "failed" if status else "finished", f"exit status {status}" if status else ""))
    return 0


def contents(folder: Path) -> dict[str, Any]:
    """What is compared of each file of a trial: bits, but for times and what only passes."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(part in _TRANSIENT for part in path.parts) or path.name.startswith("step-"):
            continue
        found[name] = _content(path, name)
    return found


def _content(path: Path, name: str) -> Any:
    if name.startswith("sweep/report/"):  # it shows how fast the trials were
        return "there"
    if path.suffix == ".pt":
        state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
        return {part: judge.bits(state.get(part)) for part in ("step", "model", "optimizer", "average", "scaler")}
    if path.name in ("metrics.jsonl", "results.json", "evaluation.json"):
        return judge.without_times(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
