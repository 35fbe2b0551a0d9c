"""python -m fastmagn.train: train, then evaluate, then write RUN/results.json. torchrun takes the same arguments.

training/step.py has the path of a batch on one page: views (`make_pieces`), model and loss (`ForwardLoss`), update
(`train_step`). At Ctrl-C, SIGTERM or SIGHUP the run finishes its step, saves a checkpoint and exits. The same command
resumes it.
"""

import shlex
from typing import Any

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.errors import EXIT_CODES
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.methods.table import METHODS

_SHOWN = frozenset(
    {"help", "help_all", "config", "method", "run_dir", "data.name", "data.dir", "model.name"}
    | {"train.epochs", "train.batch_size", "train.seed", "eval.num_images"}
)
_DESCRIPTION = """Train a classifier, then measure its robustness. The same command resumes an interrupted run.

  python -m fastmagn.train                                              MAGN+AugMix on digits
  python -m fastmagn.train --config cifar10_magn_augmix --data.dir DIR  a shipped configuration
  python -m fastmagn.train --config FILE.yaml --train.seed 1            your own, with a change
  python -m fastmagn.train --method augmix --print_config > FILE.yaml   write one
  torchrun --nproc_per_node 2 -m fastmagn.train --config FILE.yaml      several GPUs

These are the fields that are used most; --help_all shows every field."""


def train(config: Config) -> dict[str, Any]:
    """Train (or resume) a run, evaluate it and write results.json. Returns what results.json holds.

    Raises:
        InputError: The configuration, the data or the run folder cannot be used; memory or the disk is too small; a
            device is lost.
        Interrupted: SIGINT, SIGTERM or SIGHUP came during training. The checkpoint is saved.
    """
    from fastmagn.training.run import train as train_run  # here, as it imports PyTorch

    return train_run(config)


def main(arguments: list[str]) -> int:
    config = parse_config(
        arguments,
        "python -m fastmagn.train",
        _DESCRIPTION,
        f"Methods: {', '.join(METHODS)}; NAME+magn adds MAGN's consistency. {EXIT_CODES}",
        _SHOWN,
    )
    results = train(config)
    from fastmagn.evaluation.shown import print_results  # here, as it imports PyTorch

    print_results(results, title=f"{results['config']['method']} on {results['config']['data']['name']}")
    run_dir = results["config"]["run_dir"]
    console.print(f"run folder: {run_dir}", soft_wrap=True)
    report = shlex.join(["python", "-m", "fastmagn.report", run_dir, "--out", "report"])
    console.print(f"tables, figures and a page of it: {report}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
