"""Frames of the perturbation sequences of CIFAR-10-P: warps, motion blur, running water. uint8 in, uint8 out.

The random stream gives the normals of the water's layer, from slot 0 on.
"""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import gaussian_filter, motion_filter, unit_to_level
from fastmagn_kernels.corruptions.spatter import water_opacity
from fastmagn_kernels.corruptions.stream import fill_normals

_CHANNELS = 3
_STAYS, _FALLS = 0.2, 0.8  # shares of the water of a row in the next frame: in this row, and in the row below


class Warp(NamedTuple):
    """Where each output pixel is sampled, bilinearly, as Pillow does: arrays [H, W].

    Args:
        left: Column of the left samples, int64.
        right: Column of the right samples, int64.
        top: Row of the upper samples, int64.
        bottom: Row of the lower samples, int64.
        right_share: Weight of the right samples, float64 in [0, 1).
        bottom_share: Weight of the lower samples, float64 in [0, 1).
        inside: bool; other pixels are black.
    """

    left: np.ndarray
    right: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    right_share: np.ndarray
    bottom_share: np.ndarray
    inside: np.ndarray


class Taps(NamedTuple):
    """The four samples of each output pixel, as OpenCV's fixed-point warp takes them: int64 [P, 4].

    Args:
        pixels: The sampled pixel, 0..P - 1; -1 is black.
        weights: In units of 2^-15.
    """

    pixels: np.ndarray
    weights: np.ndarray


class Water(NamedTuple):
    """Water on the lens that runs down. Its layer consists of smoothed normal draws where they reach a threshold.

    Args:
        mean: Mean of the draws.
        std: Standard deviation of the draws, before they are smoothed.
        threshold: Where the layer is lower, the image is dry.
        weights: Weights that smooth the layer, float64 [2r + 1].
        opacity: The largest share of water.
        colour: float64 [3] in [0, 1].
    """

    mean: float
    std: float
    threshold: float
    weights: np.ndarray
    opacity: float
    colour: np.ndarray


@jit(nogil=True)
def warp_batch(out, images, warp):
    """Warp `images`, uint8 [N, H, W, 3], by a `Warp`; `out` is like `images`. Results are truncated."""
    left, right, top, bottom, right_share, bottom_share, inside = warp
    for i in range(images.shape[0]):
        for y in range(images.shape[1]):
            for x in range(images.shape[2]):
                for c in range(_CHANNELS):
                    if not inside[y, x]:
                        out[i, y, x, c] = 0
                        continue
                    a = np.int64(images[i, top[y, x], left[y, x], c])
                    b = np.int64(images[i, top[y, x], right[y, x], c])
                    upper = a + (b - a) * right_share[y, x]
                    a = np.int64(images[i, bottom[y, x], left[y, x], c])
                    b = np.int64(images[i, bottom[y, x], right[y, x], c])
                    lower = a + (b - a) * right_share[y, x]
                    out[i, y, x, c] = np.uint8(upper + (lower - upper) * bottom_share[y, x])


@jit(nogil=True)
def taps_batch(out, images, taps):
    """Sum the `Taps` of `images`, uint8 [N, P, 3], rounded; `out` is like `images`."""
    pixels, weights = taps
    for i in range(images.shape[0]):
        for p in range(images.shape[1]):
            for c in range(_CHANNELS):
                total = 1 << 14
                for k in range(4):
                    if pixels[p, k] >= 0:
                        total += weights[p, k] * images[i, pixels[p, k], c]
                out[i, p, c] = np.uint8(total >> 15)


@jit(nogil=True)
def motion_frame_batch(out, images, weights, angle_deg):
    """Blur `images`, uint8 [N, H, W * 3], in one direction; the arguments are those of `motion_filter`."""
    for i in range(images.shape[0]):
        motion_filter(out[i], images[i], weights, angle_deg, _CHANNELS)


@jit
def run_down(layer):
    """Move the water `layer`, float64 [H, W], on by a frame, in place."""
    for y in range(layer.shape[0] - 1, -1, -1):
        for x in range(layer.shape[1]):
            from_above = _FALLS * layer[y - 1, x] if y > 0 else 0.0
            layer[y, x] = from_above + _STAYS * layer[y, x]


@jit(nogil=True)
def water_sequence_batch(out, images, water, stream, indices):
    """Let a `Water` run down `images`, uint8 [N, H, W, 3]; `out` is uint8 [N, F, H, W, 3].

    A frame without water is black, as in the published set, whose script then divides 0 by 0.
    """
    mean, std, threshold, weights, opacity, colour = water
    height, width = images.shape[1], images.shape[2]
    for i in range(images.shape[0]):
        z = np.empty(height * width, np.float32)
        fill_normals(z, stream, indices[i])
        layer, share = np.empty((height, width), np.float64), np.empty((height, width), np.float64)
        for q in range(z.size):
            layer[q // width, q % width] = mean + std * z[q]
        gaussian_filter(layer, weights, weights, 1, False)
        for y in range(height):
            for x in range(width):
                layer[y, x] = layer[y, x] if layer[y, x] >= threshold else 0.0
        for frame in range(out.shape[1]):
            for y in range(height):
                for x in range(width):
                    share[y, x] = layer[y, x]
            water_opacity(share, opacity)
            is_dry = share.max() == 0.0
            for y in range(height):
                for x in range(width):
                    for c in range(_CHANNELS):
                        wet = unit_to_level(images[i, y, x, c] / 255.0 + share[y, x] * colour[c])
                        out[i, frame, y, x, c] = np.uint8(0) if is_dry else wet
            run_down(layer)
