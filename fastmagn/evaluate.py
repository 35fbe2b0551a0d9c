"""python -m fastmagn.evaluate: measure a trained model on clean and corrupted images.

python -m fastmagn.evaluate --run runs/NAME [--corrupted DIR] [--data.dir DIR] [--eval.num_images N] ...
python -m fastmagn.evaluate --run runs/NAME --images DIR [--classes FILE] ...
torchrun --nproc_per_node 2 -m fastmagn.evaluate --run_dir runs/NAME ...
"""

import argparse
import os
from pathlib import Path

from fastmagn.config.command_line import parse_config
from fastmagn.config.text import plain
from fastmagn.errors import EXIT_CODES, InputError
from fastmagn.evaluation.measure import summarise_logits
from fastmagn.evaluation.other_images import (
    with_image_folders,
)
from fastmagn.evaluation.run import evaluate_images, evaluate_run
from fastmagn.evaluation.shown import print_results
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.machine.files import write_json
from fastmagn.runs.paths import EVALUATION
from fastmagn.runs.reading import read_config


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastmagn.evaluate",
        description="Measure a trained run again, or on other images, or stored logits without the model.",
        epilog="Any field of the run's configuration may follow, such as --data.dir DIR, --eval.num_images N, "
        "--eval.corruption_set c15, --device cpu; python -m fastmagn.train --help lists them. " + EXIT_CODES,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        *("--run", "--run_dir"),
        type=Path,
        help="folder of the run (say --run_dir under torchrun, which takes --run for an option of its own)",
    )
    what.add_argument("--logits", type=Path, help="folder of logits that --save_logits left, instead of a run")
    parser.add_argument("--corrupted", type=Path, help="folder of a made or published -C set (eval.corrupted_dir)")
    parser.add_argument("--save_logits", action="store_true", help="keep all logits in RUN/logits (eval.save_logits)")
    parser.add_argument(
        "--images",
        type=Path,
        help="measure on all images of this folder alone, IMAGES/CLASS/IMAGE, of some of the run's classes, such as "
        "ImageNet-A or ImageNet-R; added to the results file as image_folders",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        help="for --images: JSON or YAML mapping, or CSV of two columns: a class folder's name, its class in the run",
    )
    parser.add_argument("--out", type=Path, help="results file; evaluation.json in RUN, or in the logits' folder")
    own, fields = parser.parse_known_args(arguments)
    _check_arguments(own)
    if own.corrupted is not None:
        fields = [*fields, "--eval.corrupted_dir", str(own.corrupted)]
    if own.save_logits:
        fields = [*fields, "--eval.save_logits", "true"]
    if own.run is not None:
        config = read_config(own.run, fields)
    else:
        config = parse_config(fields, parser.prog, parser.description)
    out = own.out or (own.run or own.logits) / EVALUATION
    if own.images is not None:
        results = evaluate_images(own.run, config, own.images, own.classes)
        if int(os.environ.get("RANK", "0")) == 0:
            write_json(out, with_image_folders(out, results))
            console.print(f"written to {out}", soft_wrap=True)
        return 0
    if own.run is not None:
        results = evaluate_run(own.run, config)
    else:
        results = summarise_logits(own.logits, config.eval) | {"config": {"eval": plain(config.eval)}}
    if int(os.environ.get("RANK", "0")) == 0:
        write_json(out, results)
        print_results(results, title=str(own.run or own.logits))
        console.print(f"written to {out}", soft_wrap=True)
    return 0


def _check_arguments(own: argparse.Namespace) -> None:
    if own.classes is not None and own.images is None:
        raise InputError(f"classes: got {own.classes}; expected none without --images DIR, whose folders it explains.")
    alone = own.run is not None and own.corrupted is None and not own.save_logits
    if own.images is not None and not alone:
        raise InputError(f"images: got {own.images}; expected it with --run, without --corrupted and --save_logits.")


if __name__ == "__main__":
    run_command(main)
