"""Training steps for the tests of methods: their context, and the random stream in plain integers."""

import numpy as np
import torch
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.machine.hardware import settle_hardware
from fastmagn.methods.context import StepContext
from fastmagn.models import Normalised, build_model
from tests.kernels.test_rng import philox_reference

MEAN, STD = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)


def make_context(
    *arguments: str,
    indices: list[int] | np.ndarray,
    network: nn.Module | None = None,
    epoch: int = 3,
    num_classes: int = 10,
) -> StepContext:
    """A step of `indices`, with `network` or resnet_small in training mode."""
    config = settle_hardware(parse_config(["--device", "cpu", "--train.amp", "float32", *arguments], "test", "A test."))
    model = build_model("resnet_small", num_classes=num_classes, mean=MEAN, std=STD)
    if network is not None:
        model = Normalised(network, MEAN, STD)
    return StepContext(
        config=config,
        model=model.train(),
        num_classes=num_classes,
        epoch=epoch,
        indices=np.asarray(indices, np.int64),
    )


def reference_words(context: StepContext, slot: int, stream: int, index: int, view: int = 0) -> list[int]:
    """The four words of a sample's block, in Python's integers."""
    seed = context.config.train.seed
    counter = [slot, stream << 24 | view, int(index), context.epoch]
    return philox_reference(counter, [seed & 0xFFFFFFFF, seed >> 32])


def random_images(batch: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    """float32 [batch, 3, size, size] in whole 255ths, channels last, as the clean view is."""
    generator = torch.Generator().manual_seed(seed)
    images_u8 = torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)
    return images_u8.float().div_(255).to(memory_format=torch.channels_last)
