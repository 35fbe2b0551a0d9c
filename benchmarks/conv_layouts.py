"""python -m benchmarks.conv_layouts: time a network's convolutions on a CPU in each layout of their maps.

    python -m benchmarks.conv_layouts [--turns 5] [--out FILE.json] [--section.field value ...]

A training step of the configuration is taken once, to see the shapes of its convolutions. Then each convolution's
forward pass, its gradient for the maps and that for the weights take turns in three layouts: channels last, which the
trainer uses; channels first, PyTorch's default; and oneDNN's blocked one, in which PyTorch has no forward pass with
gradients, and which is left out where oneDNN does not have the precision. `im2col` is the gradient for the weights as a
matrix product of patches. The sums are over the network.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from benchmarks.measure import console, seconds, spread, write_result
from benchmarks.train import endless_batches
from fastmagn.config.command_line import OwnOptions, parse_config, parse_own
from fastmagn.config.text import flatten
from fastmagn.data import load_data, split_validation
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import keep_memory_on_cpu, settle_hardware
from fastmagn.training.build import build_run
from fastmagn.training.step import make_pieces, prepared

MAPS, WEIGHTS = (True, False, False), (False, True, False)  # which gradients are computed
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
BLOCKED = "oneDNN's blocked: gradient of the weights"

Shape = tuple[nn.Conv2d, torch.Size]


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    parser = OwnOptions(
        "python -m benchmarks.conv_layouts",
        __doc__.splitlines()[0],
        "Any field of the configuration may follow; python -m fastmagn.train --help_all lists them.",
    )
    parser.add_argument("--turns", type=int, default=5, help="turns of each layout (default: 5)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options, fields = parse_own(parser, arguments)
    check(options.turns >= 1, "turns", options.turns, "1 or more")
    config = settle_hardware(parse_config(fields, parser.prog, parser.description))
    check(config.device == "cpu", "device", config.device, "cpu")
    keep_memory_on_cpu(config.device)
    dtype = DTYPES.get(config.train.amp, torch.float32)
    image_set = load_data(config.data)
    run = build_run(config, image_set, split_validation(image_set, 0, config.train.seed)[0])
    views = prepared(run, make_pieces(run, next(endless_batches(run)), run.config.train.clean_epochs)[0])[0]
    totals: dict[str, list[float]] = {}
    for convolution, shape in shapes_of(run.model, views):
        for name, values in times_ms(convolution, shape, dtype, options.turns).items():
            totals[name] = [a + b for a, b in zip(totals.get(name, [0.0] * options.turns), values, strict=True)]
    measured = {name: spread(values) for name, values in totals.items()}
    if BLOCKED not in measured:
        console.print(f"left out: {BLOCKED}, as this machine's oneDNN does not have {config.train.amp}")
    table = Table(title="all convolutions of a step, ms")
    for column in ("", "median", "lowest", "highest"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in measured.items():
        table.add_row(name, *(f"{row[kind]:.1f}" for kind in ("median", "lowest", "highest")))
    console.print(table)
    if options.out:
        settings = {"turns": options.turns, "config": flatten(config)}
        write_result(options.out, "conv_layouts", settings, {"sums_ms": measured}, torch.device("cpu"))
    return 0


def shapes_of(model: nn.Module, views: Tensor) -> list[Shape]:
    """Return the convolutions of a forward pass, each with the shape of its maps, but those of images."""
    found: list[Shape] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels > views.shape[1]:
            found.append((module, given[0].shape))

    hooks = [module.register_forward_pre_hook(note) for module in model.modules()]
    with torch.no_grad():
        model(views)
    for hook in hooks:
        hook.remove()
    return found


def times_ms(convolution: nn.Conv2d, shape: torch.Size, dtype: torch.dtype, turns: int) -> dict[str, list[float]]:
    """Return the times of what is computed, in ms, by layout and turn."""
    work: dict[str, Callable[[], Any]] = {}
    stride, padding = convolution.stride, convolution.padding
    weight = convolution.weight.detach().to(dtype)
    planes = torch.randn(shape).to(dtype)
    gradient = torch.randn_like(F.conv2d(planes, weight, None, stride, padding))

    def backward(tensors: tuple[Tensor, ...], which: tuple[bool, ...]) -> Callable[[], Any]:
        rest = ([*stride], [*padding], [1, 1], False, [0, 0], 1, which)
        return lambda: torch.ops.aten.convolution_backward(*tensors, None, *rest)

    for name, layout in (("channels last", torch.channels_last), ("channels first", torch.contiguous_format)):
        maps, weights, gradients = (tensor.contiguous(memory_format=layout) for tensor in (planes, weight, gradient))
        work[f"{name}: forward"] = partial(F.conv2d, maps, weights, None, stride, padding)
        work[f"{name}: gradient of the maps"] = backward((gradients, maps, weights), MAPS)
        work[f"{name}: gradient of the weights"] = backward((gradients, maps, weights), WEIGHTS)
    if onednn_has(dtype):
        work[BLOCKED] = backward((gradient.to_mkldnn(), planes.to_mkldnn(), weight), WEIGHTS)
    work["im2col: gradient of the weights"] = lambda: patches_product(planes, gradient, convolution)
    for one in work.values():
        one()
    rounds = [{name: 1000 * seconds(one) for name, one in work.items()} for _ in range(turns)]
    return {name: [turn[name] for turn in rounds] for name in work}


def onednn_has(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes convolutions in this precision on this machine; elsewhere PyTorch has its own kernels."""
    if not torch.backends.mkldnn.is_available():
        return False
    return {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }.get(dtype, lambda: True)()


def patches_product(maps: Tensor, gradient: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Return the gradient of the weights [O, I * kh * kw] as the product of the gradient and the maps' patches."""
    padding = convolution.padding
    assert not isinstance(padding, str)  # "same" or "valid"
    patches = F.unfold(maps, convolution.kernel_size, padding=padding, stride=convolution.stride)
    return torch.einsum("nol,npl->op", gradient.flatten(2), patches)


if __name__ == "__main__":
    run_command(main)
