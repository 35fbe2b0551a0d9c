"""The usual training loop: it forwards each view of its method, minimises equation (6), and every step trains."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks import conventional
from benchmarks.conventional import conventional_step, loss_of_views
from fastmagn.config.command_line import parse_config
from fastmagn.machine.hardware import settle_hardware
from fastmagn.models import build_model
from tests.helpers.plain_losses import LABELS, kl_row, softmax_row

VIEWS = {"standard": (0, 0), "augmix": (2, 0), "magn": (0, 1), "magn_augmix": (2, 1)}  # of AugMix, and noisy ones
FIELDS = ["--train.batch_size", "8", "--device", "cpu", "--train.amp", "float32"]
WEIGHTS = ["--loss.consistency_weight", "2.5", "--loss.jsd_weight", "7"]


@pytest.mark.parametrize("method", VIEWS)
def test_its_loss_is_equation_6(method):
    num_augmix, num_noisy = VIEWS[method]
    generator = torch.Generator().manual_seed(num_augmix)
    logits = [3 * torch.randn(len(LABELS), 10, generator=generator) for _ in range(1 + num_augmix + num_noisy)]
    expected = 0.0
    for label, *rows in zip(LABELS.tolist(), *(view.tolist() for view in logits), strict=True):
        clean, *others = map(softmax_row, rows)
        loss = -math.log(clean[label])
        if num_augmix:
            views = [clean, *others[:num_augmix]]
            mixture = [sum(column) / len(views) for column in zip(*views, strict=True)]
            loss += 7 * sum(kl_row(view, mixture) for view in views) / len(views)
        if num_noisy:
            loss += 2.5 * clean[label] * kl_row(clean, others[-1])
        expected += loss / len(LABELS)
    config = parse_config(["--method", method, *FIELDS, *WEIGHTS], "test", "A test.")
    assert loss_of_views(config, logits, LABELS, num_augmix).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", VIEWS)
def test_each_step_forwards_its_views_and_changes_all_weights(method, monkeypatch):
    """Without processes that load the data."""
    monkeypatch.setattr(conventional, "DataLoader", lambda images, **how: DataLoader(images, how["batch_size"]))
    config = settle_hardware(parse_config(["--method", method, *FIELDS], "test", "A test."))
    model = build_model("resnet_small", num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3).train()
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    step = conventional_step(config, model, images, np.arange(16) % 10, 1)
    for _ in range(2):
        seen.clear()
        before = [parameter.clone() for parameter in model.parameters()]
        step()
        clean, *others = seen
        assert len(others) == sum(VIEWS[method])
        assert not any(torch.equal(clean[i], other[i]) for other in others for i in range(8))
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert torch.isfinite(parameter).all()
            assert not torch.equal(parameter, old)
