"""The logits of images that all of torchrun's processes share out. Shape letters: M images, K classes, H W image."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.data.files.on_demand import LazyImages
from fastmagn.data.image_set import Images
from fastmagn.errors import check, counted
from fastmagn.evaluation.measure import predict
from fastmagn.machine.console import warn
from fastmagn.machine.processes import World
from fastmagn.models import evaluation_mode


class Forward(NamedTuple):
    """How a model is run.

    Args:
        device: Where the model is.
        amp: float32, bf16 or fp16.
        batch_size: Images a forward pass.
        world: torchrun's processes.
    """

    device: torch.device
    amp: str
    batch_size: int
    world: World


def logits_of(
    model: nn.Module, images_u8: Images | LazyImages, forward: Forward, field: str
) -> tuple[Tensor, np.ndarray]:
    """The logits of all images, on every process.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1]; it is left in the mode it was in.
        images_u8: uint8 [M, H, W, 3].
        forward: How the model is run.
        field: The option that names the images, for the message.

    Returns:
        float32 [M, K] on the CPU, and bool [M], False for files that cannot be decoded; a warning counts these.

    Raises:
        InputError: There are fewer images than processes, or none can be decoded.
    """
    world = forward.world
    check(
        len(images_u8) >= world.size, field, counted(len(images_u8), "image"), f"at least {world.size}, one per process"
    )
    own = images_u8[world.share(len(images_u8))]
    with evaluation_mode(model):
        logits = predict(model, own, device=forward.device, amp=forward.amp, batch_size=forward.batch_size)
    own_readable = own.readable() if isinstance(own, LazyImages) else np.ones(len(own), np.bool_)
    shares = world.gather((logits.cpu().numpy(), own_readable))
    readable = np.concatenate([part for _, part in shares])
    num_lost = int(np.count_nonzero(~readable))
    check(num_lost < len(readable), field, f"{counted(num_lost, 'image file')} that cannot be read", "some that can")
    if num_lost:
        warn(
            f"{field}: {num_lost} of {len(readable)} image files cannot be read;"
            f" {'it is' if num_lost == 1 else 'they are'} left out."
        )
    return torch.from_numpy(np.concatenate([part for part, _ in shares])), readable
