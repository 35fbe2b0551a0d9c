"""Random resized crops, drawn from the random stream.

    STREAM_CROP, view 0
        slot t, 0..9         words of try t: area, ratio, top, left

Legend: B batch.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random.rng import STREAM_CROP, below, philox4x32, stream_view_word, uniform

_TRIES = 10
_MIN_RATIO = 3.0 / 4.0
_MAX_RATIO = 4.0 / 3.0


@jit
def draw_crop(index, epoch, key_0, key_1, height, width, min_area):
    """Draw the crop of one sample from its image of `height` x `width` px: top, left, height, width, int64, px.

    The crop's share of the image's area is uniform in [min_area, 1]; its ratio, width over height, is log-uniform in
    [3/4, 4/3]. If none of ten tries fits into the image, the crop is the largest central box with an allowed ratio.
    The distribution is that of torchvision's RandomResizedCrop, after C. Szegedy et al., "Going deeper with
    convolutions", CVPR 2015.
    """
    word = stream_view_word(STREAM_CROP, 0)
    log_ratio = math.log(_MAX_RATIO)
    for attempt in range(_TRIES):
        w0, w1, w2, w3 = philox4x32(attempt, word, index, epoch, key_0, key_1)
        area = height * width * (min_area + (1.0 - min_area) * uniform(w0))
        ratio = math.exp(log_ratio * (2.0 * uniform(w1) - 1.0))
        box_width = np.int64(np.rint(math.sqrt(area * ratio)))
        box_height = np.int64(np.rint(math.sqrt(area / ratio)))
        if 0 < box_width <= width and 0 < box_height <= height:
            return below(w2, height - box_height + 1), below(w3, width - box_width + 1), box_height, box_width
    box_height, box_width = np.int64(height), np.int64(width)
    if width < _MIN_RATIO * height:
        box_height = np.int64(np.rint(width / _MIN_RATIO))
    elif width > _MAX_RATIO * height:
        box_width = np.int64(np.rint(height * _MAX_RATIO))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


@jit
def fill_crops(indices, epoch, key_0, key_1, sizes, min_area, boxes):
    """Fill `boxes`, int64 [B, 4], with the draws of `draw_crop` for the samples `indices`, int64 [B].

    `sizes`, int64 [B, 2], are the heights and widths of their images, px.
    """
    for i in range(indices.size):
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = draw_crop(
            indices[i], epoch, key_0, key_1, sizes[i, 0], sizes[i, 1], min_area
        )
