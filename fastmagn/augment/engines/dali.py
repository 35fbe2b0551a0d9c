"""The DALI engine: NVIDIA DALI pipelines on the CPU or on a CUDA device, fed with the drawn parameters.

Two pipelines make the uint8 part. In the first a sample is an image: crop, flip, colour jitter, rotation. In the second
a sample is a chain, so its batch has J W B images and its graph has D steps; a graph with the chains of all views side
by side would have J W times as many operators. Conditionals choose a sample's operation in each step: they split a
batch by operation and merge it again. torch mixes the chains and adds the noise.

Nothing is drawn here: operations, magnitudes and weights come from `params`, as for every engine. The noise is the same
stream too; numba draws it on the host, and it is copied to the views' device.

Against Pillow (measured on the CPU; the table is tests/augment/engines/tolerances_dali.py):

- rotate (also in the base transform), shear_x, shear_y: at most 1 level off, in under 1 % of the values. The
  coordinates of `warp_affine` are float32, Pillow's are float64. By default `warp_affine` would blend the border with
  black; here it repeats the border, as Pillow does, and a second, nearest-neighbour warp of ones tells which centres
  fall outside. A centre exactly on the border may be black in one of the two engines only.
- everything else: equal. It is DALI arithmetic in float32 (autocontrast: float64), rounded toward zero as in Pillow.
- DALI's own `equalize` follows OpenCV and differs by up to 65 levels. Here a numba function in the pipeline replaces
  it. DALI 2.4 refuses numba functions on CUDA 13, so on a CUDA device a Python function of torch operations does it,
  and the host waits for it.

On a CPU this takes over ten times as long as the numba engine: every arithmetic step passes over the whole batch.

Shape letters: V views, B batch, J AugMix views, W chains, D operations of a chain, H W image.
"""

import atexit
import os
import threading
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.operations import NUM_AUGMIX_OPERATIONS
from fastmagn.augment.params import JITTER_PARTS, ViewParams, jitter_steps, num_operations
from fastmagn.errors import without
from fastmagn_kernels import threads
from fastmagn_kernels.pixel import MAX_ANGLE_UNITS, fill_equalize_table, rotation_offset, rotation_table
from fastmagn_kernels.random import draws, rng
from fastmagn_kernels.random.draws import ANGLE_UNITS_PER_DEGREE

try:
    import nvidia.dali.math as dali_math
    from nvidia.dali import Pipeline, fn, pipeline_def, types
    from nvidia.dali.data_node import DataNode
except ImportError as error:
    needs = "augment.backend: got dali, which needs NVIDIA DALI; install 'fastmagn[dali]', or use auto."
    raise without("nvidia.dali", error, needs) from error

_BRIGHTNESS, _CONTRAST = map(JITTER_PARTS.index, ("brightness", "contrast"))

