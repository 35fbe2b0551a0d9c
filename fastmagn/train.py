"""python -m fastmagn.train: train, then evaluate, then write RUN/results.json. torchrun takes the same arguments.

training/step.py has the path of a batch on one page: views (`make_pieces`), model and loss (`ForwardLoss`), update
(`train_step`). At Ctrl-C, SIGTERM or SIGHUP the run finishes its step, saves a checkpoint and exits. The same command
resumes it.
"""

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from fastmagn.config.called import command
from fastmagn.config.command_line import config_file, config_parser, given_fields, of_kind, parse, split_configs
from fastmagn.config.own_code import explained
from fastmagn.config.schema import Config
from fastmagn.data.present import check_present
from fastmagn.errors import EXIT_CODES, warn_caller
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.machine.torchrun import rank
from fastmagn.methods.table import METHODS, get_method
from fastmagn.runs.paths import CHECKPOINTS, CONFIG, run_folder_of
from fastmagn.training.callbacks import NO_CALLBACKS, Callbacks

_SHOWN = frozenset(
    {"help", "help_all", "config", "method", "run_dir", "data.name", "data.dir", "model.name"}
    | {"train.epochs", "train.batch_size", "train.seed", "eval.num_images"}
)
_EXAMPLES = {
    "{train}": "MAGN+AugMix on digits",
    "{train} --config cifar10_magn_augmix --data.dir DIR": "a shipped configuration",
    "{train} --config FILE.yaml --train.seed 1": "your own, with a change",
    "{train} --method augmix --print_config > FILE.yaml": "write one",
    "torchrun --nproc_per_node 2 -m fastmagn.train --config FILE.yaml": "several GPUs",
}


def train(config: Config, callbacks: Callbacks = NO_CALLBACKS) -> dict[str, Any]:
    """Train (or resume) a run, evaluate it and write results.json. Returns what results.json holds.

    Args:
        config: The run. `config.imports` is a record, and not run here.
        callbacks: Functions to call after each step and each epoch.

    Raises:
        InputError: The configuration, the data or the run folder cannot be used; memory or the disk is too small; a
            device is lost.
        Interrupted: SIGINT, SIGTERM or SIGHUP came during training. The checkpoint is saved.
    """
    from fastmagn.training.run import train as train_run  # here, as it imports PyTorch

    with explained(config.imports):
        return train_run(config, callbacks)


def command_parser() -> ArgumentParser:
    """The parser of the command's arguments."""
    program = command("train")
    examples = {example.format(train=program): what for example, what in _EXAMPLES.items()}
    width = max(map(len, examples))
    description = "\n\n".join(
        [
            "Train a classifier, then measure its robustness. The same command resumes an interrupted run.",
            "\n".join(f"  {example:{width}}  {what}" for example, what in examples.items()),
            "These are the fields that are used most; --help_all shows every field.",
        ]
    )
    methods = f"Methods: {', '.join(METHODS)}; NAME+magn adds MAGN. {EXIT_CODES}"
    return config_parser(program, description, methods, _SHOWN)


def main(arguments: list[str]) -> int:
    config = of_kind(Config, parse(command_parser(), arguments))
    check_present(config.data)
    from fastmagn.evaluation.shown import print_results  # here, as they import PyTorch
    from fastmagn.machine.hardware import keep_memory_on_cpu

    with explained(config.imports):
        get_method(config.method).check_given(config.augment, given_fields(arguments))
    _warn_of_unread(config, given_fields(arguments))
    _warn_of_another_folder(arguments, config)
    keep_memory_on_cpu(config.device)
    results = train(config)
    print_results(results, title=f"{results['config']['method']} on {results['config']['data']['name']}")
    run_dir = str(run_folder_of(config))  # not that of the results: a finished run may have been moved
    console.print(f"run folder: {run_dir}", soft_wrap=True)
    report = f"{command('report')} {shlex.join([run_dir, '--out', 'report'])}"
    console.print(f"to make a report of this run: {report}", soft_wrap=True)
    return 0


def _warn_of_unread(config: Config, given: list[str]) -> None:
    """Warn of fields of the command line that the method does not read."""
    from fastmagn.methods.effect import unread  # here, as it imports PyTorch

    if rank() == 0 and (fields := unread(config, given)):
        warn_caller(f"without effect: {fields} (not read by method {config.method}).")


def _warn_of_another_folder(arguments: list[str], config: Config) -> None:
    """Warn if a run's own config.yaml makes a new run: its relative run_dir starts from another folder, or it moved."""
    files = [file for name in split_configs(arguments)[0] if isinstance(file := config_file(name), Path)]
    if rank() != 0 or not files or config.run_dir is None or "run_dir" in given_fields(arguments):
        return
    run_dir = files[-1].parent
    is_a_runs = files[-1].name == CONFIG and (run_dir / CHECKPOINTS).is_dir()
    if is_a_runs and run_dir.resolve() != config.run_dir.resolve():
        warn_caller(
            f"run_dir: {files[-1]} names {config.run_dir}, so this does not resume the run in {run_dir}. To resume it,"
            f" add {shlex.join(['--run_dir', str(run_dir)])}."
        )


if __name__ == "__main__":
    run_command(main)
