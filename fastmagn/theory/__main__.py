"""python -m fastmagn.theory: the geometry of the loss about test images, of several trained runs.

python -m fastmagn.theory RUN [RUN ...] --out DIR [--num_images N] [--seed S] ...
"""

import dataclasses
import os
from argparse import ArgumentError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import ArgumentParser

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data import load_data
from fastmagn.errors import EXIT_CODES, InputError, check
from fastmagn.evaluation.trained import load_run
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.machine.environment import environment
from fastmagn.machine.hardware import settle_hardware
from fastmagn.runs.reading import read_config
from fastmagn.theory.measure import GeometryConfig, measure_geometry
from fastmagn.theory.report import write_report

_PROG = "python -m fastmagn.theory"


@dataclass(frozen=True, kw_only=True)
class TheoryConfig:
    """Which images to measure on, and where the report goes.

    Args:
        out: Folder of the report: geometry.json, geometry.md, geometry.png, geometry.svg.
        num_images: First so many test images, 0 for all.
        data_dir: Folder of the image set; none means data.dir of the first run.
        device: auto (CUDA where there is one), cpu or cuda.
    """

    out: Path
    num_images: int = 256
    data_dir: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check(self.num_images >= 0, "num_images", self.num_images, "0 (all) or more")
        check(not self.out.is_file(), "out", str(self.out), "a folder, new or not")


def measure_runs(run_dirs: list[Path], config: TheoryConfig, geometry: GeometryConfig) -> str:
    """Measure each run on the same images and write the report.

    The network is measured: an ensemble over noise at test time (RSE) is left out, as in the paper's analysis.

    Returns:
        The text of geometry.md.

    Raises:
        InputError: A run folder cannot be read, or comes twice; runs of different image sets; fewer images than asked.
    """
    configs = _read_configs(run_dirs)
    data = next(iter(configs.values())).data
    image_set = load_data(dataclasses.replace(data, dir=config.data_dir or data.dir))
    total = len(image_set.test_labels)
    check(config.num_images <= total, "num_images", config.num_images, f"0..{total}, the test images there are")
    num_images = config.num_images or total
    device = torch.device(settle_hardware(Config(device=config.device)).device)
    # All models before the first measurement: a broken folder shows now, not after minutes.
    models = {
        label: load_run(run_dir, config=run_config, image_set=image_set, device=device).network
        for run_dir, (label, run_config) in zip(run_dirs, configs.items(), strict=True)
    }
    images = torch.from_numpy(np.asarray(image_set.test_images_u8[:num_images])).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(image_set.test_labels[:num_images])
    measured = {}
    for label, model in models.items():
        console.print(f"{label}: {num_images} images", soft_wrap=True, markup=False)
        measured[label] = measure_geometry(model, images, labels, geometry, device=device)
    head = {"dataset": data.name, "num_images": num_images, "settings": plain(geometry)}
    head["environment"] = environment(device)
    return write_report(config.out, head, _describe(run_dirs, configs), measured)


def _read_configs(run_dirs: list[Path]) -> dict[str, Config]:
    """Each run's configuration by its label: the folder's name, or its path where names are the same."""
    paths = [Path(os.path.realpath(run_dir)) for run_dir in run_dirs]
    for run_dir, path in zip(run_dirs, paths, strict=True):
        check(paths.count(path) == 1, "runs", str(run_dir), "each run once")
    unique = len({path.name for path in paths}) == len(paths)
    configs = {}
    for run_dir, path in zip(run_dirs, paths, strict=True):
        configs[path.name if unique else str(run_dir)] = read_config(run_dir)
    names = {label: config.data.name for label, config in configs.items()}
    if len(set(names.values())) > 1:
        found = ", ".join(f"{name} ({label})" for label, name in names.items())
        raise InputError(f"runs: got {found}; expected runs of one data set, to be measured on the same images.")
    return configs


def _describe(run_dirs: list[Path], configs: dict[str, Config]) -> dict[str, dict[str, Any]]:
    """What geometry.json says of each run beside what was measured."""
    return {
        label: {
            "run_dir": str(run_dir),
            "method": config.method,
            "model": config.model.name,
            "epochs": config.train.epochs,
            "seed": config.train.seed,
        }
        for run_dir, (label, config) in zip(run_dirs, configs.items(), strict=True)
    }


def parse_arguments(arguments: list[str]) -> tuple[list[Path], TheoryConfig, GeometryConfig]:
    """The run folders, the images and the report's folder, and what is measured.

    Raises:
        InputError: An unknown or missing argument, a value of another type or out of its range.
    """
    parser = ArgumentParser(
        prog=_PROG,
        description="Measure Fisher information, loss gradient, curvature and local loss deviation of trained runs.",
        epilog=EXIT_CODES,
        exit_on_error=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of runs of one data set.")
    parser.add_class_arguments(TheoryConfig)
    parser.add_class_arguments(GeometryConfig)
    try:
        values = vars(parser.instantiate(parser.parse_args(arguments)))
    except ArgumentError as error:
        raise InputError(" ".join(str(error).split())) from error
    configs = [
        kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})
        for kind in (TheoryConfig, GeometryConfig)
    ]
    return [Path(run) for run in values["runs"]], *configs


def main(arguments: list[str]) -> int:
    run_dirs, config, geometry = parse_arguments(arguments)
    console.print(measure_runs(run_dirs, config, geometry), soft_wrap=True, markup=False)
    console.print(f"written to {config.out}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)
