"""Checks that float images are in [0, 1], without waiting for a CUDA device."""

from collections import deque

import numpy as np
import torch
from torch import Tensor

from fastmagn.errors import InputError

# Half a level: what still rounds to 0..255. Interpolation and arithmetic may leave 1.0000001 or -1e-7.
TOLERANCE = 0.5 / 255


def _towards_half(bound: float) -> np.float32:
    """The float32 nearest to `bound` that is not farther from 1/2."""
    nearest = np.float32(bound)
    return nearest if abs(float(nearest) - 0.5) <= abs(bound - 0.5) else np.nextafter(nearest, np.float32(0.5))


LOWEST, HIGHEST = _towards_half(-TOLERANCE), _towards_half(1 + TOLERANCE)  # the float32 that are allowed


class RangeCheck:
    """Refuses float images with values outside [0, 1], by more than TOLERANCE, or NaN.

    On the host each batch is checked at once. On CUDA so is the first one; the extremes of the others are copied to
    pinned memory while the device works, and a later call raises the error. So no call but the first waits.
    """

    def __init__(self, name: str = "AugMix") -> None:
        self._name = name
        self._waited = False
        self._pending: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def __call__(self, images: Tensor) -> None:
        """Check float images of any shape with at least one pixel.

        Raises:
            InputError: Values of these images, or of an earlier batch on CUDA, are out of range.
        """
        while self._pending and self._pending[0][1].query():
            self._refuse(self._pending.popleft()[0], "an earlier batch")
        extremes = torch.stack(torch.aminmax(images)).float()
        if not (images.is_cuda and self._waited):
            self._waited |= images.is_cuda
            self._refuse(extremes, "images")
            return
        on_host = torch.empty(2, dtype=torch.float32, device="cpu", pin_memory=True)
        on_host.copy_(extremes, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(images.device))
        self._pending.append((on_host, copied))

    def _refuse(self, extremes: Tensor, name: str) -> None:
        low, high = extremes.tolist()
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            got = "NaN" if low != low else f"values in {low:g}..{high:g}"
            raise InputError(
                f"{name}: got {got}; expected floats in 0..1. Divide levels 0..255 by 255 or pass uint8, normalise"
                f" after {self._name} and not before it, and clamp(0, 1) what an interpolation left."
            )
