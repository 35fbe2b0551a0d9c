"""The ten perturbation sequences of CIFAR-10-P: each image as a short film of small changes.

Each function takes images_u8, uint8 [N, 32, 32, 3], seed and indices, int64 [N]; it returns uint8 [N, F, 32, 32, 3],
F frames of each image.

Source: D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019, and the script that made the published set, with the libraries of its time: torchvision then
turned and scaled about the point (W + 1) / 2, (H + 1) / 2, and OpenCV rounded positions to 1/32 px.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastmagn.corruptions import PERTURBATIONS
from fastmagn.corruptions.blur import as_rows, gaussian_weights, motion_weights
from fastmagn.corruptions.corrupting import check_images, check_keys, for_kernels
from fastmagn.corruptions.digital import as_pixels
from fastmagn.corruptions.noise import shot_tables
from fastmagn.corruptions.weather import WATER_COLOUR
from fastmagn.errors import InputError
from fastmagn.registry import resolve
from fastmagn_kernels.corruptions.colour import hsv_batch
from fastmagn_kernels.corruptions.noise import normal_noise_batch, shot_noise_batch
from fastmagn_kernels.corruptions.sequences import (
    Taps,
    Warp,
    Water,
    motion_frame_batch,
    taps_batch,
    warp_batch,
    water_sequence_batch,
)
from fastmagn_kernels.corruptions.stream import Stream
from fastmagn_kernels.random.rng import key_words
from fastmagn_kernels.threads import over_chunks

SIDE_PX = 32
_NUM_FRAMES = 31
_CHUNK_IMAGES = 32
_FIRST_VIEW = 1 << 16  # of rng.STREAM_CORRUPTION, above those of the corruptions
_MAX_FRAMES = 64

NOISE_STD = 0.02
SHOT_PHOTONS = 700
MOTION_RADIUS_SIGMA_PX, MOTION_STEP_DEG, MOTION_FRAMES = (6, 1.8), 9, 21
ZOOM_STEP = 0.004
WATER_MEAN, WATER_STD, WATER_SIGMA_PX, WATER_THRESHOLD, WATER_OPACITY = 0.6, 0.265, 1.75, 0.7, 0.6
BRIGHTNESS_STEP = 0.015
TRANSLATE_FRAMES, TRANSLATE_FIRST_PX = 16, -7
TILT_STEP_DEG = 0.75
SCALE_FIRST_PCT, SCALE_STEP_PCT = 70, 2


def perturb(images_u8: np.ndarray, name: str, *, seed: int = 0, indices: np.ndarray | None = None) -> np.ndarray:
    """The sequence of each image: a pure function of its pixels, name, seed and sample index.

    Args:
        images_u8: uint8 [N, 32, 32, 3], RGB.
        name: A key of PERTURBATIONS.
        seed: Key of the random stream, 0..2^64 - 1.
        indices: The sample index that keys each image's stream, int64 [N] in 0..2^32 - 1; by default 0..N - 1.

    Returns:
        uint8 [N, F, 32, 32, 3]; F is 31, for motion_blur 21, for translate 16.

    Raises:
        InputError: An argument has another type, shape or range.
    """
    function = resolve(PERTURBATIONS, name, "perturbation")
    check_images(images_u8)
    check_side(images_u8.shape)
    seed, keys = check_keys(seed, indices, len(images_u8))
    form = function(np.zeros((1, *images_u8.shape[1:]), np.uint8), seed, np.zeros(1, np.int64)).shape[1:]
    out = np.empty((len(images_u8), *form), np.uint8)

    def perturb_chunk(chunk: slice) -> None:
        out[chunk] = function(for_kernels(images_u8[chunk]), seed, keys[chunk])

    over_chunks(perturb_chunk, len(out), _CHUNK_IMAGES)
    return out


def check_side(shape: tuple[int, ...]) -> None:
    """Raise InputError unless images [N, H, W, 3] have the size that the sequences are defined for."""
    if tuple(shape[1:3]) != (SIDE_PX, SIDE_PX):
        raise InputError(
            f"perturbations: got images of {shape[1]}x{shape[2]} px; expected {SIDE_PX}x{SIDE_PX}, the size for which "
            "CIFAR-10-P is defined. Leave them out for these images."
        )


def gaussian_noise(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """The image, then 30 times x + 0.02 z, each time with new standard normals z."""

    def noisy(frame: int, out: np.ndarray, flat: np.ndarray) -> None:
        stream = _stream("gaussian_noise", frame, seed)
        normal_noise_batch(out, flat, np.float32(NOISE_STD), False, stream, indices)

    return _noise_frames(images_u8, noisy)


def shot_noise(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """The image, then 30 times k / 700, with k from a Poisson distribution of mean 700 x."""

    def noisy(frame: int, out: np.ndarray, flat: np.ndarray) -> None:
        shot_noise_batch(out, flat, *shot_tables(SHOT_PHOTONS), _stream("shot_noise", frame, seed), indices)

    return _noise_frames(images_u8, noisy)


def motion_blur(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """ImageMagick's motion blur, turning by 9 degrees from frame to frame, from -180 to 0."""
    weights = motion_weights(*MOTION_RADIUS_SIGMA_PX)

    def blurred(frame: int) -> np.ndarray:
        out = np.empty_like(images_u8)
        angle_deg = float(MOTION_STEP_DEG * (frame + 1 - MOTION_FRAMES))
        motion_frame_batch(as_rows(out), as_rows(images_u8), weights, angle_deg)
        return out

    return _frames(images_u8, MOTION_FRAMES, blurred)


