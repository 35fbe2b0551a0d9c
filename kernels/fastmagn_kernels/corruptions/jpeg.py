"""JPEG of the corruption sets, written and read back: uint8 in, uint8 out, with no file in between.

Entropy coding loses nothing, so what is left is colour conversion, chroma at half the size, and each 8 x 8 block's
cosine transform, rounded to its quantisation table, and back: libjpeg-turbo's integer arithmetic (its defaults, 4:2:0,
which are Pillow's), to the bit. Integers are kept as float64, exact far beyond what occurs here, because numba widens
every integer product to 64 bits, which AVX2 cannot multiply.

Sources: ITU-T T.81; C. Loeffler, A. Ligtenberg, G. Moschytz, "Practical fast 1-D DCT algorithms with 11
multiplications", ICASSP 1989.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit

_ONE = 2.0**13  # of the transforms' fixed point
_EXTRA = 4.0  # kept between the two passes
_C = tuple(
    float(round(c * _ONE))
    for c in (
        *(0.298631336, 0.390180644, 0.541196100, 0.765366865, 0.899976223, 1.175875602),
        *(1.501321110, 1.847759065, 1.961570560, 2.053119869, 2.562915447, 3.072711026),
    )
)
_ROUND = 1 << 15  # half of the 2^16 of a fixed-point factor of the colour conversions
_CENTRE = 128


@jit
def descale(x, scale):
    """x * scale (a power of two), rounded, halves up: whole float64 in and out."""
    return np.floor(x * scale + 0.5)


@jit
def odd_part(a, b, c, d):
    """The odd half of both transforms: four whole float64 in, four out in fixed point."""
    z1, z2, z3, z4 = a + d, b + c, a + c, b + d
    z5 = (z3 + z4) * _C[5]
    z1, z2, z3, z4 = -z1 * _C[4], -z2 * _C[10], z5 - z3 * _C[8], z5 - z4 * _C[1]
    return a * _C[0] + z1 + z3, b * _C[9] + z2 + z4, c * _C[11] + z2 + z3, d * _C[6] + z1 + z4


@jit
def transform(out, block, plain_scale, scale):
    """A cosine transform down each column of `block` (float64 [8, 8]), into the rows of `out`: transposed.

    Terms 0 and 4 are multiplied by `plain_scale`, the others, which carry fixed-point factors, by `scale`.
    """
    for x in range(8):
        t0, t7 = block[0, x] + block[7, x], block[0, x] - block[7, x]
        t1, t6 = block[1, x] + block[6, x], block[1, x] - block[6, x]
        t2, t5 = block[2, x] + block[5, x], block[2, x] - block[5, x]
        t3, t4 = block[3, x] + block[4, x], block[3, x] - block[4, x]
        t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
        z = (t12 + t13) * _C[2]
        seventh, fifth, third, first = odd_part(t4, t5, t6, t7)
        out[x, 0] = descale(t10 + t11, plain_scale)
        out[x, 4] = descale(t10 - t11, plain_scale)
        out[x, 2] = descale(z + t13 * _C[3], scale)
        out[x, 6] = descale(z - t12 * _C[7], scale)
        out[x, 7] = descale(seventh, scale)
        out[x, 5] = descale(fifth, scale)
        out[x, 3] = descale(third, scale)
        out[x, 1] = descale(first, scale)


@jit
def transform_back(out, block, scale):
    """The inverse transform down each column of `block` (float64 [8, 8]), into the rows of `out`, times `scale`."""
    for x in range(8):
        z = (block[2, x] + block[6, x]) * _C[2]
        t2, t3 = z - block[6, x] * _C[7], z + block[2, x] * _C[3]
        t0, t1 = (block[0, x] + block[4, x]) * _ONE, (block[0, x] - block[4, x]) * _ONE
        t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
        a, b, c, d = odd_part(block[7, x], block[5, x], block[3, x], block[1, x])
        out[x, 0], out[x, 7] = descale(t10 + d, scale), descale(t10 - d, scale)
        out[x, 1], out[x, 6] = descale(t11 + c, scale), descale(t11 - c, scale)
        out[x, 2], out[x, 5] = descale(t12 + b, scale), descale(t12 - b, scale)
        out[x, 3], out[x, 4] = descale(t13 + a, scale), descale(t13 - a, scale)


@jit
def code_plane(plane, table):
    """Round every 8 x 8 block of `plane` (whole float64 levels [8 m, 8 n]) in place to `table`, float64 [8, 8]."""
    block, terms = np.empty((8, 8), np.float64), np.empty((8, 8), np.float64)
    for top in range(0, plane.shape[0], 8):
        for left in range(0, plane.shape[1], 8):
            for y in range(8):
                for x in range(8):
                    block[x, y] = plane[top + y, left + x] - _CENTRE  # rows are transformed first
            transform(terms, block, _EXTRA, _EXTRA / _ONE)
            transform(block, terms, 1 / _EXTRA, 1 / _EXTRA / _ONE)
            for u in range(8):
                for v in range(8):
                    # The forward transform is 8 times too large; halves round away from zero.
                    size = np.floor((abs(block[u, v]) + 4.0 * table[v, u]) / (8.0 * table[v, u]))
                    terms[v, u] = math.copysign(size * table[v, u], block[u, v])
            transform_back(block, terms, _EXTRA / _ONE)
            transform_back(terms, block, 1 / _EXTRA / _ONE / 8)
            for y in range(8):
                for x in range(8):
                    plane[top + y, left + x] = min(max(terms[y, x] + _CENTRE, 0.0), 255.0)


@jit
def fill_planes(luma, blue, red, image):
    """Luma and the two chroma planes, at half the size, of `image` (uint8 [H, W, 3]), the edges repeated to the planes'
    own sizes (float64, a multiple of 8 each).
    """
    height, width, _ = image.shape
    full_blue = np.empty((2, 2 * blue.shape[1]), np.int64)
    full_red = np.empty((2, 2 * red.shape[1]), np.int64)
    for y in range(luma.shape[0]):
        for x in range(luma.shape[1]):
            pixel = image[min(y, height - 1), min(x, width - 1)]
            luma[y, x] = (
                19595 * np.int64(pixel[0]) + 38470 * np.int64(pixel[1]) + 7471 * np.int64(pixel[2]) + _ROUND
            ) >> 16
    last = (height + 1) // 2 - 1  # below the last pair of rows it is that pair's mean that repeats
    for y in range(blue.shape[0]):
        for row in range(2):
            for x in range(full_blue.shape[1]):
                pixel = image[min(2 * min(y, last) + row, height - 1), min(x, width - 1)]
                r, g, b = np.int64(pixel[0]), np.int64(pixel[1]), np.int64(pixel[2])
                offset = (_CENTRE << 16) + _ROUND - 1
                full_blue[row, x] = (-11059 * r - 21709 * g + 32768 * b + offset) >> 16
                full_red[row, x] = (32768 * r - 27439 * g - 5329 * b + offset) >> 16
        for x in range(blue.shape[1]):
            bias = 1 + (x & 1)
            a, b = 2 * x, 2 * x + 1
            blue[y, x] = (full_blue[0, a] + full_blue[0, b] + full_blue[1, a] + full_blue[1, b] + bias) >> 2
            red[y, x] = (full_red[0, a] + full_red[0, b] + full_red[1, a] + full_red[1, b] + bias) >> 2


@jit
def enlarge_row(out, plane, y, height, width):
    """Row y of the image's size from a chroma plane of half of it, whose levels are the first ceil(H / 2) x
    ceil(W / 2): three parts the nearest, one part the next, in both directions; `out` int64 [W].
    """
    rows, columns = (height + 1) // 2, (width + 1) // 2
    near = y // 2
    far = min(max(near - 1 + 2 * (y & 1), 0), rows - 1)
    for x in range(width):
        column = x // 2
        other = min(max(column - 1 + 2 * (x & 1), 0), columns - 1)
        here = 3 * np.int64(plane[near, column]) + np.int64(plane[far, column])
        there = 3 * np.int64(plane[near, other]) + np.int64(plane[far, other])
        out[x] = (3 * here + there + 8 - (x & 1)) >> 4


@jit
def jpeg_image(out, image, luma_table, chroma_table):
    """One image of `jpeg_batch`."""
    height, width, _ = image.shape
    luma = np.empty(((height + 7) // 8 * 8, (width + 7) // 8 * 8), np.float64)
    blue = np.empty(((height + 15) // 16 * 8, (width + 15) // 16 * 8), np.float64)
    red = np.empty_like(blue)
    fill_planes(luma, blue, red, image)
    for plane, table in ((luma, luma_table), (blue, chroma_table), (red, chroma_table)):
        code_plane(plane, table)
    blue_row, red_row = np.empty(width, np.int64), np.empty(width, np.int64)
    for y in range(height):
        enlarge_row(blue_row, blue, y, height, width)
        enlarge_row(red_row, red, y, height, width)
        for x in range(width):
            level, cb, cr = np.int64(luma[y, x]), blue_row[x] - _CENTRE, red_row[x] - _CENTRE
            out[y, x, 0] = min(max(level + ((91881 * cr + _ROUND) >> 16), 0), 255)
            out[y, x, 1] = min(max(level + ((-22554 * cb - 46802 * cr + _ROUND) >> 16), 0), 255)
            out[y, x, 2] = min(max(level + ((116130 * cb + _ROUND) >> 16), 0), 255)


@jit(nogil=True)
def jpeg_batch(out, images, luma_table, chroma_table):
    """Write `images` (uint8 [N, H, W, 3]) as JPEG and read them; `out` alike. Tables are float64 [8, 8], row by row of
    the vertical frequency.
    """
    for i in range(images.shape[0]):
        jpeg_image(out[i], images[i], luma_table, chroma_table)
