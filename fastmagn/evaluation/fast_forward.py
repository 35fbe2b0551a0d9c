"""The copy of a model that `eval.forward fast` measures in its place."""

from typing import Any, NamedTuple

import torch
from torch import nn

from fastmagn.machine.hardware import full_float32
from fastmagn.models import evaluation_mode
from fastmagn.models.folding import fold_batch_norm


class Measured(NamedTuple):
    """The model whose forward passes are measured, and what results.json says of it, if it is a copy."""

    model: nn.Module
    record: dict[str, Any]


def model_to_forward(
    model: nn.Module, forward: str, amp: str, device: torch.device, image_size: tuple[int, int]
) -> Measured:
    """The model itself, or a faster copy of it whose logits differ by rounding.

    The copy has its batch normalisations folded into its convolutions and its weights with channels last. On a CPU
    with amp `bf16` its convolutions and linear layers keep their weights in bfloat16, which autocast would otherwise
    make anew in each pass.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1]; it is left as it is, in the mode it was in.
        forward: `eval.forward`, exact or fast.
        amp: float32, bf16 or fp16, the precision of the forward pass.
        device: Where the model is.
        image_size: (H, W), px.

    Returns:
        The model, and for a copy `forward`: `folded_batch_norms`, `other_batch_norms`, which could not be folded, and
        `weights`, the dtype of the convolutions' weights.
    """
    if forward == "exact":
        return Measured(model, {})
    with evaluation_mode(model), full_float32():  # TensorFloat-32 would differ by more than the folding's tolerance
        copy, num_folded, num_left = fold_batch_norm(model, image_size)
    copy.eval().to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if device.type == "cpu" and amp == "bf16" else torch.float32
    for module in copy.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(dtype)
    record = {"folded_batch_norms": num_folded, "other_batch_norms": num_left, "weights": str(dtype).split(".")[1]}
    return Measured(copy, {"forward": record})