# Luma times 2^16 stays below 2^24: it is exact in float32, in any order of summation.
_LUMA_WEIGHTS = np.array([[[19595, 38470, 7471]]], np.float32)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / np.float32(13)
# In levels. Interpolation between equal pixels may give slightly less than their level, and truncation follows.
_TRUNCATION_SLACK = 2.0**-14
# How many pipelines of each kind are kept: a run needs one, and a second one if its last batch is much smaller.
_PIPELINES_KEPT = 4
_lock = threading.RLock()  # a pipeline runs one batch at a time, and its result lies in its own memory
_parents: list[Any] = []  # the pipelines of the process that this one was forked from


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, float [V*B, H, W, 3], with the views of `images`, uint8 [B, H, W, 3], as `make_views` describes.

    Both are contiguous, on the host (`out` float32) or on one CUDA device (`out` of any float dtype).
    """
    spec = params.view_spec
    views = out if out.dtype == torch.float32 else torch.empty_like(out, dtype=torch.float32)
    clean, *others = views.view(spec.num_views, *images.shape)
    with _lock:
        clean_u8 = _make_clean(images, params)
        torch.div(clean_u8, 255, out=clean)
        if spec.num_augmix_views:
            chains_u8 = _make_chains(clean_u8, params)
            for j in range(spec.num_augmix_views):
                _mix(clean, chains_u8[j], params.augmix.chain_weights[j], params.augmix.mix_weight[j], others[j])
    for n in range(spec.num_noise_views):
        noisy = others[spec.num_augmix_views + n]
        _fill_normals(params, n, noisy)
        noisy.mul_(_for_each_image(params.sigma[n], noisy)).add_(clean)
    if views is not out:
        out.copy_(views)


def _make_clean(images: Tensor, params: ViewParams) -> Tensor:
    """The clean views, uint8 [B, H, W, 3]."""
    base = params.base
    corner = np.stack([base.crop_y_px, base.crop_x_px], axis=1) - params.augment.crop_padding_px
    parts, factors = jitter_steps(base)
    inputs = {
        "corner": corner.astype(np.int32),
        "flip": base.flip.astype(np.int32),
        "matrix": _rotations(base.angle, params.image_size).astype(np.float32),
    }
    for step in range(len(JITTER_PARTS)):
        inputs[f"part_{step}"] = parts[:, step].astype(np.int32)
        inputs[f"factor_{step}"] = factors[:, step].copy()
    pipeline = _base_pipeline(_room_for(len(images)), params.image_size, images.device, threads.num_threads())
    return _run(pipeline, images, inputs)


def _make_chains(clean_u8: Tensor, params: ViewParams) -> Tensor:
    """The chains of all AugMix views, uint8 [J, W, B, H, W, 3]."""
    augmix = params.augmix
    num_views, _, num_chains, depth = augmix.ops.shape
    ops, magnitudes = (array.transpose(3, 0, 2, 1).reshape(depth, -1) for array in (augmix.ops, augmix.magnitudes))
    inputs = {}
    for step, (op, magnitude) in enumerate(zip(ops, magnitudes, strict=True)):
        kept_bits = 256 - 2 ** (8 - magnitude)
        inputs[f"op_{step}"] = op.astype(np.int32)
        inputs[f"value_{step}"] = np.where(op == draws.POSTERIZE, kept_bits, magnitude).astype(np.float32)
        inputs[f"matrix_{step}"] = _matrices(op, magnitude, params.image_size).astype(np.float32)
    has_enhancements = num_operations(params.augment) > NUM_AUGMIX_OPERATIONS
    max_batch = num_views * num_chains * _room_for(len(clean_u8))
    pipeline = _chain_pipeline(
        max_batch, params.image_size, depth, has_enhancements, clean_u8.device, threads.num_threads()
    )
    return _run(pipeline, clean_u8.repeat(num_views * num_chains, 1, 1, 1), inputs).view(
        num_views, num_chains, *clean_u8.shape
    )


def _mix(clean: Tensor, chains_u8: Tensor, chain_weights: np.ndarray, mix_weight: np.ndarray, out: Tensor) -> None:
    """One AugMix view of every image: clean [B, H, W, 3], chains_u8 [W, B, H, W, 3], weights [B, W] and [B]."""
    torch.mul(clean, _for_each_image(np.float32(1) - mix_weight, clean), out=out)
    weights = mix_weight[:, None] * chain_weights / np.float32(255)
    for w, chain in enumerate(chains_u8):
        out.addcmul_(chain.float(), _for_each_image(weights[:, w], clean))


def _fill_normals(params: ViewParams, n: int, out: Tensor) -> None:
    """Fill `out`, float32 [B, H, W, 3], with the standard normals of noise view `n`, drawn on the host."""
    z = torch.empty(out.shape, dtype=torch.float32, device="cpu", pin_memory=True) if out.is_cuda else out
    rows = z.numpy().reshape(len(z), -1)
    rng.standard_normal_batch(rows, rng.STREAM_NOISE, n, params.indices, params.epoch, *rng.key_words(params.seed))
    if z is not out:
        out.copy_(z, non_blocking=True)


def _for_each_image(values: np.ndarray, like: Tensor) -> Tensor:
    """float32 [B] -> [B, 1, 1, 1] on `like`'s device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device).view(-1, 1, 1, 1)


