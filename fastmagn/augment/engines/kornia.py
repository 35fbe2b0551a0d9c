"""The Kornia engine: torch and Kornia on any device, for comparison and for devices without a kernel of our own.

Each sample has its own operation: all chains of a batch take a step together, grouped by operation. The host knows the
groups, so nothing waits for the device. Images stay uint8 between operations, as Pillow's do.

Against Pillow: the crop, the flip, the colour jitter and every operation except rotation and shears are equal to the
bit. Rotation and shears use Kornia's `remap` in float32: one level off for one value in 1,000 or fewer, one in 400 at
224 px (the table is tests/augment/engines/tolerances.py). The noise comes from the same stream and differs by less than
1e-6.

The engine uses Kornia's functions where they work per sample and where Pillow's arithmetic can be reached. It does not
use Kornia's contrast, brightness and saturation (defined differently), sharpness, posterize and solarize (the same, in
more passes), or `warp_affine` (it inverts matrices and waits for the device to do so).

Shape letters: V views, B batch, J AugMix views, N noise views, W chains or width, D operations of a chain, H height, n
images of a group, A = 6 arguments of an operation.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.engines.philox_torch import standard_normal
from fastmagn.augment.params import JITTER_PARTS, AugMixParams, BaseParams, ViewParams, jitter_steps
from fastmagn.errors import without
from fastmagn_kernels.pixel import MAX_ANGLE_UNITS, rotation_offset, rotation_table
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.rng import STREAM_NOISE

try:
    from kornia.enhance import equalize
    from kornia.geometry import remap
except ImportError as error:
    needs = "augment.backend: got kornia, which needs Kornia; install 'fastmagn[kornia]', or use auto."
    raise without("kornia", error, needs) from error

# Images uint8 [n, 3, H, W], arguments float64 [n, A] (`_arguments`) -> uint8 [n, 3, H, W].
GroupFunction = Callable[[Tensor, Tensor], Tensor]

_NUM_ARGUMENTS = 6
# How many values of all chains are processed at once. Their temporaries take about 24 bytes each, 50 MB in all; more
# at once is slower on a CPU. 512 CIFAR images have 2^23.
_SLAB_VALUES = 2**21
# Bilinear weights in float32 may sum to less than 1 (255 levels then lack 5e-5); without this slack, truncation would
# turn an integer into the level below. The price: the same share of values comes out a level too high.
_TRUNCATION_SLACK = 2.0**-12


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, float [V*B, H, W, 3], with the views of `images`, uint8 [B, H, W, 3], as `make_views` describes.

    Both are contiguous and on one device. The views are computed in float32; `out` may have any of VIEW_DTYPES.
    """
    views = out.view(params.view_spec.num_views, *images.shape)
    num_augmix, num_noise = params.view_spec.num_augmix_views, params.view_spec.num_noise_views
    chains = max(1, num_augmix * params.augment.mixture_width)
    slab = max(1, _SLAB_VALUES // (chains * images[0].numel()))
    for first in range(0, len(images), slab):
        rows = slice(first, first + slab)
        clean_u8 = _base_transform(images[rows].permute(0, 3, 1, 2), params, rows)
        clean = clean_u8.permute(0, 2, 3, 1).float() / 255.0
        views[0, rows] = clean
        if num_augmix:
            views[1 : 1 + num_augmix, rows] = _augmix_views(clean_u8, clean, params, rows)
        if num_noise:
            views[1 + num_augmix :, rows] = clean + _noise(clean, params, rows)


def _upload(array: np.ndarray, device: torch.device) -> Tensor:
    # Nothing waits: CUDA copies pageable memory to a staging buffer before the call returns.
    return torch.from_numpy(array).to(device, non_blocking=True)


def _base_transform(images: Tensor, params: ViewParams, rows: slice) -> Tensor:
    """Crop, flip, jitter and rotate the samples `rows`: uint8 [n, 3, H, W]."""
    padding, device = params.augment.crop_padding_px, images.device
    base = BaseParams(**{name: array[rows] for name, array in params.base._asdict().items()})
    window = np.stack([base.crop_x_px - padding, base.crop_y_px - padding, base.flip], 1)
    images = _shift(images, *_upload(window, device).unbind(1))
    parts, factors = jitter_steps(base)
    if (factors != 1).any():
        jitter = _upload(np.stack([factors, parts], -1, dtype=np.float64), device)
        for step in range(len(JITTER_PARTS)):
            images = _enhance(images, jitter[:, step])
    rotated = np.flatnonzero(base.angle)
    if rotated.size:
        matrices = _upload(_rotation_matrices(base.angle[rotated], *images.shape[2:]), device)
        places = _upload(rotated, device)
        images[places] = _affine(images[places], matrices)
    return images


def _augmix_views(clean_u8: Tensor, clean: Tensor, params: ViewParams, rows: slice) -> Tensor:
    """The AugMix views of `rows`, float32 [J, n, H, W, 3].

    `clean_u8`, uint8 [n, 3, H, W], and `clean`, float32 [n, H, W, 3] in [0, 1], are the same images.
    """
    augmix = AugMixParams(**{name: array[:, rows] for name, array in params.augmix._asdict().items()})
    chains = _chains(clean_u8, augmix)
    weights = _upload(augmix.chain_weights / np.float32(255), chains.device)[..., None, None, None]
    mixture = weights[:, :, 0] * chains[:, :, 0]
    for w in range(1, chains.shape[2]):
        mixture += weights[:, :, w] * chains[:, :, w]
    mix_weight = _upload(augmix.mix_weight, chains.device)[..., None, None, None]
    return (mix_weight * mixture).permute(0, 1, 3, 4, 2) + (1 - mix_weight) * clean


def _chains(clean_u8: Tensor, augmix: AugMixParams) -> Tensor:
    """The result of every chain: uint8 [J, B, W, 3, H, W]."""
    shape = (*augmix.chain_weights.shape, *clean_u8.shape[1:])
    chains = clean_u8[None, :, None].repeat(shape[0], 1, shape[2], 1, 1, 1).flatten(0, 2)
    height, width = clean_u8.shape[2:]
    for function, rows, arguments in _groups(augmix, height, width, clean_u8.device):
        chains[rows] = function(chains.index_select(0, rows), arguments)
    return chains.view(shape)


def _groups(
    augmix: AugMixParams, height: int, width: int, device: torch.device
) -> Iterator[tuple[GroupFunction, Tensor, Tensor]]:
    """The work, step by step: a function, the chains it is for (int64 [n], of J*B*W), and their arguments."""
    depth = augmix.ops.shape[-1]
    ops = np.moveaxis(augmix.ops, -1, 0).reshape(depth, -1)
    steps, rows = np.nonzero(ops != draws.NO_OPERATION)
    ops, magnitudes = ops[steps, rows], np.moveaxis(augmix.magnitudes, -1, 0).reshape(depth, -1)[steps, rows]
    functions = list(dict.fromkeys(_FUNCTIONS.values()))
    function_of_op = np.array([functions.index(_FUNCTIONS[op]) for op in range(len(_FUNCTIONS))])
    keys = steps * len(functions) + function_of_op[ops]
    order = np.argsort(keys, kind="stable")
    keys, rows_there = keys[order], _upload(rows[order], device)
    arguments_there = _upload(_arguments(ops[order], magnitudes[order], height, width), device)
    for first, last in pairwise(np.flatnonzero(np.diff(keys, prepend=-1, append=-1))):
        yield functions[keys[first] % len(functions)], rows_there[first:last], arguments_there[first:last]


def _arguments(ops: np.ndarray, magnitudes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The arguments of `_FUNCTIONS`, float64 [n, A]; each function says what it takes, by default the magnitude."""
    arguments = np.zeros((len(ops), _NUM_ARGUMENTS))
    arguments[:, 0] = magnitudes
    arguments[ops == draws.TRANSLATE_Y, 0] = 0
    arguments[ops == draws.TRANSLATE_Y, 1] = magnitudes[ops == draws.TRANSLATE_Y]
    for op, column in ((draws.SHEAR_X, 1), (draws.SHEAR_Y, 3)):
        arguments[ops == op] = (1, 0, 0, 0, 1, 0)
        arguments[ops == op, column] = magnitudes[ops == op]
    degrees = magnitudes[ops == draws.ROTATE].astype(np.int64)
    arguments[ops == draws.ROTATE] = _rotation_matrices(degrees * draws.ANGLE_UNITS_PER_DEGREE, height, width)
    for op, part in ((draws.BRIGHTNESS, 0), (draws.CONTRAST, 1), (draws.COLOR, 2)):
        arguments[ops == op, 1] = part
    return arguments


def _rotation_matrices(angles: np.ndarray, height: int, width: int) -> np.ndarray:
    """Image.rotate's matrices, float64 [n, 6], for angles in 1/64 degree, int64 [n]."""
    cosine, sine = rotation_table()[angles + MAX_ANGLE_UNITS].T
    offset_x, offset_y = rotation_offset(cosine, sine, height, width)
    return np.stack([cosine, sine, offset_x, -sine, cosine, offset_y], 1)


def _noise(clean: Tensor, params: ViewParams, rows: slice) -> Tensor:
    """sigma z of the samples `rows`, float32 [N, n, H, W, 3]."""
    num_views = params.view_spec.num_noise_views
    indices = _upload(params.indices[rows], clean.device)
    z = standard_normal(STREAM_NOISE, num_views, indices, params.epoch, params.seed, clean[0].numel())
    z *= _upload(params.sigma[:, rows], clean.device)[..., None]
    return z.view(num_views, *clean.shape)


def _per_image(values: Tensor) -> Tensor:
    """[n] -> [n, 1, 1, 1]."""
    return values[:, None, None, None]


def _shift(images: Tensor, dx: Tensor, dy: Tensor, mirror: Tensor) -> Tensor:
    """target(x, y) = source(x + dx, y + dy), black outside; then flipped left to right where `mirror` is 1.

    dx, dy and mirror are int64 [n].
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device)
    source_x = dx[:, None] + torch.where(mirror[:, None] == 1, width - 1 - x, x)
    source_y = dy[:, None] + torch.arange(height, device=images.device)
    inside_x = (source_x >= 0) & (source_x < width)
    inside_y = (source_y >= 0) & (source_y < height)
    pixel = source_y.clamp(0, height - 1)[:, :, None] * width + source_x.clamp(0, width - 1)[:, None]
    moved = images.flatten(2).gather(2, pixel.flatten(1)[:, None].expand(-1, 3, -1)).view(images.shape)
    return moved * (inside_y[:, :, None] & inside_x[:, None])[:, None]


def _translate(images: Tensor, arguments: Tensor) -> Tensor:
    """Image.transform by whole pixels. Arguments: dx, dy, px."""
    dx, dy = arguments[:, :2].long().unbind(1)
    return _shift(images, dx, dy, torch.zeros_like(dx))


def _affine(images: Tensor, arguments: Tensor) -> Tensor:
    """Image.transform by (a, b, c, d, e, f), bilinear; black where the centre falls outside. Arguments: these six."""
    height, width = images.shape[2:]
    a, b, c, d, e, f = arguments[:, :, None, None].unbind(1)
    x = torch.arange(width, dtype=torch.float64, device=images.device) + 0.5
    y = torch.arange(height, dtype=torch.float64, device=images.device)[:, None] + 0.5
    # In float64 and in Pillow's order: the last bit decides whether a centre on the border is inside.
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    sampled = remap(
        images.float(),
        (source_x * (2 / width) - 1).float(),
        (source_y * (2 / height) - 1).float(),
        padding_mode="border",
        align_corners=False,
        normalized_coordinates=True,
    )
    return ((sampled + _TRUNCATION_SLACK) * inside[:, None]).to(torch.uint8)


def _autocontrast(images: Tensor, _arguments: Tensor) -> Tensor:
    """ImageOps.autocontrast. Arguments: none."""
    low, high = (extreme.double() for extreme in torch.aminmax(images.flatten(2), dim=2, keepdim=True))
    # Not `255 / tensor`: that multiplies by the reciprocal and rounds twice.
    scale = torch.where(high > low, torch.full_like(high, 255) / (high - low), 1.0)
    offset = torch.where(high > low, -low * scale, 0.0)
    return (images.flatten(2) * scale + offset).clamp_(0, 255).to(torch.uint8).view(images.shape)


def _equalize(images: Tensor, _arguments: Tensor) -> Tensor:
    """ImageOps.equalize. Arguments: none."""
    return equalize(images.float() / 255.0).mul_(255).round_().to(torch.uint8)


def _posterize(images: Tensor, arguments: Tensor) -> Tensor:
    """ImageOps.posterize. Arguments: how many of the 8 bits to keep."""
    kept = 256 - torch.exp2(8 - arguments[:, 0])
    return images & _per_image(kept).to(torch.uint8)


def _solarize(images: Tensor, arguments: Tensor) -> Tensor:
    """ImageOps.solarize. Arguments: the threshold."""
    return torch.where(images < _per_image(arguments[:, 0]).short(), images, 255 - images)


def _enhance(images: Tensor, arguments: Tensor) -> Tensor:
    """ImageEnhance.Brightness, Contrast and Color. Arguments: the factor, and an index into JITTER_PARTS."""
    red, green, blue = images.int().unbind(1)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    mean = (luma.sum((1, 2), dtype=torch.int64).double() / luma[0].numel() + 0.5).floor()
    part = _per_image(arguments[:, 1])
    grey = torch.where(part == 0, 0, torch.where(part == 1, _per_image(mean), luma[:, None])).float()
    return _blend(grey, images, arguments)


def _sharpness(images: Tensor, arguments: Tensor) -> Tensor:
    """ImageEnhance.Sharpness. Arguments: the factor.

    ImageFilter.SMOOTH is (the 3x3 box + 4 centre) / 13, rounded. 13 is odd, so there are no ties, and any float type is
    exact enough.
    """
    smooth = images.float()
    if min(images.shape[2:]) >= 3:  # the border is the image's own
        box = torch.nn.functional.avg_pool2d(smooth, 3, stride=1, divisor_override=1)
        inner = smooth[:, :, 1:-1, 1:-1]
        inner.copy_(((box + 4 * inner) / 13 + 0.5).floor_())
    return _blend(smooth, images, arguments)


def _blend(degenerate: Tensor, images: Tensor, arguments: Tensor) -> Tensor:
    """Image.blend: from `degenerate`, float32, to `images` and beyond, by a factor; float32, clipped and truncated."""
    factor = _per_image(arguments[:, 0].float())
    return (degenerate + factor * (images - degenerate)).clamp_(0, 255).to(torch.uint8)


_FUNCTIONS: dict[int, GroupFunction] = {
    draws.AUTOCONTRAST: _autocontrast,
    draws.EQUALIZE: _equalize,
    draws.POSTERIZE: _posterize,
    draws.ROTATE: _affine,
    draws.SOLARIZE: _solarize,
    draws.SHEAR_X: _affine,
    draws.SHEAR_Y: _affine,
    draws.TRANSLATE_X: _translate,
    draws.TRANSLATE_Y: _translate,
    draws.COLOR: _enhance,
    draws.CONTRAST: _enhance,
    draws.BRIGHTNESS: _enhance,
    draws.SHARPNESS: _sharpness,
}
