"""CIFAR-10-P's sequences against Pillow, torchvision, scikit-image and SciPy, image by image."""

import numpy as np
import pytest
import torchvision.transforms.functional as tv
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.stats import chisquare, poisson
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from torchvision.transforms import InterpolationMode

from benchmarks.plain_corruptions import blown, water
from fastmagn.corruptions import PERTURBATIONS
from fastmagn.corruptions.sequences import perturb
from fastmagn.errors import InputError
from fastmagn_kernels.random import rng

CENTRE = [16.5, 16.5]  # of the torchvision that made the published set


@pytest.fixture(scope="module")
def images(pictures):
    return pictures[:12]


def turned(image: np.ndarray, angle: float, factor: float) -> Image.Image:
    bilinear = {"interpolation": InterpolationMode.BILINEAR, "center": CENTRE}
    return tv.affine(Image.fromarray(image), angle=angle, translate=[0, 0], scale=factor, shear=[0.0], **bilinear)


def plain_zoom_blur(image):
    total, frames = tv.to_tensor(image), [image]
    for i in range(1, 31):
        total = total + tv.to_tensor(turned(image, 0, 1 + 0.004 * i))
        frames.append(np.array(tv.to_pil_image(total / (i + 1))))
    return frames


def plain_brightness(image):
    frames = []
    for i in range(31):
        hsv = rgb2hsv(image / 255.0)
        hsv[:, :, 2] = np.clip(hsv[:, :, 2] + (i - 15) * 1.5 / 100.0, 0, 1)
        frames.append(np.uint8(hsv2rgb(hsv) * 255))
    return frames


def plain_translate(image):
    whole = Image.fromarray(image)
    return [np.array(tv.affine(whole, angle=0, translate=[i - 7, 0], scale=1, shear=[0.0])) for i in range(16)]


def plain_rotate(image):
    return [np.array(turned(image, i - 15, 1.0)) for i in range(31)]


def plain_scale(image):
    return [np.array(turned(image, 0, (i * 2 + 70) / 100.0)) for i in range(31)]


EXACT = {
    "zoom_blur": plain_zoom_blur,
    "brightness": plain_brightness,
    "translate": plain_translate,
    "rotate": plain_rotate,
    "scale": plain_scale,
}


@pytest.mark.parametrize("name", EXACT)
def test_is_the_plain_computation(name, images):
    np.testing.assert_array_equal(perturb(images, name), np.stack([EXACT[name](image) for image in images]))


def test_tilt_is_a_perspective_view_sampled_at_thirty_seconds_of_a_pixel(images):
    """The plane, at height 1, is turned about both axes and seen from f, the length of its diagonal, further away."""
    frames = perturb(images, "tilt").astype(int)
    f = 32 * np.sqrt(2)
    y, x = np.mgrid[:32, :32].reshape(2, -1)
    for i in (0, 4, 15, 22, 30):
        c, s = np.cos(np.deg2rad(0.75 * (i - 15))), np.sin(np.deg2rad(0.75 * (i - 15)))
        turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        turn[2, 2] += f
        view = np.array([[f, 0, 16], [0, f, 16], [0, 0, 1]]) @ turn @ np.array([[1, 0, -16], [0, 1, -16], [0, 0, 1]])
        source = np.linalg.solve(view, np.stack([x, y, np.ones_like(x)]))
        positions = np.rint(source[1::-1] / source[2] * 32) / 32
        for image, frame in zip(images, frames[:, i], strict=True):
            channels = np.moveaxis(image.astype(float), -1, 0)
            plain = [map_coordinates(channel, positions, order=1, mode="grid-constant") for channel in channels]
            assert np.abs(np.stack(plain, axis=-1).reshape(32, 32, 3) - frame).max() <= 0.51


def test_motion_blur_turns(images):
    frames = perturb(images[:3], "motion_blur").astype(int)
    for image, sequence in zip(images[:3], frames, strict=True):
        for i, frame in enumerate(sequence):
            assert np.abs(np.rint(blown(image, 6, 1.8, (i - 20) * 9)) - frame).max() <= 1


