"""PRIME views: chains of primitives of each image, mixed with each other and with the image.

view = (1 - m) x + m sum_w weight_w chain_w(x), and a chain is one to three primitives in a row.
"""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit, jit_uncounted
from fastmagn_kernels.pixel import unit
from fastmagn_kernels.prime_cpu.primitives import (
    BLOCK,
    color_values,
    displace_planes,
    displacement_fields,
    filter_planes,
    round_up,
)
from fastmagn_kernels.random.prime import (
    COLOR,
    FILTER,
    NO_PRIMITIVE,
    NUM_TAPS,
    Place,
    Settings,
    draw_color,
    draw_displacement,
    draw_filter,
    draw_plan,
    mode_sines,
)
from fastmagn_kernels.threads import over_chunks

_CHUNK_PIXELS = 4096  # about 1 ms of two views


class Scratch(NamedTuple):
    """A thread's memory; see `primitives` for the shapes that its functions take.

    Args:
        planes: The image, two primitives' results, and the chains' sum: float64 [4, 3, H W].
        levels: The image in levels 0..255, uint8 [3, H W].
        table: A colour curve at the 256 levels, and those: float64 [2, 256].
        weights: A filter's weights, float64 [9].
        padded: What `filter_planes` needs, float64 [H + 2, W + 2].
        coefficients: A colour curve's coefficients for each channel, float64 [3, K].
        recurrences: What `color_values` needs, float64 [4, BLOCK].
        modes: float64 [2, P, Q].
        along: What `displacement_fields` needs, float64 [P, W].
        fields: float64 [2, H, W].
        primitives: The chains' primitives, int8 [chains, D].
        chain_weights: float32 [chains].
    """

    planes: np.ndarray
    levels: np.ndarray
    table: np.ndarray
    weights: np.ndarray
    padded: np.ndarray
    coefficients: np.ndarray
    recurrences: np.ndarray
    modes: np.ndarray
    along: np.ndarray
    fields: np.ndarray
    primitives: np.ndarray
    chain_weights: np.ndarray


def make_scratch(settings: Settings) -> Scratch:
    """Return the memory that one thread needs."""
    size, (num_rows, num_columns) = settings.height * settings.width, map(round_up, settings.num_modes)
    table = np.empty((2, 256), np.float64)
    table[1] = [unit(level) for level in range(256)]
    return Scratch(
        planes=np.empty((4, 3, size), np.float64),
        levels=np.empty((3, size), np.uint8),
        table=table,
        weights=np.empty(NUM_TAPS, np.float64),
        padded=np.zeros((settings.height + 2, settings.width + 2), np.float64),
        coefficients=np.empty((3, round_up(settings.color_frequencies)), np.float64),
        recurrences=np.empty((4, BLOCK), np.float64),
        modes=np.empty((2, num_rows, num_columns), np.float64),
        along=np.empty((num_rows, settings.width), np.float64),
        fields=np.empty((2, settings.height, settings.width), np.float64),
        primitives=np.empty((settings.mixture_width, settings.max_depth), np.int8),
        chain_weights=np.empty(settings.mixture_width, np.float32),
    )


@jit_uncounted
def load_image(planes, levels, image):
    """Fill `planes`, float64 [3, H W], and `levels`, uint8 like it, from an image, float32 [H W, 3], clipped to [0, 1].

    Returns:
        Whether each value is a level in 0..255, divided by 255. A colour curve then needs only 256 values.
    """
    in_levels = True
    for x in range(image.shape[0]):
        for channel in range(3):
            value = min(max(image[x, channel], np.float32(0)), np.float32(1))
            level = np.uint8(value * np.float32(255) + np.float32(0.5))
            planes[channel, x] = value
            levels[channel, x] = level
            if unit(level) != value:
                in_levels = False
    return in_levels


