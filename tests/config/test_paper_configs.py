"""Every method and every network of the paper takes two steps from its shipped configuration, on real CIFAR-10."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.data import load_images, split_validation
from fastmagn.machine.hardware import settle_hardware
from fastmagn.models import MODELS
from fastmagn.training.build import build_run
from fastmagn.training.run import train
from fastmagn.training.step import Run, make_pieces, train_step
from tests.helpers.tiers import slow_but

PAPER = Path(__file__).parent.parent.parent / "configs" / "paper"
MAGN_AUGMIX = PAPER / "table1" / "magn_augmix.yaml"
METHOD_FILES = sorted([*(PAPER / "table1").glob("*.yaml"), *(PAPER / "rivals").glob("cifar10_*.yaml")])
NETWORK_FILES = [
    *sorted((PAPER / "table2_3").glob("cifar10_*_magn_augmix.yaml")),
    *sorted((PAPER / "networks").glob("cifar10_*.yaml")),
]


def configured(path: Path, data_dir: Path, *arguments: str) -> Config:
    fixed = ["--config", str(path), "--data.dir", str(data_dir), "--device", "cpu", "--train.amp", "float32"]
    return settle_hardware(parse_config([*fixed, *arguments], "test", "A test."))


def two_steps(config: Config) -> Run:
    """Two steps; every loss part is finite, and so is every parameter's gradient, which is there."""
    image_set = load_images(config.data.name, config.data.dir)
    run = build_run(config, image_set, split_validation(image_set, 0, 0)[0])
    seen: dict[str, torch.Tensor] = {}
    for name, parameter in run.model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: seen.update({name: p.grad.detach().clone()}))
    for step, batch in zip(range(2), run.source.batches(0), strict=False):
        seen.clear()
        parts = train_step(run, make_pieces(run, batch, 0), step)
        assert np.isfinite([float(part) for part in parts.values()]).all()
        assert seen.keys() == {name for name, _ in run.model.named_parameters()}
        assert all(torch.isfinite(gradient).all() for gradient in seen.values())
    return run


@pytest.mark.data
@pytest.mark.parametrize("path", slow_but(METHOD_FILES, MAGN_AUGMIX), ids=lambda path: path.stem)
def test_methods(path, data_dir):
    """At the shipped settings but for a small network and batch."""
    two_steps(configured(path, data_dir, "--model.name", "resnet_small", "--train.batch_size", "8"))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("path", [MAGN_AUGMIX, *NETWORK_FILES], ids=lambda path: path.stem)
def test_networks(path, data_dir):
    """At the shipped settings but for a batch of two images, 8 views."""
    run = two_steps(configured(path, data_dir, "--train.batch_size", "2"))
    assert run.config.model.name in MODELS


@pytest.mark.data
def test_a_shipped_run_to_its_results(data_dir, tmp_path):
    arguments = ["--model.name", "resnet_small", "--train.batch_size", "16", "--train.max_steps", "2"]
    arguments += ["--eval.num_images", "8", "--run_dir", str(tmp_path / "run")]
    results = train(configured(PAPER / "table1" / "trades.yaml", data_dir, *arguments))
    assert results["steps"] == 2
    assert results["config"]["method"] == "trades"
