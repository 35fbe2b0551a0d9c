"""The names in a run folder. No other module spells one out."""

import re
from pathlib import Path

from fastmagn.config.schema import Config

CONFIG = "config.yaml"  # the resolved configuration: with it, the same command runs again
METRICS = "metrics.jsonl"  # one row per epoch
RESULTS = "results.json"  # what training ends with
EVALUATION = "evaluation.json"  # what a later evaluation writes
VIEWS = "views.png"  # the first views that the method trains on
LOGITS = "logits"  # a folder, see evaluation/logits.py
POLICY = "policy.yaml"  # a copy of the file that augment.policy names
CODE = "imports.py"  # a copy of the file that --import named
TENSORBOARD = "tensorboard"
PROFILE = "profile"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
STARTED_BY = ".started-by"  # the torchrun that began the run with `resume never`: it may start its processes again
TRIAL_LOG = "trial.log"  # what a sweep's trial prints
_STEP_CHECKPOINT = re.compile(r"step-(\d{8,})\.pt")


def run_folder_of(config: Config) -> Path:
    """The folder of a run: `run_dir`, or one in runs that its data, method, model and seed name."""
    data, model = (name.replace(":", "-") for name in (config.data.name, config.model.name))  # timm:NAME
    return config.run_dir or Path("runs") / f"{data}-{config.method}-{model}-seed{config.train.seed}"


def last_checkpoint(run_dir: Path) -> Path:
    """The newest checkpoint of a run."""
    return run_dir / CHECKPOINTS / "last.pt"


def step_checkpoint(run_dir: Path, step: int) -> Path:
    """The checkpoint of a step, once a newer one is last.pt."""
    return run_dir / CHECKPOINTS / f"step-{step:08d}.pt"


def run_of_checkpoint(file: Path) -> Path | None:
    """The run folder in which a file has a checkpoint's name; None if it has another name or lies elsewhere."""
    whole = file.absolute()
    is_named = whole.name == "last.pt" or _STEP_CHECKPOINT.fullmatch(whole.name) is not None
    return whole.parent.parent if is_named and whole.parent.name == CHECKPOINTS else None


def step_checkpoints(run_dir: Path) -> dict[int, Path]:
    """The checkpoints that a run keeps beside last.pt, by step, the newest first."""
    paths = (run_dir / CHECKPOINTS).glob("step-*.pt")
    steps = {int(match[1]): path for path in paths if (match := _STEP_CHECKPOINT.fullmatch(path.name))}
    return dict(sorted(steps.items(), reverse=True))
