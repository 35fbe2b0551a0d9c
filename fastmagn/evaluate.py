"""python -m fastmagn.evaluate: measure a trained model on clean and corrupted images.

python -m fastmagn.evaluate --run runs/NAME [--corrupted DIR] [--data.dir DIR] [--eval.num_images N] ...
python -m fastmagn.evaluate --weights FILE --model.name NAME --data.name cifar10 [--mean X [X X]] [--std X [X X]] ...
python -m fastmagn.evaluate {--run runs/NAME | --weights FILE} --images DIR [--classes FILE] ...
python -m fastmagn.evaluate --logits runs/NAME/logits [--eval.num_bins N] ...
torchrun --nproc_per_node 2 -m fastmagn.evaluate --run_dir runs/NAME ...
"""

import argparse
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING

from fastmagn.config.called import command
from fastmagn.config.command_line import OwnOptions, as_file, given_fields, parse_config, parse_own
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.of_weights import OF_MODEL, weights_fields
from fastmagn.config.own_code import explained
from fastmagn.config.paths import kept_path
from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data.present import check_present
from fastmagn.errors import EXIT_CODES, InputError, some
from fastmagn.exporting.said import checkpoint_fields, resized_alike, said_by, said_fields
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.machine.files import check_writable, write_json
from fastmagn.machine.leftovers import names_locked, remove_leftovers
from fastmagn.machine.torchrun import rank
from fastmagn.runs.measuring import read_config_to_measure
from fastmagn.runs.paths import EVALUATION, LOGITS, run_of_checkpoint

if TYPE_CHECKING:
    from fastmagn.evaluation.published import Published

_DESCRIPTION = "Measure a trained run again, or on other images; other people's weights; or stored logits."
# The fields of the section eval that count where only some of them do.
_USED_WITH = {
    "logits": ("num_bins", "binning", "pooling"),
    "images": ("batch_size", "test_time_flip", "weights", "num_bins", "binning", "rse_draws", "forward"),
}
_UNUSED_WITH_WEIGHTS = ("weights", "rse_draws")
_SAID_BY_LOGITS = ("ood", "temperature_images", "forward")  # `summarise_logits` says why it cannot use them


def main(arguments: list[str]) -> int:
    own, config = parse_arguments(arguments)
    if own.images is None and own.logits is None:
        check_present(config.data, instead=own.run is None and not own.has_data, of_run=own.data_dir)
    # Imported here, so that --help does not wait for PyTorch.
    from fastmagn.evaluation.measure import summarise_logits
    from fastmagn.evaluation.other_images import (
        check_earlier_results,
        image_folders_of,
        measured_weights,
        with_image_folders,
    )
    from fastmagn.evaluation.published import evaluate_weights, evaluate_weights_on_folder
    from fastmagn.evaluation.run import evaluate_images, evaluate_run
    from fastmagn.evaluation.shown import print_results
    from fastmagn.machine.hardware import in_runs_precision, keep_memory_on_cpu

    if own.takes_runs_precision:
        config = in_runs_precision(config)
    keep_memory_on_cpu(config.device)
    is_first_process = rank() == 0
    out = own.out or _results_file(own)
    if own.out is not None or out.parent.is_dir():  # else what was named is missing, and said to be
        check_writable(out, out.parent)
    if own.logits is None:
        check_earlier_results(out, is_kept=own.images is not None)
    if is_first_process:
        remove_leftovers(own.logits or (own.run or _folder(out)) / LOGITS)
    if own.images is not None:
        if own.run is not None:
            entries = evaluate_images(own.run, config, own.images, own.classes)
        else:
            entries = evaluate_weights_on_folder(_published(own), config, own.images, own.classes)
        if is_first_process:
            with names_locked(out.parent):  # another evaluation may add its images
                write_json(out, with_image_folders(out, entries, measured_weights(entries[str(own.images)])))
    else:
        if own.run is not None:
            with explained(config.imports):
                results = evaluate_run(own.run, config)
        elif own.weights is not None:
            results = evaluate_weights(_published(own), config, _folder(out))
        else:
            results = summarise_logits(own.logits, config.eval) | {"config": {"eval": plain(config.eval)}}
        if is_first_process:
            with names_locked(out.parent):
                folders = image_folders_of(out, measured_weights(results)) if own.logits is None else {}
                write_json(out, results | folders)
            print_results(results, title=str(own.run or own.weights or own.logits))
    if is_first_process:
        console.print(f"written to {out}", soft_wrap=True)
    return 0