def test_water_runs_down(images):
    """The script's steps from the draws of the stream; a frame without water is black."""
    z = np.empty((len(images), 1024), np.float32)
    view = (1 << 16) + 64 * list(PERTURBATIONS).index("spatter")
    rng.standard_normal_batch(z, rng.STREAM_CORRUPTION, view, np.arange(len(images)), 0, *rng.key_words(5))
    frames = perturb(images, "spatter", seed=5).astype(int)
    colour, num_dry = np.array([175, 238, 238]) / 255, 0
    for image, draws, sequence in zip(images, z, frames, strict=True):
        layer = gaussian(0.6 + 0.265 * draws.astype(float).reshape(32, 32), sigma=1.75)
        layer[layer < 0.7] = 0
        for frame in sequence:
            share = water(layer)
            plain = np.uint8(np.clip(image / 255 + 0.6 * share[..., None] * colour, 0, 1) * 255)
            num_dry += share.max() == 0
            assert np.abs((plain if share.max() > 0 else 0) - frame).max() <= 1
            layer = np.apply_along_axis(lambda line: np.convolve(line, [0.2, 0.8], mode="same"), 0, layer)
    assert num_dry > 0


def test_gaussian_noise(images):
    frames = perturb(images, "gaussian_noise").astype(float)
    np.testing.assert_array_equal(frames[:, 0], images)
    inner = (images > 40) & (images < 215)  # where nothing is clipped
    noise = (frames[:, 1:] + 0.5 - images[:, None])[np.broadcast_to(inner[:, None], frames[:, 1:].shape)]
    assert abs(noise.mean()) < 5 * 5.1 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(np.sqrt((0.02 * 255) ** 2 + 1 / 12), rel=0.01)
    first, second = (frames[:, k] - images for k in (1, 2))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03


def test_shot_noise():
    levels = perturb(np.full((40, 32, 32, 3), 90, np.uint8), "shot_noise")
    assert (levels[:, 0] == 90).all()
    counts = np.bincount(levels[:, 1:].ravel(), minlength=256)
    photons = np.arange(701)
    expected = np.bincount((photons / 700 * 255).astype(np.uint8), poisson.pmf(photons, 90 / 255 * 700), 256)
    kept = expected * counts.sum() > 10
    assert chisquare(counts[kept], expected[kept] / expected[kept].sum() * counts[kept].sum()).pvalue > 1e-4


@pytest.mark.parametrize("name", ["gaussian_noise", "spatter"])
def test_an_image_does_not_depend_on_the_others(name, images):
    whole = perturb(images, name, seed=3)
    part = perturb(images[[7, 2]], name, seed=3, indices=np.array([7, 2]))
    np.testing.assert_array_equal(part, whole[[7, 2]])
    assert (perturb(images, name, seed=4) != whole).any()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_no_images_have_no_frames(name, images):
    num_frames = {"motion_blur": 21, "translate": 16}.get(name, 31)
    assert perturb(images[:2], name).shape == (2, num_frames, 32, 32, 3)
    for indices in (None, np.empty(0, np.int64)):
        nothing = perturb(images[:0], name, indices=indices)
        assert nothing.shape == (0, num_frames, 32, 32, 3)
        assert nothing.dtype == np.uint8


@pytest.mark.parametrize(
    ("images", "name", "message"),
    [
        (np.zeros((1, 64, 64, 3), np.uint8), "tilt", "perturbations: got images of 64x64 px; expected 32x32"),
        (np.zeros((1, 32, 32, 3), np.uint8), "tillt", "tilt"),
        (np.zeros((1, 32, 32, 3), np.float32), "tilt", "images_u8: got"),
    ],
)
def test_what_cannot_be_used_is_one_line(images, name, message):
    with pytest.raises(InputError, match=message):
        perturb(images, name)
