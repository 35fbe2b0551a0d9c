"""`eval.forward fast`: logits and accuracies beside those of the exact network, and what the option says."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation.fast_forward import model_to_forward
from fastmagn.evaluation.measure import predict, summarise_logits
from fastmagn.evaluation.run import evaluate_model
from fastmagn.machine.processes import World
from fastmagn.methods.test_time import MirrorEnsemble
from fastmagn.models import Normalised
from fastmagn.models.batchnorm import has_batch_norm
from tests.helpers.run_folders import randomised_model

CPU = torch.device("cpu")
SIZE = (32, 32)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "data")


@pytest.mark.parametrize("amp", ["float32", "bf16"])
def test_logits_are_as_near_the_truth_as_the_exact_network_s(digits, amp):
    """The truth is float64; bfloat16 keeps eight bits, so that its own error is the measure of a folded copy's."""
    model = randomised_model("resnet_small", seed=1)
    images = digits.test_images_u8[:64]
    fast, _ = model_to_forward(model, "fast", amp, CPU, SIZE)
    options = {"device": CPU, "amp": amp, "batch_size": 30}
    exact = predict(model, images, **options)
    found = predict(fast, images, **options)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(pixels)
    scale = truth.abs().max()
    assert (found - truth).abs().max() < (1e-5 if amp == "float32" else 0.03) * scale
    assert (found - truth).square().mean() <= 1.5 * (exact - truth).square().mean() + (1e-6 * scale) ** 2
    assert torch.equal(predict(model, images, **options), exact)  # the original is as it was


class Recording(nn.Module):
    """The settings of float32's products that its forward passes see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.seen = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), []

    def __deepcopy__(self, memo):
        twin = Recording()
        twin.load_state_dict(self.state_dict())
        twin.seen = self.seen
        return twin.eval()

    def forward(self, images):
        self.seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return self.norm(self.conv(images)).mean(dim=(2, 3))


@pytest.fixture
def _tensorfloat_32(monkeypatch):
    """TensorFloat-32 in all products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_tensorfloat_32")
def test_the_folding_is_tried_without_tensorfloat_32():
    """On GPUs its rounding is above the tolerance, so that nothing would be folded."""
    network = Recording()
    _, record = model_to_forward(Normalised(network, (0.5,) * 3, (0.25,) * 3), "fast", "float32", CPU, SIZE)
    assert record["forward"]["folded_batch_norms"] == 1
    assert set(network.seen) == {(False, "highest")}
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, "high")


def config_of(**changed) -> EvalConfig:
    return EvalConfig(corruption_set="c15", num_images=40, **changed)


@pytest.fixture(scope="module")
def run_config():
    return parse_config(["--train.amp", "float32", "--device", "cpu"], "test", "A test.")


def measured(model, digits, run_config, section, folder):
    config = dataclasses.replace(run_config, eval=section)
    return evaluate_model(model, digits, config, folder, device=CPU, world=World(), trained=None)


def test_accuracies_are_those_of_the_exact_network_but_for_ties(digits, run_config, tmp_path):
    model = MirrorEnsemble(randomised_model("resnet_small", seed=2))
    exact, fast = (measured(model, digits, run_config, config_of(forward=word), tmp_path) for word in ("exact", "fast"))
    assert "forward" not in exact
    assert fast["forward"] == {"folded_batch_norms": 9, "other_batch_norms": 0, "weights": "float32"}
    assert exact["corruption_accuracy"].keys() == fast["corruption_accuracy"].keys()
    for name, accuracies in exact["corruption_accuracy"].items():
        np.testing.assert_allclose(fast["corruption_accuracy"][name], accuracies, atol=1.01 / 40)
    assert fast["rms_calibration_error"]["corrupt"] == pytest.approx(
        exact["rms_calibration_error"]["corrupt"], abs=0.01
    )


def test_adapted_statistics_need_the_exact_network(digits, run_config, tmp_path):
    model = randomised_model("resnet_small", seed=2)
    adapted = [
        measured(model, digits, run_config, config_of(forward=word, batch_norm="adapt"), tmp_path)["adapted_batch_norm"]
        for word in ("exact", "fast")
    ]
    for entry in adapted:
        del entry["time_s"]
    assert adapted[0] == adapted[1]
    assert has_batch_norm(model)


def test_convolutions_keep_their_weights_in_bfloat16_where_they_are_used_so():
    model = randomised_model("resnet_small", seed=2)
    fast, record = model_to_forward(model, "fast", "bf16", CPU, SIZE)
    assert record["forward"]["weights"] == "bfloat16"
    kinds = {(type(module).__name__, module.weight.dtype) for module in fast.modules() if hasattr(module, "weight")}
    assert kinds == {("Conv2d", torch.bfloat16), ("Linear", torch.bfloat16)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model_to_forward(model, "exact", "bf16", CPU, SIZE) == (model, {})


def test_the_option_s_errors(tmp_path):
    with pytest.raises(InputError, match=r"^eval\.forward: got 'quick'; expected exact or fast"):
        parse_config(["--eval.forward", "quick"], "test", "A test.")
    with pytest.raises(InputError, match=r"^eval\.forward: got 'fast'; expected exact with stored logits"):
        summarise_logits(tmp_path, config_of(forward="fast"))