def _matrices(ops: np.ndarray, magnitudes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Pillow's matrices, target to source, float64 [N, 2, 3]; the identity for operations that are not geometric."""
    matrices = np.tile(np.eye(2, 3), (len(ops), 1, 1))
    rotated = ops == draws.ROTATE
    angles = ANGLE_UNITS_PER_DEGREE * magnitudes[rotated].astype(np.int64)
    matrices[rotated] = _rotations(angles, image_size)
    entries = {draws.SHEAR_X: (0, 1), draws.SHEAR_Y: (1, 0), draws.TRANSLATE_X: (0, 2), draws.TRANSLATE_Y: (1, 2)}
    for op, (row, column) in entries.items():
        matrices[ops == op, row, column] = magnitudes[ops == op]
    return matrices


def _rotations(angles: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Image.rotate's matrices for angles in 1/64 degree, float64 [N, 2, 3]."""
    cosine, sine = rotation_table()[angles + MAX_ANGLE_UNITS].T
    offset_x, offset_y = rotation_offset.py_func(cosine, sine, *image_size)
    return np.stack([cosine, sine, offset_x, -sine, cosine, offset_y], axis=1).reshape(-1, 2, 3)


def _room_for(batch: int) -> int:
    """The largest batch of a pipeline: the next power of two, so that batches of similar size share a pipeline."""
    return 1 << (batch - 1).bit_length()


def _run(pipeline: Pipeline, images: Tensor, inputs: dict[str, np.ndarray]) -> Tensor:
    """Run uint8 [N, H, W, 3] through a pipeline. The result is in DALI's memory, without a copy."""
    if images.is_cuda:
        (made,) = pipeline.run(torch.cuda.current_stream(images.device), images=images, **inputs)
    else:
        (made,) = pipeline.run(images=images.numpy(), **inputs)
    return torch.from_dlpack(made.as_tensor())


@lru_cache(maxsize=_PIPELINES_KEPT)
def _base_pipeline(max_batch: int, size: tuple[int, int], device: torch.device, num_threads: int) -> Pipeline:
    return _base_graph(size, _kind(device), **_settings(max_batch, device, num_threads))


@lru_cache(maxsize=_PIPELINES_KEPT)
def _chain_pipeline(
    max_batch: int, size: tuple[int, int], depth: int, has_enhancements: bool, device: torch.device, num_threads: int
) -> Pipeline:
    return _chain_graph(size, depth, has_enhancements, _kind(device), **_settings(max_batch, device, num_threads))


def _start_anew() -> None:
    """In a forked process, which has none of DALI's threads: to run or to shut down an old pipeline would never end.

    DALI shuts down all at the interpreter's exit. Workers of DataLoader and multiprocessing end without it.
    """
    global _base_pipeline, _chain_pipeline
    _parents.extend((_base_pipeline, _chain_pipeline))
    _base_pipeline = lru_cache(_PIPELINES_KEPT)(_base_pipeline.__wrapped__)
    _chain_pipeline = lru_cache(_PIPELINES_KEPT)(_chain_pipeline.__wrapped__)
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_start_anew)


@atexit.register
def _forget_pipelines() -> None:
    """A pipeline that outlives DALI's modules cannot be shut down."""
    _base_pipeline.cache_clear()
    _chain_pipeline.cache_clear()


def _kind(device: torch.device) -> str:
    return "gpu" if device.type == "cuda" else "cpu"


def _settings(max_batch: int, device: torch.device, num_threads: int) -> dict[str, Any]:
    # A queue of one: each call to `run` returns what that call was given.
    device_id = device.index if device.type == "cuda" else None
    return {"batch_size": max_batch, "device_id": device_id, "num_threads": num_threads, "prefetch_queue_depth": 1}


@pipeline_def(enable_conditionals=True)
def _base_graph(size: tuple[int, int], device: str) -> DataNode:
    """Crop with black padding, flip, jitter in the drawn order, rotate."""
    images = _images_input(device)
    corner, flip = _input("corner", types.INT32, 1), _input("flip", types.INT32, 0)
    images = fn.slice(images, start=corner, shape=size, axes=(0, 1), out_of_bounds_policy="pad", fill_values=0)
    images = fn.flip(images, horizontal=flip)
    for step in range(len(JITTER_PARTS)):
        part = _input(f"part_{step}", types.INT32, 0)
        factor = _at(device, _input(f"factor_{step}", types.FLOAT, 0))
        if part == _BRIGHTNESS:
            images = _brighten(images, factor)
        elif part == _CONTRAST:
            images = _blend(_mean_luma(images, size, device), images, factor)
        else:
            images = _blend(_luma(images, device), images, factor)
    return _warp(images, _input("matrix", types.FLOAT, 2), size, device)


@pipeline_def(enable_conditionals=True)
def _chain_graph(size: tuple[int, int], depth: int, has_enhancements: bool, device: str) -> DataNode:
    """The steps of a chain, one operation each; `value` is the operation's factor, threshold or bit mask."""
    images = _images_input(device)
    for step in range(depth):
        op = _input(f"op_{step}", types.INT32, 0)
        value = _at(device, _input(f"value_{step}", types.FLOAT, 0))
        matrix = _input(f"matrix_{step}", types.FLOAT, 2)
        if op == draws.NO_OPERATION:
            images = images
        elif op == draws.AUTOCONTRAST:
            images = _autocontrast(images)
        elif op == draws.EQUALIZE:
            images = _equalize(images, device)
        elif op == draws.POSTERIZE:
            images = images & fn.cast(value, dtype=types.UINT8)
        elif op == draws.SOLARIZE:
            images = images ^ (fn.cast(images >= value, dtype=types.UINT8) * types.Constant(255).uint8())
        elif op <= draws.TRANSLATE_Y:
            images = _warp(images, matrix, size, device)
        else:
            images = _enhance(op, images, value, size, device) if has_enhancements else images
    return images


def _enhance(op: DataNode, images: DataNode, factor: DataNode, size: tuple[int, int], device: str) -> DataNode:
    """The operations that overlap the test corruptions: blends with a degenerate image."""
    if op == draws.COLOR:
        enhanced = _blend(_luma(images, device), images, factor)
    elif op == draws.CONTRAST:
        enhanced = _blend(_mean_luma(images, size, device), images, factor)
    elif op == draws.BRIGHTNESS:
        enhanced = _brighten(images, factor)
    else:
        enhanced = _blend(_smooth(images, size, device), images, factor)
    return enhanced


def _images_input(device: str) -> DataNode:
    return fn.external_source(name="images", device=device, dtype=types.UINT8, ndim=3, layout="HWC")


def _input(name: str, dtype: types.DALIDataType, ndim: int) -> DataNode:
    """A parameter of each sample, on the host, where conditionals and operators' arguments must be."""
    return fn.external_source(name=name, dtype=dtype, ndim=ndim)


def _at(device: str, node: DataNode) -> DataNode:
    return node.gpu() if device == "gpu" else node


def _constant(array: np.ndarray, device: str, layout: str = "HWC") -> DataNode:
    return types.Constant(array, device=device, layout=layout)


def _truncate(values: DataNode) -> DataNode:
    """Float to uint8 as Pillow does: toward zero, clipped."""
    return fn.cast(dali_math.floor(values), dtype=types.UINT8)


def _brighten(images: DataNode, factor: DataNode) -> DataNode:
    return _truncate(images * factor)


def _blend(degenerate: DataNode, images: DataNode, factor: DataNode) -> DataNode:
    """Image.blend of a float32 image of whole numbers and a uint8 image."""
    return _truncate(degenerate + factor * (images - degenerate))


def _luma(images: DataNode, device: str) -> DataNode:
    """`convert("L")`, float32 [H, W, 1]."""
    weighted = fn.reductions.sum(images * _constant(_LUMA_WEIGHTS, device), axes=2, keep_dims=True)
    return dali_math.floor((weighted + 0x8000) / 0x10000)


def _mean_luma(images: DataNode, size: tuple[int, int], device: str) -> DataNode:
    """The grey that ImageEnhance.Contrast blends with, float32 [1, 1, 1]."""
    luma = fn.cast(_luma(images, device), dtype=types.UINT8)
    total = fn.reductions.sum(luma, axes=(0, 1), keep_dims=True, dtype=types.UINT64)
    mean = fn.cast(total, dtype=types.FLOAT64) / (size[0] * size[1])
    return fn.cast(dali_math.floor(mean + 0.5), dtype=types.FLOAT)


def _smooth(images: DataNode, size: tuple[int, int], device: str) -> DataNode:
    """ImageFilter.SMOOTH, which keeps the image's border, float32 [H, W, 3]."""
    inside = np.zeros((*size, 1), np.float32)
    inside[1:-1, 1:-1] = 1
    kernel = _constant(_SMOOTH, device, layout="HW")
    smoothed = dali_math.floor(fn.filter(images, kernel, dtype=types.FLOAT) + 0.5)
    return images + _constant(inside, device) * (smoothed - images)


def _autocontrast(images: DataNode) -> DataNode:
    """ImageOps.autocontrast, in float64 as in Pillow; a channel with one value only is unchanged."""
    low = fn.cast(fn.reductions.min(images, axes=(0, 1), keep_dims=True), dtype=types.FLOAT64)
    high = fn.cast(fn.reductions.max(images, axes=(0, 1), keep_dims=True), dtype=types.FLOAT64)
    is_flat = fn.cast(low == high, dtype=types.FLOAT64)
    scale = 255 / (high - low + 255 * is_flat)
    offset = -low * scale * (1 - is_flat)
    return _truncate(images * scale + offset)


def _warp(images: DataNode, matrix: DataNode, size: tuple[int, int], device: str) -> DataNode:
    """Image.transform by an affine matrix, bilinear: black where a pixel's centre falls outside the source."""
    values = fn.warp_affine(images, matrix=matrix, dtype=types.FLOAT)
    ones = _constant(np.ones((*size, 1), np.uint8), device)
    inside = fn.warp_affine(ones, matrix=matrix, fill_value=0, interp_type=types.INTERP_NN)
    return _truncate(values + _TRUNCATION_SLACK) * inside


def _equalize(images: DataNode, device: str) -> DataNode:
    """ImageOps.equalize."""
    if device == "cpu":
        return fn.reshape(_numba_equalize()(images), layout="HWC")
    equalized = fn.dl_tensor_python_function(images, function=equalize_batch, batch_processing=True, device=device)
    return fn.reshape(equalized, layout="HWC")


@cache
def _numba_equalize() -> Any:
    """One operator for all pipelines: creating one compiles its function anew, which takes 2 s."""
    from nvidia.dali.plugin.numba import NumbaFunction

    return NumbaFunction(
        run_fn=_equalize_image, in_types=[types.UINT8], out_types=[types.UINT8], ins_ndim=[3], outs_ndim=[3]
    )


def _equalize_image(target: np.ndarray, source: np.ndarray) -> None:
    height, width, channels = source.shape
    histograms = np.zeros((channels, 256), np.int32)
    tables = np.empty((channels, 256), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                histograms[c, source[y, x, c]] += 1
    for c in range(channels):
        fill_equalize_table(histograms[c], tables[c])
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                target[y, x, c] = tables[c, source[y, x, c]]


def equalize_batch(capsules: list[Any]) -> list[Any]:
    """ImageOps.equalize of a batch, with torch, for `dl_tensor_python_function`.

    Args:
        capsules: DLPack capsules of uint8 [H, W, C] images of one size, on one device.

    Returns:
        Capsules of the equalised images, complete, because DALI's stream does not wait for torch's.
    """
    images = torch.stack([torch.from_dlpack(capsule) for capsule in capsules])
    batch, height, width, channels = images.shape
    values = images.permute(0, 3, 1, 2).reshape(batch * channels, height * width).long()
    histogram = values.new_zeros(len(values), 256).scatter_add_(1, values, torch.ones_like(values))
    last = histogram.gather(1, values.amax(dim=1, keepdim=True))
    step = (height * width - last) // 255
    below = histogram.cumsum(dim=1) - histogram
    identity = torch.arange(256, device=images.device)
    table = torch.where(step > 0, ((below + step // 2) // step.clamp(min=1)).clamp(max=255), identity)
    equalized = table.gather(1, values).to(torch.uint8).view(batch, channels, height, width)
    equalized = equalized.permute(0, 2, 3, 1).contiguous()
    if equalized.is_cuda:
        torch.cuda.current_stream(equalized.device).synchronize()
    return [torch.utils.dlpack.to_dlpack(image) for image in equalized]