def zoom_blur(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """The mean of the image and more and more of its zooms by 0.4, 0.8, ... 12 per cent."""
    total = images_u8.astype(np.float32) / np.float32(255)

    def blurred(frame: int) -> np.ndarray:
        nonlocal total
        if frame == 0:
            return images_u8
        total += np.float32(_warped(images_u8, affine_warp(0.0, 1 + ZOOM_STEP * frame))) / np.float32(255)
        return (total / np.float32(frame + 1) * np.float32(255)).astype(np.uint8)

    return _frames(images_u8, _NUM_FRAMES, blurred)


def spatter(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """Splashes of water that run down by 0.8 px from frame to frame.

    Where no water is left, the source divides 0 by 0 and stores a black frame. So does this, or the flip probability
    would not be comparable; it happens in 1 of 18 frames, mostly late ones.
    """
    out = np.empty((len(images_u8), _NUM_FRAMES, *images_u8.shape[1:]), np.uint8)
    weights = gaussian_weights(WATER_SIGMA_PX, truncate=4)
    water = Water(WATER_MEAN, WATER_STD, WATER_THRESHOLD, weights, WATER_OPACITY, np.array(WATER_COLOUR))
    water_sequence_batch(out, images_u8, water, _stream("spatter", 0, seed), indices)
    return out


def brightness(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """The value in HSV, shifted from -0.225 to 0.225 in steps of 0.015."""

    def shifted(frame: int) -> np.ndarray:
        out = np.empty_like(images_u8)
        hsv_batch(as_pixels(out), as_pixels(images_u8), 1.0, 0.0, (frame - 15) * 1.5 / 100)
        return out

    return _frames(images_u8, _NUM_FRAMES, shifted)


def translate(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """Shift along the rows by -7 to 8 px; black outside the image."""

    def shifted(frame: int) -> np.ndarray:
        out = np.zeros_like(images_u8)
        shift_px, width = frame + TRANSLATE_FIRST_PX, images_u8.shape[2]
        out[:, :, max(shift_px, 0) : width + shift_px] = images_u8[:, :, max(-shift_px, 0) : width - shift_px]
        return out

    return _frames(images_u8, TRANSLATE_FRAMES, shifted)


def rotate(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """Turn by -15 to 15 degrees; black outside the image."""
    return _frames(images_u8, _NUM_FRAMES, lambda frame: _warped(images_u8, affine_warp(frame - 15.0, 1.0)))


def tilt(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """A perspective view of the image plane, tilted about both axes by -11.25 to 11.25 degrees."""

    def tilted(frame: int) -> np.ndarray:
        out = np.empty_like(images_u8)
        taps_batch(as_pixels(out), as_pixels(images_u8), perspective_taps(TILT_STEP_DEG * (frame - 15)))
        return out

    return _frames(images_u8, _NUM_FRAMES, tilted)


def scale(images_u8: np.ndarray, seed: int, indices: np.ndarray) -> np.ndarray:
    """Scale by 0.7 to 1.3; black outside the image."""

    def scaled(frame: int) -> np.ndarray:
        return _warped(images_u8, affine_warp(0.0, (SCALE_FIRST_PCT + SCALE_STEP_PCT * frame) / 100))

    return _frames(images_u8, _NUM_FRAMES, scaled)


@lru_cache(maxsize=128)
def affine_warp(angle_deg: float, factor: float) -> Warp:
    """Turn by an angle, clockwise, and scale by a factor, about (W + 1) / 2, (H + 1) / 2, as Pillow samples."""
    cosine, sine = math.cos(math.radians(angle_deg)) / factor, math.sin(math.radians(angle_deg)) / factor
    centre = SIDE_PX * 0.5 + 0.5
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5
    source_x = cosine * x + sine * y + (cosine * -centre + sine * -centre + centre)
    source_y = -sine * x + cosine * y + (-sine * -centre + cosine * -centre + centre)
    inside = (source_x >= 0) & (source_x < SIDE_PX) & (source_y >= 0) & (source_y < SIDE_PX)
    left, top = np.floor(source_x - 0.5), np.floor(source_y - 0.5)
    shares = (source_x - 0.5) - left, (source_y - 0.5) - top
    corners = [np.clip(side + k, 0, SIDE_PX - 1).astype(np.int64) for side in (left, top) for k in (0, 1)]
    return Warp(*corners, *shares, inside)


@lru_cache(maxsize=64)
def perspective_taps(tilt_deg: float) -> Taps:
    """Tilt the image plane about both axes, seen from the length of its diagonal, as OpenCV samples."""
    side, angle = SIDE_PX, math.radians(tilt_deg)
    distance = math.hypot(side, side)
    to_centre = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1], [0, 0, 1]])
    cosine, sine = math.cos(angle), math.sin(angle)
    about_x = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]])
    about_y = np.array([[cosine, 0, -sine, 0], [0, 1, 0, 0], [sine, 0, cosine, 0], [0, 0, 0, 1]])
    away = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, distance], [0, 0, 0, 1]])
    project = np.array([[distance, 0, side / 2, 0], [0, distance, side / 2, 0], [0, 0, 1, 0]])
    inverse = np.linalg.inv(project @ away @ about_x @ about_y @ to_centre)
    y, x = np.mgrid[:side, :side].reshape(2, -1)
    source = inverse @ np.stack([x, y, np.ones_like(x)])
    fine_x, fine_y = np.rint(source[:2] * (32 / source[2])).astype(np.int64)
    pixels, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = (fine_x >> 5) + dx, (fine_y >> 5) + dy
            inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
            pixels.append(np.where(inside, row * side + column, -1))
            share_x, share_y = fine_x & 31, fine_y & 31
            weights.append(32 * (share_x if dx else 32 - share_x) * (share_y if dy else 32 - share_y))
    return Taps(np.stack(pixels, axis=1), np.stack(weights, axis=1))


