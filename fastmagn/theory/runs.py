"""Measures several trained runs on the same images, and writes the report."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastmagn.config.own_code import explained
from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data import ENCODED, OWN, load_data
from fastmagn.data.files.decoding import resize_px
from fastmagn.errors import InputError, check, counted
from fastmagn.evaluation.class_names import check_classes
from fastmagn.evaluation.run import classes_of_run
from fastmagn.evaluation.subset import subset_of
from fastmagn.evaluation.trained import load_run
from fastmagn.machine.console import console
from fastmagn.machine.environment import environment
from fastmagn.machine.files import check_writable
from fastmagn.machine.hardware import settle_hardware
from fastmagn.runs.failures import explain_measuring
from fastmagn.runs.reading import read_config
from fastmagn.theory.config import GeometryConfig, TheoryConfig
from fastmagn.theory.measure import measure_geometry
from fastmagn.theory.report import write_report


def measure_runs(run_dirs: list[Path], config: TheoryConfig, geometry: GeometryConfig) -> str:
    """Measure each run on the same images and write the report.

    The network itself is measured, without RSE's ensemble over noise at test time, as in the paper's analysis.

    Returns:
        The text of geometry.md.

    Raises:
        InputError: A run folder cannot be read or is named twice; the runs have different image sets, or classes that
            the images do not have; there are fewer images than asked for; `out` cannot be written; memory is too small;
            a device is lost.
    """
    check_writable(config.out, config.out)
    configs = _read_configs(run_dirs)
    _check_same_images(configs, config.data_dir)
    data = next(iter(configs.values())).data
    with explained(next(iter(configs.values())).imports):
        image_set = load_data(dataclasses.replace(data, dir=config.data_dir or data.dir))
    for run_dir in run_dirs:
        check_classes(image_set, classes_of_run(run_dir))
    total = len(image_set.test_labels)
    check(config.num_images <= total, "num_images", config.num_images, f"0..{total}, the test images there are")
    num_images = config.num_images or total
    device = torch.device(settle_hardware(Config(device=config.device)).device)
    # All models are loaded before the first measurement: a broken folder fails now, not after minutes.
    models = {
        label: load_run(run_dir, config=run_config, image_set=image_set, device=device).network
        for run_dir, (label, run_config) in zip(run_dirs, configs.items(), strict=True)
    }
    subset = subset_of(data.name, geometry.seed)
    rows = subset.rows(image_set.test_labels, config.num_images)
    images = torch.from_numpy(np.asarray(image_set.test_images_u8[rows])).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(image_set.test_labels[rows])
    measured = {}
    for label, model in models.items():
        console.print(f"{label}: {counted(num_images, 'image')}", soft_wrap=True)
        with explain_measuring(device.type, geometry.batch_size, "batch_size"):
            measured[label] = measure_geometry(model, images, labels, geometry, device=device)
    head = {"dataset": data.name, "num_images": num_images, "subset": subset.record(num_images, total)}
    head |= {"settings": plain(geometry), "environment": environment(device)}
    return write_report(config.out, head, _describe(run_dirs, configs), measured)


def _read_configs(run_dirs: list[Path]) -> dict[str, Config]:
    """Each run's configuration by its label: the folder's name, or its path if two names are the same."""
    paths = [Path(os.path.realpath(run_dir)) for run_dir in run_dirs]
    for run_dir, path in zip(run_dirs, paths, strict=True):
        check(paths.count(path) == 1, "runs", str(run_dir), "each run once")
    unique = len({path.name for path in paths}) == len(paths)
    configs = {}
    for run_dir, path in zip(run_dirs, paths, strict=True):
        configs[path.name if unique else str(run_dir)] = read_config(run_dir)
    return configs


def _check_same_images(configs: dict[str, Config], data_dir: Path | None) -> None:
    """Raise InputError if the runs were trained for images of another set, size or, without `data_dir`, folder."""
    sections = {label: config.data for label, config in configs.items()}
    _check_one({label: data.name for label, data in sections.items()}, "", "data set")
    if all(data.name in ENCODED for data in sections.values()):
        _check_one({label: data.image_size for label, data in sections.items()}, "data.image_size ", "data.image_size")
        lengths = {label: resize_px(data) for label, data in sections.items()}
        _check_one(lengths, "data.eval_resize_px ", "data.eval_resize_px")
        for field in ("test_shards", "image_column", "label_column"):
            values = {label: getattr(data, field) for label, data in sections.items()}
            _check_one(values, f"data.{field} ", f"data.{field}")
    if data_dir is None and any(data.name in OWN for data in sections.values()):
        folders = {label: os.path.realpath(data.dir) for label, data in sections.items()}
        _check_one(folders, "data.dir ", "data.dir, or --data_dir")


def _check_one(values: dict[str, Any], shown: str, expected: str) -> None:
    if len(set(values.values())) > 1:
        found = ", ".join(f"{value} ({label})" for label, value in values.items())
        raise InputError(
            f"runs: got {shown}{found}; expected runs of one {expected}, to be measured on the same images."
        )


def _describe(run_dirs: list[Path], configs: dict[str, Config]) -> dict[str, dict[str, Any]]:
    """The description of each run in geometry.json."""
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
