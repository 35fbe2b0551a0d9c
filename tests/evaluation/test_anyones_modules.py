"""Modules as people write and make them: what they do with their images, and what PyTorch's tools make of them."""

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn import evaluate_robustness
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.evaluation.fourier import evaluate_fourier
from fastmagn.evaluation.perturbations import evaluate_perturbations
from fastmagn.models import build_model, evaluation_mode
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


def small() -> nn.Module:
    torch.manual_seed(2)
    parts = [nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    network = nn.Sequential(*parts, nn.Linear(256, 3)).eval()
    network[1].running_mean.fill_(0.1)
    return network


def exported(network: nn.Module) -> nn.Module:
    number = torch.export.Dim("number", min=1)
    return torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: number},)).module()


MADE = {
    "exported": exported,
    "frozen": lambda network: torch.jit.freeze(torch.jit.script(network)),
    "traced and frozen": lambda network: torch.jit.freeze(torch.jit.trace(network, torch.zeros(2, 3, 32, 32))),
    "scripted": torch.jit.script,
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_what_pytorchs_tools_make_of_a_module_is_measured_as_the_module(name):
    expected = evaluate_robustness(small(), IMAGES, LABELS, corruption_set="cbar")
    found = evaluate_robustness(MADE[name](small()), IMAGES, LABELS, corruption_set="cbar")
    assert found["corruption_accuracy"] == expected["corruption_accuracy"]
    for part in ("clean", "corrupt"):
        same = expected["calibration"][part]["nll"]
        assert found["calibration"][part]["nll"] == pytest.approx(same, rel=1e-5)


def test_modules_beside_an_exported_one_are_measured_in_evaluation_mode():
    model = nn.Sequential(exported(small()), nn.Dropout(0.5))
    model[1].train()
    before = [module.training for module in model.modules()]
    with evaluation_mode(model):
        assert not model[1].training
    assert [module.training for module in model.modules()] == before


class Keeping(nn.Module):
    """Keeps a tensor of its first forward pass for all others, as positions are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.kept = nn.Linear(3, 3), None

    def forward(self, images):
        if self.kept is None:
            self.kept = torch.linspace(0, 1, 3, device=images.device)
        return self.head(images.mean(dim=(2, 3)) * self.kept)


def test_a_model_that_keeps_a_tensor_can_be_trained_after_an_evaluation():
    for measure in (
        lambda model: evaluate_robustness(model, IMAGES, LABELS, corruption_set="cbar"),
        lambda model: evaluate_fourier(model, IMAGES, LABELS, EvalConfig(fourier_images=2), device=CPU),
    ):
        model = Keeping()
        measure(model)
        model(torch.rand(2, 3, 32, 32, requires_grad=True)).sum().backward()
        means = 2 * torch.linspace(0, 1, 3)
        assert (model.head.weight.grad.abs() <= means).all()
        assert model.head.bias.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize("stored", [torch.channels_last, torch.contiguous_format])
def test_images_are_stored_as_the_weights_are(stored):
    network = build_model("resnet_small", num_classes=3, mean=(0.5,) * 3, std=(0.25,) * 3).to(memory_format=stored)
    seen = []
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    evaluate_robustness(network, IMAGES, LABELS, corruption_set="cbar")
    evaluate_fourier(network, IMAGES, LABELS, EvalConfig(fourier=True, fourier_images=2), device=CPU)
    assert all(images.is_contiguous(memory_format=stored) for images in seen)