def _published(own: argparse.Namespace) -> "Published":
    """The weights, and what they say about their model, as far as they do."""
    from fastmagn.evaluation.class_names import Classes
    from fastmagn.evaluation.image_folder import Seen
    from fastmagn.evaluation.published import Published
    from fastmagn.evaluation.run import classes_of_run, seen_by_run

    of_file = (own.weights, own.mean, own.std)
    info, run_dir = own.info, run_of_checkpoint(own.weights)
    if info is not None:
        classes = Classes(info.class_names, info.data, str(own.weights))
        return Published(*of_file, classes, Seen(info.class_names, info.image_size, info.padded_from))
    if run_dir is None or not own.has_data:  # another program's, or of other images
        return Published(*of_file)
    return Published(*of_file, classes_of_run(run_dir), seen_by_run(run_dir))


def _results_file(own: argparse.Namespace) -> Path:
    if own.weights is not None:
        return own.weights.with_name(f"{own.weights.stem}.{EVALUATION}")
    return (own.run or own.logits) / EVALUATION


def _folder(out: Path) -> Path:
    """The folder that gets the logits of measured weights."""
    return out.with_suffix("")


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, Config]:
    """The command's own arguments, and the configuration: the run's, changed by the other arguments.

    Raises:
        InputError: Arguments exclude each other, a field is unknown, or the run cannot be read.
    """
    own, fields = parse_own(command_parser(), arguments)
    if own.classes is not None and own.images is None:
        raise InputError(f"classes: got {own.classes}; expected none without --images DIR, whose folders it explains.")
    if own.out is not None and own.out.is_dir():
        raise InputError(f"out: {own.out} is a folder; expected the name of a results file.")
    if own.weights is not None and not own.weights.name:
        raise InputError(f"weights: got {str(own.weights)!r}; expected a file of weights, or a published model's name.")
    for name in ("images", "classes", "weights"):  # results keep these paths
        if getattr(own, name) is not None:
            setattr(own, name, kept_path(getattr(own, name), name))
    own.info, own.data_dir, own.has_data, own.takes_runs_precision = None, None, False, False
    others = ("corrupted", "save_logits", "perturbations", "fourier")
    if own.images is not None and (own.logits is not None or any(getattr(own, name) for name in others)):
        *most, last = (f"--{name}" for name in others)
        raise InputError(
            f"images: got {own.images}; expected it with --run or --weights, without {', '.join(most)} and {last}."
        )
    if own.corrupted is not None:
        fields = [*fields, f"--eval.corrupted_dir={own.corrupted}"]
    for flag in ("save_logits", "perturbations", "fourier"):
        if getattr(own, flag):
            fields = [*fields, f"--eval.{flag}", "true"]
    for name in ("mean", "std"):
        setattr(own, name, _channels(name, getattr(own, name), own.weights))
    if own.weights is not None:
        own.info = said_by(own.weights)
        config = _config_of_weights(own, fields)
    elif own.run is not None:
        trained, config = read_config_to_measure(own.run, fields)
        own.data_dir = trained.data.dir
        own.takes_runs_precision = "train.amp" not in given_fields(fields) and config.train.amp == trained.train.amp
    else:
        config = parse_config(fields, command("evaluate"), _DESCRIPTION)
    if own.info is not None:
        config = resized_alike(own.info, config)
    wanted = [name for name in ("perturbations", "fourier") if getattr(config.eval, name)]
    wanted += ["batch_norm adapt"] if config.eval.batch_norm == "adapt" else []
    if own.logits is not None and wanted:
        raise InputError(
            f"logits: got eval.{wanted[0]} with them; expected it with --run or --weights: it needs a model."
        )
    given = given_fields(fields)
    _check_used(own, given)
    return own, config


def _config_of_weights(own: argparse.Namespace, fields: list[str]) -> Config:
    """The fields, over those that the file, or the configuration of a checkpoint's run, gives."""
    of_name = weights_fields(own.weights)
    of_run = checkpoint_fields(own.weights) if own.info is None else {}
    said = of_run if own.info is None else said_fields(own.info)
    config = parse_config([*as_file(of_name | said), *fields], command("evaluate"), _DESCRIPTION)
    if of_run and config.data.name != of_run["data.name"]:  # the run says nothing of other images
        said = {name: of_run[name] for name in OF_MODEL}
        config = parse_config([*as_file(of_name | said), *fields], command("evaluate"), _DESCRIPTION)
    own.has_data = "data.name" in said
    own.data_dir = Path(said["data.dir"]) if "data.dir" in said else None
    return config


