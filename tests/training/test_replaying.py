"""When an optimiser's update is recorded, and what a replay is given. The device's own graphs are in test_muon.py."""

import pytest
import torch

from fastmagn.training import replaying
from fastmagn.training.replaying import UNRECORDED, Replayed


@pytest.fixture
def records(monkeypatch) -> list[int]:
    """How often something was recorded; a replay calls it again, as a graph would run its kernels."""
    made: list[int] = []

    def recorded(launch):
        made.append(len(made))
        return launch

    monkeypatch.setattr(replaying, "recorded", recorded)
    return made


def test_every_update_has_its_own_gradients_and_rates_and_is_recorded_once(records):
    weight, replayed, expected = torch.zeros(3), Replayed(), torch.zeros(3)
    for step in range(UNRECORDED + 4):
        gradient, rate = torch.full((3,), float(step + 1)), 0.5 + step
        replayed.run(lambda gradients, rates: weight.sub_(gradients[0] * rates[0]), [weight], [gradient], [rate])
        expected -= gradient * rate
        assert torch.equal(weight, expected)
        assert len(records) == (step >= UNRECORDED)


def test_memory_that_has_moved_is_recorded_anew(records):
    weights, replayed = [torch.zeros(3)], Replayed()

    def update(gradients, rates):
        weights[0].sub_(gradients[0] * rates[0])

    for _ in range(UNRECORDED + 1):
        replayed.run(update, weights, [torch.ones(3)], [1.0])
    weights[0] = weights[0].clone()
    replayed.run(update, weights, [torch.ones(3)], [1.0])
    assert torch.equal(weights[0], torch.full((3,), -(UNRECORDED + 2.0)))
    assert len(records) == 2
