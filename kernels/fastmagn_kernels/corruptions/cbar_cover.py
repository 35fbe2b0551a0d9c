"""C-bar's covers: checkerboard cutout, lines, sparkles and inverse sparkles. uint8 in, uint8 out.

A draw is a word of the image's stream, in the order in which the functions take them (word j is word j mod 4 of slot
j div 4). `side` is an image's shorter side, to which the source's lengths are relative.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.smooth_math import level, turn
from fastmagn_kernels.corruptions.stream import fill_words
from fastmagn_kernels.random.rng import below, normal_pair, uniform

_GREY = 128
_FEWEST_RAYS, _RAY_COUNTS = 50, 150  # a sparkle has 50 to 199 rays
MAX_RAYS = _FEWEST_RAYS + _RAY_COUNTS - 1
_NUM_SPARKLES = 5
_RAY_SPREAD = 0.25  # the standard deviation of the rays' lengths, as a share of their mean
_SOFTENING = 1e-4  # px^2


@jit(nogil=True)
def checkerboard_batch(out, images, fraction, stream, indices):
    """Grey out a `fraction` of the black fields of a turned checkerboard; `images` and `out` are uint8 [N, H, W, 3].

    Draws: the angle, the fields' side in 0.1..0.25 sides, and then one for each field, row by row. Fields are counted
    from the top left corner, and their numbers are rounded towards it: the two on either side of it have the same one.
    """
    _, height, width, _ = images.shape
    side = min(height, width)
    for i in range(images.shape[0]):
        words = np.empty(4, np.uint32)
        fill_words(words, stream, indices[i])
        angle = 2.0 * math.pi * uniform(words[0])
        field_px = max((0.1 + (0.25 - 0.1) * uniform(words[1])) * side, 1.0)
        num_fields = int(4 * side // field_px)
        words = np.empty(2 + num_fields * num_fields, np.uint32)
        fill_words(words, stream, indices[i])
        cosine, sine = math.cos(angle), math.sin(angle)
        for y in range(height):
            for x in range(width):
                row, column = (cosine * y + sine * x) / field_px, (-sine * y + cosine * x) / field_px
                is_white = (math.floor(row) & 1) != (math.floor(column) & 1)
                field = (int(row) % num_fields) * num_fields + int(column) % num_fields
                is_kept = is_white or uniform(words[2 + field]) >= fraction
                for c in range(3):
                    out[i, y, x, c] = images[i, y, x, c] if is_kept else np.uint8(_GREY)


@jit
def draw_line(out, places, shares, row, column, last_row, last_column):
    """Draw an anti-aliased grey line on `out`, uint8 [H, W, 3], from one pixel to another; they may lie outside.

    Source: A. Zingl, "A rasterizing algorithm for drawing curves", 2012: Bresenham's line, with the neighbours on both
    sides. A pixel that it visits twice keeps its second share. `places`, int64 [P], and `shares`, float64 [P], are
    scratch space for three times as many pixels as the line's longer side has.
    """
    height, width, _ = out.shape
    across, down = abs(last_column - column), abs(last_row - row)
    right, below_ = 1 if column < last_column else -1, 1 if row < last_row else -1
    error = across - down
    length = math.sqrt(across * across + down * down) if across + down > 0 else 1.0
    count = 0
    while True:
        count = _note(places, shares, count, height, width, row, column, abs(error - across + down) / length)
        before, column_before = error, column
        if 2 * before >= -across:
            if column == last_column:
                break
            if before + down < length:
                count = _note(places, shares, count, height, width, row + below_, column, abs(before + down) / length)
            error -= down
            column += right
        if 2 * before <= down:
            if row == last_row:
                break
            if across - before < length:
                count = _note(
                    places, shares, count, height, width, row, column_before + right, abs(across - before) / length
                )
            error += across
            row += below_
    levels = np.empty((count, 3), np.uint8)
    for k in range(count):  # from the levels below the line, even where it visits a pixel twice
        y, x, share = places[k] // width, places[k] % width, shares[k]
        for c in range(3):
            levels[k, c] = np.uint8((1.0 - share) * out[y, x, c] + share * _GREY)
    for k in range(count):
        y, x = places[k] // width, places[k] % width
        for c in range(3):
            out[y, x, c] = levels[k, c]


@jit
def _note(places, shares, count, height, width, row, column, distance):
    """Note a pixel at this distance from the line, if it lies in the image; return the number of pixels noted."""
    if not (0 <= row < height and 0 <= column < width):
        return count
    places[count] = row * width + column
    shares[count] = 1.0 - distance
    return count + 1


@jit(nogil=True)
def lines_batch(out, images, num_lines, stream, indices):
    """Draw grey lines, two sides long, on `images`, uint8 [N, H, W, 3]; `out` is like `images`.

    Draws: the mean angle and its variation (0.1..1 turns); for each line its middle's row and column, and its angle.
    """
    _, height, width, _ = images.shape
    side = min(height, width)
    words = np.empty(2 + 3 * num_lines, np.uint32)
    places, shares = np.empty(6 * side + 12, np.int64), np.empty(6 * side + 12)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        mean_angle = 2.0 * math.pi * uniform(words[0])
        variation = 0.1 + (1.0 - 0.1) * uniform(words[1])
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    out[i, y, x, c] = images[i, y, x, c]
        for k in range(num_lines):
            row, column = height * uniform(words[2 + 3 * k]), width * uniform(words[3 + 3 * k])
            angle = mean_angle + 2.0 * math.pi * variation * (uniform(words[4 + 3 * k]) - 0.5)
            down, across = math.cos(angle) * side, math.sin(angle) * side
            first, last = (int(row - down), int(column - across)), (int(row + down), int(column + across))
            draw_line(out[i], places, shares, first[0], first[1], last[0], last[1])


@jit
def fill_rays(rays, words, num_rays, mean_px, least_px):
    """Fill `rays`, float64 [MAX_RAYS + 2], with lengths, normal and at least `least_px`; the first two follow the last.

    Two words give two rays.
    """
    for r in range(0, num_rays, 2):
        z0, z1 = normal_pair(words[r], words[r + 1])
        rays[r] = max(least_px, mean_px + _RAY_SPREAD * mean_px * z0)
        rays[r + 1] = max(least_px, mean_px + _RAY_SPREAD * mean_px * z1)
    rays[num_rays], rays[num_rays + 1] = rays[0], rays[1]


@jit(error_model="numpy")  # a check for a division by zero would keep LLVM from vectorising
def fill_brightness(out, y, centre_y, centre_x, rays, num_rays):
    """Fill `out`, float64 [2, W], with row y of a sparkle.

    The first row is its brightness without the rays' profile: the square of the ray's length over the distance. The
    second is the profile, from 3/4 between two rays to 1 in their middle.
    """
    dy = y - centre_y
    for x in range(out.shape[1]):
        dx = x - centre_x
        out[0, x] = 1.0 / (dx * dx + dy * dy + _SOFTENING)
        out[1, x] = (turn(dx, dy) + 0.5) * num_rays
    for x in range(out.shape[1]):
        ray = int(out[1, x])
        f = out[1, x] - ray
        length = rays[ray] + f * (rays[ray + 1] - rays[ray])
        out[0, x] *= length * length
        out[1, x] = 1.0 - (f - 0.5) ** 2


@jit(nogil=True)
def sparkles_batch(out, images, radius_share, stream, indices):
    """Add five white sparkles to `images`, uint8 [N, H, W, 3]; `out` is like `images`.

    Their rays are `radius_share` sides long on average, and at least 1 px. Draws: row and column of each centre, the
    number of rays of each, then the rays of one after the other; two words give two rays.
    """
    _, height, width, _ = images.shape
    radius_px = radius_share * min(height, width)
    words = np.empty(3 * _NUM_SPARKLES + _NUM_SPARKLES * (MAX_RAYS + 1), np.uint32)
    rays = np.empty((_NUM_SPARKLES, MAX_RAYS + 3))
    counts = np.empty(_NUM_SPARKLES, np.int64)
    brightness = np.empty((2, width))
    dark = np.empty(width)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        first = 3 * _NUM_SPARKLES
        for k in range(_NUM_SPARKLES):
            counts[k] = _FEWEST_RAYS + below(words[2 * _NUM_SPARKLES + k], _RAY_COUNTS)
            fill_rays(rays[k], words[first:], counts[k], radius_px, 1.0)
            first += (counts[k] + 1) // 2 * 2
        for y in range(height):
            dark[:] = 1.0  # the share of the darkness that is left
            for k in range(_NUM_SPARKLES):
                centre_y, centre_x = height * uniform(words[2 * k]), width * uniform(words[2 * k + 1])
                fill_brightness(brightness, y, centre_y, centre_x, rays[k], counts[k])
                for x in range(width):
                    dark[x] *= 1.0 - min(brightness[0, x] * brightness[1, x], 1.0)
            for x in range(width):
                for c in range(3):
                    out[i, y, x, c] = level(255.0 - dark[x] * (255.0 - images[i, y, x, c]))


@jit(nogil=True)
def inverse_sparkles_batch(out, images, exponent, stream, indices):
    """Whiten `images`, uint8 [N, H, W, 3], outside of a sparkle near the middle; `out` is like `images`.

    Its rays are a quarter side long on average; its brightness to the power `exponent` is what is left of the image.
    Draws: the centre's row and column, in 1/4..3/4 of the sides, the number of rays, and the rays; two words give two.
    """
    _, height, width, _ = images.shape
    radius_px = 0.25 * min(height, width)
    words = np.empty(3 + MAX_RAYS + 1, np.uint32)
    rays = np.empty(MAX_RAYS + 3)
    brightness = np.empty((2, width))
    kept_above = (4.0 / 3.0) ** (1.0 / exponent)  # between two rays, where the profile is 3/4, all is kept from here on
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        centre_y = (0.25 + 0.5 * uniform(words[0])) * height
        centre_x = (0.25 + 0.5 * uniform(words[1])) * width
        num_rays = _FEWEST_RAYS + below(words[2], _RAY_COUNTS)
        fill_rays(rays, words[3:], num_rays, radius_px, -np.inf)
        for y in range(height):
            fill_brightness(brightness, y, centre_y, centre_x, rays, num_rays)
            for x in range(width):
                keep = 1.0
                if brightness[0, x] < kept_above:
                    keep = min(brightness[0, x] ** exponent * brightness[1, x], 1.0)
                for c in range(3):
                    out[i, y, x, c] = level(255.0 + keep * (images[i, y, x, c] - 255.0))