@jit_uncounted
def recolor_planes(out, planes, count, in_levels, scratch):
    """Apply a colour curve of `count` terms to each plane; `in_levels` if the planes are the image's 256 levels."""
    for channel in range(3):
        coefficients = scratch.coefficients[channel, : round_up(count)]
        if in_levels:
            curve, levels, target = scratch.table[0], scratch.levels[channel], out[channel]
            color_values(curve, scratch.table[1], coefficients, scratch.recurrences)
            for x in range(target.size):
                target[x] = curve[levels[x]]
        else:
            color_values(out[channel], planes[channel], coefficients, scratch.recurrences)


@jit
def apply_primitive(out, planes, primitive, place, in_levels, sines_y, sines_x, settings, scratch):
    """Fill `out`, float64 [3, H W], with the primitive of `place` of `planes`, float64 [3, H W]."""
    if primitive == FILTER:
        draw_filter(scratch.weights, place, settings)
        filter_planes(out, planes, scratch.weights, scratch.padded)
    elif primitive == COLOR:
        count = draw_color(scratch.coefficients, place, settings)
        recolor_planes(out, planes, count, in_levels, scratch)
    else:
        rows, columns = draw_displacement(scratch.modes, place, settings)
        displacement_fields(scratch.fields, scratch.modes, rows, columns, sines_y, sines_x, scratch.along)
        displace_planes(out, planes, scratch.fields)


@jit
def mix_chains(j, index, first, in_levels, sines_y, sines_x, settings, scratch):
    """Fill the last of the scratch's planes with the weighted sum of a view's chains; return the sum's share."""
    clean, mixture = scratch.planes[0], scratch.planes[3]
    share = draw_plan(j, index, settings, scratch.primitives, scratch.chain_weights)
    mixture[:] = 0.0
    for w in range(scratch.chain_weights.size):
        source = clean
        for d in range(scratch.primitives.shape[1]):
            primitive = scratch.primitives[w, d]
            if primitive == NO_PRIMITIVE:
                break
            target, place = scratch.planes[1 + d % 2], Place(j, w, d, index, first)
            apply_primitive(target, source, primitive, place, in_levels and d == 0, sines_y, sines_x, settings, scratch)
            source = target
        weight = np.float64(scratch.chain_weights[w])
        for channel in range(3):
            chain, total = source[channel], mixture[channel]
            for x in range(total.size):
                total[x] += weight * chain[x]
    return share


@jit(nogil=True)
def prime_views(out, images, indices, start, stop, sines_y, sines_x, settings, scratch):
    """Fill `out`, float32 [J, B, H W, 3], with PRIME views of the images start..stop - 1, float32 [B, H W, 3].

    Args:
        out: The views.
        images: The clean view.
        indices: The samples' indices, int64 [B].
        start: The first image.
        stop: The image after the last one.
        sines_y: sin(p pi y / (H - 1)), float64 [H, P].
        sines_x: sin(q pi x / (W - 1)), float64 [Q, W].
        settings: What the draws depend on.
        scratch: This thread's memory.
    """
    clean, mixture = scratch.planes[0], scratch.planes[3]
    for i in range(start, stop):
        in_levels = load_image(clean, scratch.levels, images[i])
        for j in range(out.shape[0]):
            share = np.float64(mix_chains(j, indices[i], indices[0], in_levels, sines_y, sines_x, settings, scratch))
            view = out[j, i]
            for x in range(view.shape[0]):
                for channel in range(3):
                    view[x, channel] = (1.0 - share) * clean[channel, x] + share * mixture[channel, x]


def prime_views_batch(out: np.ndarray, images: np.ndarray, indices: np.ndarray, settings: Settings) -> None:
    """Call `prime_views` on parts of a batch, on `num_threads()` threads."""
    num_rows, num_columns = map(round_up, settings.num_modes)
    sines_y = np.ascontiguousarray(mode_sines(num_rows, settings.height).T)
    sines_x = mode_sines(num_columns, settings.width)

    def fill(rows: slice) -> None:
        scratch = make_scratch(settings)
        prime_views(out, images, indices, rows.start, rows.stop, sines_y, sines_x, settings, scratch)

    over_chunks(fill, len(images), max(1, _CHUNK_PIXELS // images.shape[1]))
