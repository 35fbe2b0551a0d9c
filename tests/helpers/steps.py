"""Training steps without a command: a run that is built but not trained, its steps, and what a method gets of one."""

import numpy as np
import torch
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.data import ImageSet, load_images, split_validation
from fastmagn.machine.hardware import settle_hardware
from fastmagn.methods.context import StepContext
from fastmagn.models import Normalised, build_model
from fastmagn.training.build import build_run
from fastmagn.training.step import Run, make_pieces, train_step
from tests.helpers.philox import philox_reference

MEAN, STD = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)


def start_run(config: Config, image_set: ImageSet | None = None) -> Run:
    """The run that `config` names, on its own images or the given ones, before its first step."""
    config = settle_hardware(config)
    image_set = image_set or load_images(config.data.name, config.data.dir)
    return build_run(config, image_set, split_validation(image_set, 0, 0)[0])


def take_steps(run: Run, num_steps: int) -> list[dict[str, float]]:
    """The parts of the loss in each of the first steps of epoch 0."""
    run.model.train()
    parts = []
    for step, batch in zip(range(num_steps), run.source.batches(0), strict=False):
        parts.append({name: float(part) for name, part in train_step(run, make_pieces(run, batch, 0), step).items()})
    return parts


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
