"""The forward pass in stages is the network's own, and stops after each stage."""

import pytest
import torch

from fastmagn.models import build_model
from fastmagn.models.stages import check_stages, forward_in_stages
from tests.helpers.tiers import slow_but

# Channels and side of the maps after each stage, for images of 32x32.
STAGES = {
    "resnet_small": [(32, 16), (64, 8), (128, 4)],
    "resnet_small_deep": [(64, 8), (64, 8), (128, 4), (128, 4)],
    "resnet18": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "resnet50": [(256, 8), (512, 4), (1024, 2), (2048, 1)],
    "wideresnet28_4": [(64, 32), (128, 16), (256, 8)],
    "wideresnet40_2": [(32, 32), (64, 16), (128, 8)],
    "resnext29_4x32d": [(256, 32), (512, 16), (1024, 8)],
    "densenet121_k12": [(96, 32), (192, 16), (384, 8), (384, 4)],
    "torchvision:resnet18": [(64, 8), (128, 4), (256, 2), (512, 1)],
    "torchvision:densenet121": [(256, 8), (512, 4), (1024, 2), (1024, 1)],
}


@pytest.mark.parametrize("name", slow_but(STAGES, "resnet_small", "wideresnet40_2", "densenet121_k12", "resnet18"))
def test_stages(name):
    model = build_model(name, num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    check_stages(model, "noisymix", name)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = []

    def look(stage: int, maps: torch.Tensor) -> torch.Tensor:
        seen.append((stage, *maps.shape[1:3]))
        return maps

    with torch.no_grad():
        assert torch.equal(forward_in_stages(model, images, look), model(images))
        changed = forward_in_stages(model, images, lambda stage, maps: maps + (stage == 2))
    assert seen == [(number, *form) for number, form in enumerate(STAGES[name], start=1)]
    assert not torch.allclose(changed, model(images))
