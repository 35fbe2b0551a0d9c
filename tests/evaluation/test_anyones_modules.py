"""Modules as people write and make them: what they do with their images, and what PyTorch's tools make of them."""

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn import evaluate_robustness
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.evaluation.fourier import evaluate_fourier
from fastmagn.evaluation.perturbations import evaluate_perturbations
from fastmagn.models import build_model
from tests.evaluation.test_evaluate import CPU

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 1, 0, 2])
OTHERS = {"ood": {"dark": IMAGES // 2}, "held_out": (255 - IMAGES, LABELS)}


class Flat(nn.Module):
    """Rows of pixels, or of maps, by `view` or by `reshape`, and a linear layer."""

    def __init__(self, stem: nn.Module, width: int, by: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.by = stem, nn.Linear(width, 3), by

    def forward(self, images):
        return self.head(getattr(self.stem(images), self.by)(len(images), -1))


def perceptron(by: str) -> nn.Module:
    return Flat(nn.Identity(), 3072, by)


def convolutional(by: str) -> nn.Module:
    torch.manual_seed(1)
    return Flat(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), 4 * 15 * 15, by)


@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_a_model_may_view_its_images_and_maps(make):
    """In each measure of anyone's model; `reshape` takes images in any memory format."""
    options = {"corruption_set": "cbar", **OTHERS}
    expected = evaluate_robustness(make("reshape"), IMAGES, LABELS, **options)
    assert evaluate_robustness(make("view"), IMAGES, LABELS, **options) == expected
    config = EvalConfig(fourier=True, fourier_images=3, batch_size=4, num_images=2)
    for measure in (evaluate_fourier, evaluate_perturbations):
        expected = measure(make("reshape"), IMAGES, LABELS, config, device=CPU)
        assert measure(make("view"), IMAGES, LABELS, config, device=CPU) == expected


@pytest.mark.parametrize("stored", [torch.channels_last, torch.contiguous_format])
def test_images_are_stored_as_the_weights_are(stored):
    network = build_model("resnet_small", num_classes=3, mean=(0.5,) * 3, std=(0.25,) * 3).to(memory_format=stored)
    seen = []
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    evaluate_robustness(network, IMAGES, LABELS, corruption_set="cbar")
    evaluate_fourier(network, IMAGES, LABELS, EvalConfig(fourier=True, fourier_images=2), device=CPU)
    assert all(images.is_contiguous(memory_format=stored) for images in seen)
