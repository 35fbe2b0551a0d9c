"""python -m fastmagn.train: train, then evaluate, then RUN/results.json. Also under torchrun, with the same arguments.

A batch's way: data.DeviceSource -> augment.sample_view_params -> augment.make_views (`make_pieces`) -> model and loss
(`run.ForwardLoss`) -> optimiser (`train_step`). Ctrl-C or SIGTERM finishes the step, saves a checkpoint and leaves; the
same command goes on from there.
"""

import shlex

from fastmagn.config.command_line import parse_config
from fastmagn.evaluation.shown import print_results
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.training.run import train


def main(arguments: list[str]) -> int:
    config = parse_config(arguments, "python -m fastmagn.train", "Train a classifier, then measure its robustness.")
    results = train(config)
    print_results(results, title=f"{results['config']['method']} on {results['config']['data']['name']}")
    run_dir = results["config"]["run_dir"]
    console.print(f"run folder: {run_dir}", soft_wrap=True)
    report = shlex.join(["python", "-m", "fastmagn.report", run_dir, "--out", "report"])
    console.print(f"tables, figures and a page of it: {report}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)
