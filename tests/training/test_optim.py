"""Learning rates against PyTorch's schedulers; the optimiser against Nesterov's update written out."""

import math

import pytest
import torch
from torch import nn

from fastmagn.config.schema import OptimConfig
from fastmagn.errors import InputError
from fastmagn.training.optim import learning_rate, make_optimizer, set_learning_rate


def lrs_of(scheduler, optimizer, steps: int) -> list[float]:
    lrs = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 10), (7, 13), (30, 4)])
def test_one_cycle_is_pytorchs(epochs, steps_per_epoch):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    total = epochs * steps_per_epoch
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=total, cycle_momentum=False)
    expected = lrs_of(scheduler, optimizer, total)
    optim = OptimConfig(lr=0.3, schedule="one_cycle")
    ours = [learning_rate(step, optim, steps_per_epoch=steps_per_epoch, epochs=epochs) for step in range(total)]
    assert ours == pytest.approx(expected, rel=1e-9)


def test_step_schedule_is_the_papers():
    optim = OptimConfig(lr=0.1, schedule="step", step_epochs=50, step_factor=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.1)
    expected = lrs_of(scheduler, optimizer, 150)
    steps = 97
    for epoch in range(150):
        for step in (epoch * steps, epoch * steps + steps - 1):
            lr = learning_rate(step, optim, steps_per_epoch=steps, epochs=150)
            assert lr == pytest.approx(expected[epoch], rel=1e-9)


def test_steps_at_given_epochs_are_pytorchs():
    optim = OptimConfig(lr=0.1, schedule="step", step_at="60,120,160,190", step_factor=0.2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[60, 120, 160, 190], gamma=0.2)
    expected = lrs_of(scheduler, optimizer, 200)
    for epoch in range(200):
        for step in (epoch * 97, epoch * 97 + 96):
            lr = learning_rate(step, optim, steps_per_epoch=97, epochs=200)
            assert lr == pytest.approx(expected[epoch], rel=1e-9)


@pytest.mark.parametrize("steps", ["", "60,60", "0,60", "120,60", "60;120", "60, 120", "-1", "60,", "1e2"])
def test_steps_that_do_not_rise_have_one_line(steps):
    with pytest.raises(InputError, match=r"^optim\.step_at: got '.*'; expected rising numbers of epochs with commas,"):
        OptimConfig(step_at=steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_very_short_runs_have_a_positive_rate(steps):
    optim = OptimConfig(lr=0.1)
    lrs = [learning_rate(step, optim, steps_per_epoch=steps, epochs=1) for step in range(steps)]
    assert all(0 < lr <= 0.1 for lr in lrs)


def test_a_first_step_that_overflows_changes_nothing():
    """GradScaler leaves it to the fused kernel to skip the step; memory that was used before is not momentum."""
    parameter = nn.Parameter(torch.ones(200_000))
    optimizer = make_optimizer([parameter], OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))
    used = [torch.full((200_000,), 1e3) for _ in range(4)]
    del used
    for gradient in (math.inf, 8.0):
        parameter.grad = torch.full((200_000,), gradient)
        before = parameter.detach().clone()
        scaler.step(optimizer)
        scaler.update(8.0)
        if gradient == math.inf:
            assert torch.equal(parameter, before)
    torch.testing.assert_close(parameter.detach(), torch.full((200_000,), 1 - 0.1 * 1.9))


def test_ten_steps_of_adamw_are_its_recurrence_in_float64():
    """Matrices decay by lr times weight_decay, vectors and scalars do not."""
    torch.manual_seed(0)
    shapes = [(4, 3, 3, 3), (5, 4), (1, 2, 4), (5,), ()]
    start = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    parameters = [nn.Parameter(weight.clone()) for weight in start]
    optim = OptimConfig(name="adamw", lr=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1)
    optimizer = make_optimizer(parameters, optim)
    means, squares = ([torch.zeros_like(weight) for weight in start] for _ in range(2))
    for step in range(1, 11):
        lr = 0.01 / step
        set_learning_rate(optimizer, lr)
        for i, parameter in enumerate(parameters):
            gradient = torch.randn_like(start[i])
            parameter.grad = gradient.clone()
            means[i] = 0.8 * means[i] + 0.2 * gradient
            squares[i] = 0.95 * squares[i] + 0.05 * gradient**2
            decay = 0.1 if start[i].ndim > 1 else 0.0
            move = means[i] / (1 - 0.8**step) / ((squares[i] / (1 - 0.95**step)).sqrt() + 1e-8)
            start[i] = start[i] - lr * decay * start[i] - lr * move
        optimizer.step()
    torch.testing.assert_close([parameter.detach() for parameter in parameters], start, rtol=1e-9, atol=1e-12)


def test_adamw_is_fused_and_has_its_usual_constants():
    optimizer = make_optimizer([nn.Parameter(torch.zeros(2, 2))], OptimConfig(name="adamw"))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_optimizer_is_nesterov_sgd_with_weight_decay(momentum):
    weight = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    parameter = nn.Parameter(weight.clone())
    optimizer = make_optimizer([parameter], OptimConfig(lr=0.1, momentum=momentum, weight_decay=5e-4))
    buffer = torch.zeros_like(weight)
    for step in range(5):
        lr = 0.1 / (step + 1)
        set_learning_rate(optimizer, lr)
        gradient = torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64) * (step + 1)
        parameter.grad = gradient.clone()
        optimizer.step()
        decayed = gradient + 5e-4 * weight
        buffer = momentum * buffer + decayed
        weight = weight - lr * (decayed + momentum * buffer)
    torch.testing.assert_close(parameter.detach(), weight)
