"""One operation at a time: every magnitude it can be given, the compiled engine's kernel, and Pillow."""

import numpy as np
from PIL import Image

from fastmagn.augment.engines.pil import apply_operation
from fastmagn_kernels.augmix_cpu import operations
from fastmagn_kernels.augmix_cpu.rotate import make_rotations
from fastmagn_kernels.compiling import jit


def magnitudes(op, height: int, width: int) -> list[float]:
    """All that `op` can be given: every integer, or a fine grid with the fractions where rounding is hard."""
    levels = np.concatenate([np.linspace(0.1, 9.9999, 1500), np.arange(1, 40) / 4])
    values = {float(op.magnitude(level, height, width)) for level in levels}
    if op.unit == "deg":
        values.add(30.0)
    if op.unit in ("px per px", "factor"):
        values = sorted(values)[::25]
        values += [0.0, 1e-17, 1e-9, 0.125, 0.25, 0.3, 1 / 7] if op.unit == "px per px" else [0.0, 0.5, 1.0, 1.5, 2.0]
    return sorted({sign * value for value in values for sign in ((1, -1) if op.signed else (1,))})


@jit
def _apply(op, magnitude, source, target, height, width, rotations, scratch):
    """The engine's function, which Python cannot call: it is inlined wherever a kernel calls it."""
    operations.apply_operation(op, magnitude, source, target, height, width, rotations, scratch)


def run_kernel(op: int, magnitude: float, images: np.ndarray) -> np.ndarray:
    batch, height, width, _ = images.shape
    rotations, scratch = make_rotations(height, width), operations.make_scratch(height, width)
    sources = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(batch, -1)
    targets = np.full_like(sources, 173)  # an element that is not written shows
    for source, target in zip(sources, targets, strict=True):
        _apply(op, float(magnitude), source, target, height, width, rotations, scratch)
    return targets.reshape(batch, 3, height, width).transpose(0, 2, 3, 1)


def run_pillow(op: int, magnitude: float, images: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(apply_operation(Image.fromarray(image), op, magnitude)) for image in images])