def _check_used(own: argparse.Namespace, given: list[str]) -> None:
    """Raise InputError if a field of the section eval is given that has no effect on what is measured."""
    option = next((name for name in ("logits", "images", "weights") if getattr(own, name) is not None), None)
    if option is None:
        return
    names = {field.name for field in fields_of(EvalConfig)}
    listed = [name for name in _USED_WITH.get(option, ()) if own.weights is None or name not in _UNUSED_WITH_WEIGHTS]
    used = set(listed or names - set(_UNUSED_WITH_WEIGHTS))
    unused = names - used - set(_SAID_BY_LOGITS if option == "logits" else ())
    found = [name for name in given if name.startswith("eval.") and name.removeprefix("eval.") in unused]
    if found:
        fields = [f"eval.{name}" for name in listed]
        expected = f"of that section only {', '.join(fields)}" if fields else "no field of a run's own"
        raise InputError(
            f"{option}: got {some(found)} with --{option}, which does not use it; expected {expected}. Leave it out."
        )


def _channels(name: str, values: list[float] | None, weights: Path | None) -> tuple[float, ...] | None:
    """One number for each channel.

    Raises:
        InputError: There are neither one nor three, or they are out of range, or belong to no --weights.
    """
    if values is None:
        return None
    if weights is None:
        raise InputError(f"{name}: got {_numbers(values)}; expected none without --weights FILE.")
    in_range = all(0 <= value <= 1 and (value > 0 or name == "mean") for value in values)
    if len(values) not in (1, 3) or not in_range:
        raise InputError(
            f"{name}: got {_numbers(values)}; expected one number, or three for R, G and B, for pixels in [0, 1] "
            f"({'0..1' if name == 'mean' else 'above 0, up to 1'}; divide levels of 0..255 by 255)."
        )
    return tuple(values * 3 if len(values) == 1 else values)


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def command_parser() -> OwnOptions:
    """The parser of the command's own options; the fields of the configuration are beside them."""
    parser = OwnOptions(
        command("evaluate"),
        _DESCRIPTION,
        "Any field of the run's configuration may follow, such as --data.dir DIR, --eval.num_images N, "
        "--import FILE (your own code), "
        "--eval.corruption_set c15, --device cpu; "
        f"{command('train')} --help_all lists them. {EXIT_CODES}",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        *("--run", "--run_dir"),
        type=Path,
        help="folder of the run (write --run_dir under torchrun, which has an option --run of its own)",
    )
    what.add_argument(
        "--weights",
        type=Path,
        help="file of weights, such as a published checkpoint (.pt, .pth, .tar, .safetensors), or the name of a "
        "model of fastmagn.list_models(), instead of a run; "
        "--model.name and --data.name say of what; results go to FILE.evaluation.json beside it",
    )
    what.add_argument("--logits", type=Path, help="folder of logits that --save_logits left, instead of a run")
    for name, what_for in (("mean", "subtracts"), ("std", "then divides by")):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="X",
            help=f"for --weights: what the network {what_for}, one number or three, for pixels in [0, 1]; by default "
            "what the file says, else the data set's own",
        )
    parser.add_argument("--corrupted", type=Path, help="folder of a made or published -C set (eval.corrupted_dir)")
    parser.add_argument("--save_logits", action="store_true", help="keep all logits in RUN/logits (eval.save_logits)")
    parser.add_argument(
        "--perturbations",
        action="store_true",
        help="also measure the flip probability on CIFAR-10-P's ten sequences (eval.perturbations)",
    )
    parser.add_argument("--fourier", action="store_true", help="also measure the Fourier heat map (eval.fourier)")
    parser.add_argument(
        "--images",
        type=Path,
        help="measure all images of this folder only, IMAGES/CLASS/IMAGE, of some of the model's classes, such as "
        "ImageNet-A or ImageNet-R; the results file gets them as image_folders",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        help="for --images: JSON or YAML mapping, or CSV of two columns: name of a class folder, the model's class",
    )
    parser.add_argument(
        "--out", type=Path, help="results file; by default evaluation.json in RUN or in the logits' folder"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
