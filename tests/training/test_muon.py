"""Muon against its update written out in float64, one parameter after another; its launches, and its GradScaler."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastmagn import models
from fastmagn.config.schema import OptimConfig
from fastmagn.models import build_model
from fastmagn.training.muon import Muon, orthogonalise
from fastmagn.training.optim import make_optimizer
from fastmagn.training.run import train
from tests.helpers.small_runs import assert_same_weights, config_for, weights
from tests.helpers.steps import start_run

SHORT = ["--train.batch_size", "32", "--device", "cpu", "--train.amp", "float32", "--eval.num_images", "8"]
SETTINGS = {"lr": 0.1, "momentum": 0.6, "weight_decay": 0.01, "filter_lr_ratio": 0.5}
# As in a network: several of one shape, one alone, more outputs than inputs and fewer, 1x1, a bias, a linear layer.
SHAPES = [(8, 3, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3), (16, 8, 1, 1), (64, 2, 3, 3), (8,), (8,), (10, 8)]


@pytest.mark.parametrize("shape", [(16, 16), (32, 288), (64, 27)])
def test_orthogonalise_pulls_singular_values_to_one_and_keeps_the_singular_vectors(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonalise(matrix)
    in_its_basis = u.T @ made @ vh.T
    values = in_its_basis.diagonal()
    torch.testing.assert_close(in_its_basis, torch.diag(values), rtol=0, atol=1e-4)
    large = s > 0.2 * s.max()
    assert values[large].min() > 0.5
    assert values.max() < 1.21


def test_orthogonalise_leaves_what_is_far_below_the_largest_small():
    torch.manual_seed(0)
    matrix = torch.randn(64, 8) @ torch.randn(8, 576) + 0.01 * torch.randn(64, 576)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    values = (u.T @ orthogonalise(matrix) @ vh.T).diagonal()
    assert values.max() < 1.21
    assert (values <= 3.4445**3 * s / s.norm() + 1e-4).all()


def parameters_of(shapes: list[tuple[int, ...]], channels_last: bool) -> list[nn.Parameter]:
    torch.manual_seed(1)
    made = []
    for shape in shapes:
        values = torch.randn(shape)
        if len(shape) == 4 and channels_last:
            values = values.contiguous(memory_format=torch.channels_last)
        made.append(nn.Parameter(values))
    return made


def set_gradients(parameters: list[nn.Parameter], seed: int) -> list[np.ndarray]:
    """New gradients, in the memory format of their parameters; the same in float64."""
    torch.manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape).to(
            memory_format=torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
        )
    return [as_float64(parameter.grad) for parameter in parameters]


def as_float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


def orthogonal(matrix: np.ndarray) -> np.ndarray:
    """Three steps of the quintic Newton-Schulz iteration in float64."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def updated(weight: np.ndarray, buffer: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A parameter and its momentum after a step of `SETTINGS`."""
    if weight.ndim != 4:
        gradient = gradient + 0.01 * weight
    buffer = 0.6 * buffer + gradient
    update = gradient + 0.6 * buffer
    if weight.ndim != 4:
        return weight - 0.1 * update, buffer
    direction = orthogonal(update.reshape(len(weight), -1)).reshape(weight.shape)
    return weight * math.sqrt(len(weight)) / np.linalg.norm(weight) - 0.05 * direction, buffer


@pytest.mark.parametrize("channels_last", [False, True])
def test_muon_is_its_update_written_out(channels_last):
    parameters = parameters_of(SHAPES, channels_last)
    optimizer = Muon(parameters, **SETTINGS)
    expected = [(as_float64(parameter), np.zeros(parameter.shape)) for parameter in parameters]
    strides = [parameter.stride() for parameter in parameters]
    for step in range(3):
        gradients = set_gradients(parameters, step)
        expected = [updated(*before, gradient) for before, gradient in zip(expected, gradients, strict=True)]
        optimizer.step()
    for parameter, (weight, buffer) in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(as_float64(parameter), weight, rtol=0, atol=2e-5)
        kept = optimizer.state[parameter]["momentum_buffer"]
        np.testing.assert_allclose(as_float64(kept), buffer, rtol=0, atol=1e-6)
        assert kept.stride() == parameter.stride()
    assert [parameter.stride() for parameter in parameters] == strides