def _warped(images_u8: np.ndarray, warp: Warp) -> np.ndarray:
    out = np.empty_like(images_u8)
    warp_batch(out, images_u8, warp)
    return out


def _frames(images_u8: np.ndarray, num_frames: int, frame_of: Callable[[int], np.ndarray]) -> np.ndarray:
    """The frames, uint8 [N, H, W, 3] each, as uint8 [N, F, H, W, 3]."""
    out = np.empty((len(images_u8), num_frames, *images_u8.shape[1:]), np.uint8)
    for frame in range(num_frames):
        out[:, frame] = frame_of(frame)
    return out


def _noise_frames(images_u8: np.ndarray, fill: Callable[[int, np.ndarray, np.ndarray], None]) -> np.ndarray:
    """The image, and 30 frames that `fill` makes: (frame, out, images), the latter two uint8 [N, H * W * 3]."""

    def noisy(frame: int) -> np.ndarray:
        if frame == 0:
            return images_u8
        out = np.empty_like(images_u8)
        fill(frame, out.reshape(len(out), -1), images_u8.reshape(len(out), -1))
        return out

    return _frames(images_u8, _NUM_FRAMES, noisy)


def _stream(name: str, frame: int, seed: int) -> Stream:
    view = _FIRST_VIEW + _MAX_FRAMES * tuple(PERTURBATIONS).index(name) + frame
    return Stream(view, *key_words(seed))