def test_filters_have_a_fixed_norm_and_no_penalty_and_zeros_stay_finite():
    made = []
    for weight_decay in (0.0, 0.5):
        parameters = [parameter.detach() * 3 for parameter in parameters_of([(8, 3, 3, 3), (16, 8, 1, 1), (8,)], False)]
        parameters = [nn.Parameter(parameter.detach()) for parameter in parameters] + [
            nn.Parameter(torch.zeros(4, 2, 3, 3))
        ]
        set_gradients(parameters, 0)
        Muon(parameters, **SETTINGS | {"lr": 1e-7, "weight_decay": weight_decay}).step()
        made.append(parameters)
    for parameter, same in zip(*made, strict=True):
        if parameter.ndim == 4:
            assert torch.equal(parameter, same)
            norm = 0 if parameter.shape[0] == 4 else math.sqrt(len(parameter))
            assert parameter.norm().item() == pytest.approx(norm, abs=1e-5)
        else:
            assert not torch.equal(parameter, same)


def unnormalised(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Flatten(), nn.Linear(8 * 64, num_classes))


@pytest.mark.parametrize(
    ("name", "optimizer", "warns"),
    [
        ("unnormalised", "muon", True),
        ("unnormalised", "sgd", False),
        ("resnet_small", "muon", False),
    ],
)
def test_loaded_weights_that_the_first_step_changes(name, optimizer, warns, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(models.MODELS, "unnormalised", "tests.training.test_muon:unnormalised")
    network = build_model(name, num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3, image_size=(32, 32)).network
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    weights = ["--model.name", name, "--model.weights", str(tmp_path / "weights.pt")]
    start_run(config_for([*SHORT, *weights, "--optim.name", optimizer], tmp_path / "run"))
    assert ("--optim.name sgd does not" in capsys.readouterr().out) == warns


def test_a_parameter_without_a_gradient_stays():
    parameters = parameters_of([(8, 3, 3, 3), (8, 3, 3, 3), (8,)], channels_last=False)
    optimizer = Muon(parameters, **SETTINGS)
    set_gradients(parameters, 0)
    parameters[1].grad = parameters[2].grad = None
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer.step()
    changed = [not torch.equal(old, new) for old, new in zip(before, parameters, strict=True)]
    assert changed == [True, False, False]


def test_a_closure_computes_the_gradients_of_the_step():
    plain, closed = (parameters_of(SHAPES, channels_last=False) for _ in range(2))
    set_gradients(plain, 0)
    assert Muon(plain, **SETTINGS).step() is None

    def closure() -> float:
        assert torch.is_grad_enabled()
        set_gradients(closed, 0)
        return 0.5

    assert Muon(closed, **SETTINGS).step(closure) == 0.5
    torch.testing.assert_close(closed, plain, rtol=0, atol=0)


class Launches(TorchDispatchMode):
    """Counts the operations that launch kernels. One on lists is one launch if its tensors lie alike."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), options: dict | None = None) -> Any:
        name = function.name()
        returned = [value.alias_info for value in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returned) or "view" in name
        lists = [
            value for value in arguments if isinstance(value, list) and value and isinstance(value[0], torch.Tensor)
        ]
        are_alike = all(
            len({(tensor.dtype, tensor.shape, tensor.stride()) for tensor in tensors}) == 1
            for tensors in zip(*lists, strict=True)
        )
        if name.startswith("aten::") and not is_view:
            self.count[name] += len(lists[0]) if "_foreach" in name and not are_alike else 1
        return function(*arguments, **(options or {}))


def launches(shapes: list[tuple[int, ...]], scaler: torch.amp.GradScaler | None = None) -> Counter[str]:
    """The operations of a step, but for the first, which makes the buffers."""
    parameters = parameters_of(shapes, channels_last=True)
    optimizer = Muon(parameters, **SETTINGS)
    for step in range(2):
        set_gradients(parameters, step)
        if scaler is not None:
            scaler.scale(torch.zeros(()))
        with Launches() as counted:
            optimizer.step() if scaler is None else scaler.step(optimizer)
        if scaler is not None:
            scaler.update()
    return counted.count


def resnet18_shapes() -> list[tuple[int, ...]]:
    model = build_model("resnet18", num_classes=10, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    return [tuple(parameter.shape) for parameter in model.parameters()]


def test_the_launches_of_a_step_grow_with_the_shapes_and_not_with_the_parameters():
    once, six_times = launches([(8, 8, 3, 3), (8,)]), launches([(8, 8, 3, 3), (8,)] * 6)
    assert six_times == once


def test_a_step_of_resnet18_has_less_than_a_third_of_the_launches_of_one_for_each_parameter():
    """One parameter after another, it was 912."""
    shapes = resnet18_shapes()
    assert len(shapes) == 62
    assert sum(launches(shapes).values()) <= 912 / 3


def test_a_scaled_step_waits_for_nothing():
    """To read a value of a tensor, the host waits for the device."""
    counted = launches(SHAPES, torch.amp.GradScaler("cpu", init_scale=4.0))
    assert not [name for name in counted if "_local_scalar_dense" in name or "is_nonzero" in name or "equal" in name]


def test_a_scaled_step_is_the_step_of_unscaled_gradients():
    plain, scaled = parameters_of(SHAPES, channels_last=True), parameters_of(SHAPES, channels_last=True)
    optimizers = [Muon(parameters, **SETTINGS) for parameters in (plain, scaled)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(3):
        set_gradients(plain, step)
        set_gradients(scaled, step)
        for parameter in scaled:
            parameter.grad *= 1024
        optimizers[0].step()
        scaler.scale(torch.zeros(()))  # makes the scale
        scaler.step(optimizers[1])
        scaler.update()
    for expected, made in zip(plain, scaled, strict=True):
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_step_whose_gradients_are_not_finite_changes_nothing_but_the_scale(bad):
    parameters = parameters_of(SHAPES, channels_last=True)
    optimizer, scaler = Muon(parameters, **SETTINGS), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(2):
        set_gradients(parameters, step)
        before = [parameter.detach().clone() for parameter in parameters]
        buffers = [value["momentum_buffer"].clone() for value in optimizer.state.values()]
        if step == 1:
            parameters[2].grad[3, 2, 1, 0] = bad
        scaler.scale(torch.zeros(()))
        scaler.step(optimizer)
        scaler.update()
    for old, new in zip(before, parameters, strict=True):
        assert torch.equal(old, new)
    for old, value in zip(buffers, optimizer.state.values(), strict=True):
        assert torch.equal(old, value["momentum_buffer"])
    assert scaler.get_scale() == 512


def test_a_stopped_run_with_muon_goes_on_bit_for_bit(tmp_path):
    def finish(folder: str, *max_steps: int) -> dict[str, torch.Tensor]:
        for steps in max_steps:
            arguments = ["--optim.name", "muon", "--train.max_steps", str(steps), "--eval.corruption_set", "c15"]
            train(config_for(SHORT, tmp_path / folder, *arguments))
        return weights(tmp_path / folder)

    assert_same_weights(finish("parts", 2, 4), finish("whole", 4))


def test_the_optimizer_is_chosen_by_name():
    parameters = [nn.Parameter(torch.zeros(2, 2, 3, 3))]
    assert isinstance(make_optimizer(parameters, OptimConfig(name="muon")), Muon)
    assert isinstance(make_optimizer(parameters, OptimConfig()), torch.optim.SGD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_that_is_replayed_is_the_step_to_the_bit():
    on_host = parameters_of(SHAPES, channels_last=True)
    parameters = [nn.Parameter(parameter.detach().cuda()) for parameter in on_host]
    others = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    optimizer, other = Muon(parameters, **SETTINGS), Muon(others, **SETTINGS)
    other._on_cuda.unrecorded = 10**9
    for step in range(12):
        set_gradients(on_host, step)
        for source, *both in zip(on_host, parameters, others, strict=True):
            for parameter in both:
                parameter.grad = source.grad.cuda()
        for group in (*optimizer.param_groups, *other.param_groups):
            group["lr"] = 0.1 + 0.01 * step
        optimizer.step()
        other.step()
        assert all(torch.equal(a, b) for a, b in zip(parameters, others, strict=True))
    assert optimizer._on_cuda.places
    assert not other._on_cuda.places
