"""The corruptions' contract: names, sets, keys of the random stream, sizes, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmagn.corruptions import (
    CORRUPTION_SETS,
    CORRUPTIONS,
    available_corruptions,
    corrupt,
    corrupting,
    frost_pictures,
    size_class,
)
from fastmagn.corruptions.sequences import perturb
from fastmagn.corruptions.sets import CIFAR_CBAR, IMAGENET_CBAR
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_command import main as make_set
from fastmagn_kernels import threads
from fastmagn_kernels.corruptions.cbar_warp import ripple_batch
from fastmagn_kernels.corruptions.sequences import water_sequence_batch
from tests.helpers.processes import run

HERE = available_corruptions()
GROWING = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur"),
    *("zoom_blur", "fog", "brightness", "contrast", "pixelate", "jpeg_compression"),
)


def test_sets():
    published = set(CORRUPTION_SETS["c19"])
    assert len(published) == len(CORRUPTION_SETS["c19"]) == 19
    assert published <= CORRUPTIONS.keys()
    assert set(CORRUPTION_SETS["c15"]) == published - {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
    assert len(CORRUPTION_SETS["c15"]) == 15
    assert set(CORRUPTION_SETS["c18"]) == published - {"gaussian_noise"}
    assert len(CORRUPTION_SETS["c18"]) == 18


@pytest.mark.parametrize("name", HERE)
def test_any_subset_order_split_and_thread_count_gives_the_same_pixels(name, pictures, monkeypatch):
    monkeypatch.setattr(corrupting, "_CHUNK_PIXELS", 16 * 32 * 32)
    images = pictures[:40]
    whole = corrupt(images, name, 3, seed=11)
    order = np.random.default_rng(0).permutation(40)[:25]
    np.testing.assert_array_equal(corrupt(images[order], name, 3, seed=11, indices=order), whole[order])
    parts = [
        corrupt(images[k : k + 7], name, 3, seed=11, indices=np.arange(k, min(k + 7, 40))) for k in range(0, 40, 7)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for num_threads in (1, 3):
        monkeypatch.setattr(threads, "num_threads", lambda number=num_threads: number)
        np.testing.assert_array_equal(corrupt(images, name, 3, seed=11), whole)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(HERE),
    severity=st.integers(1, 5),
    seed=st.integers(0, 2**64 - 1),
    index=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(8, 48), st.integers(8, 48)),
)
def test_one_image_is_a_pure_function_of_its_key(name, severity, seed, index, size):
    image = np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)
    before = image.copy()
    alone = corrupt(image, name, severity, seed=seed, indices=np.array([index]))
    both = corrupt(np.repeat(image, 2, 0), name, severity, seed=seed, indices=np.array([5, index]))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(alone[0], both[1])
    assert alone.dtype == np.uint8
    assert alone.shape == image.shape


RANDOM = tuple(
    name
    for name in HERE
    if name
    in (
        *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur"),
        *("snow", "frost", "fog", "elastic_transform", "spatter"),
        *(name for name in CIFAR_CBAR + IMAGENET_CBAR if name != "circular_motion_blur"),
    )
)


@pytest.mark.parametrize("name", HERE)
def test_only_random_ones_depend_on_seed_and_index(name, pictures):
    images = pictures[:4]
    usual = corrupt(images, name, 4)
    for other in (corrupt(images, name, 4, seed=1), corrupt(images, name, 4, indices=np.arange(4) + 4)):
        if name != "transverse_chromatic_abberation":  # it draws one of six orders
            assert (other != usual).any(axis=(1, 2, 3)).all() == (name in RANDOM)
        assert (other != usual).any() == (name in RANDOM)


@pytest.mark.parametrize("name", GROWING)
def test_severity_grows(name, pictures):
    distance = [abs(corrupt(pictures, name, s).astype(float) - pictures).mean() for s in (1, 2, 3, 4, 5)]
    assert np.all(np.diff(distance) > 0)


@pytest.mark.parametrize("name", HERE)
def test_strided_images_and_no_images(name, pictures):
    flipped = pictures[:3, :, ::-1]
    np.testing.assert_array_equal(corrupt(flipped, name, 2), corrupt(flipped.copy(), name, 2))
    assert corrupt(pictures[:0], name, 2).shape == (0, 32, 32, 3)


def test_read_only_images_compile_nothing_anew(pictures, tmp_path):
    """As those of a mapped file, or of np.asarray(image) of Pillow."""
    np.save(tmp_path / "images.npy", pictures[:3])
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    pairs = (
        (ripple_batch, lambda images: corrupt(images, "ripple", 2)),
        (water_sequence_batch, lambda images: perturb(images, "spatter")),
    )
    for kernel, function in pairs:
        expected = function(pictures[:3])
        compiled_for = list(kernel.signatures)
        np.testing.assert_array_equal(function(mapped), expected)
        assert kernel.signatures == compiled_for


IMAGES = np.zeros((2, 32, 32, 3), np.uint8)
ARRAY = r"expected a NumPy array uint8 \[N, H, W, 3\], H and W at least 8\."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES, "fogg", 1), "corruption: got 'fogg'; expected one of gaussian_noise, .* Did you mean 'fog'?"),
        ((IMAGES, "fog", 0), "severity: got 0; expected 1, 2, 3, 4 or 5."),
        ((IMAGES, "fog", 6), "severity: got 6; expected 1, 2, 3, 4 or 5."),
        ((IMAGES, "fog", 1.5), "severity: got 1.5; expected 1, 2, 3, 4 or 5."),
        ((IMAGES, "fog", True), "severity: got True; expected 1, 2, 3, 4 or 5."),
        (
            (IMAGES / 255, "fog", 1),
            rf"images_u8: got float64 \[2, 32, 32, 3\]; {ARRAY} For floats in \[0, 1\], \(255 \* images\)",
        ),
        ((IMAGES[0], "fog", 1), rf"got uint8 \[32, 32, 3\]; {ARRAY} For a single image, give images\[None\]\."),
        ((IMAGES[..., :1], "fog", 1), r"images_u8: got uint8 \[2, 32, 32, 1\]; expected"),
        ((IMAGES[:, :7], "fog", 1), r"images_u8: got uint8 \[2, 7, 32, 3\]; expected .* at least 8."),
        ((IMAGES.transpose(0, 3, 1, 2), "fog", 1), rf"{ARRAY} images.transpose\(0, 2, 3, 1\) puts the channels last\."),
        ((None, "fog", 1), f"images_u8: got a NoneType; {ARRAY}"),
        ((list(IMAGES), "fog", 1), f"images_u8: got a list; {ARRAY}"),
        ((torch.from_numpy(IMAGES), "fog", 1), f"images_u8: got a torch.Tensor; {ARRAY}"),
        ((IMAGES, None, 1), "corruption: got None; expected one of gaussian_noise, "),
        ((IMAGES, 3, 1), "corruption: got 3; expected one of gaussian_noise, "),
        ((IMAGES, ["fog"], 1), r"corruption: got \['fog'\]; expected one of gaussian_noise, "),
        ((IMAGES, "fog", None), "severity: got None; expected 1, 2, 3, 4 or 5."),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        corrupt(*arguments)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"seed": -1}, r"seed: got -1; expected an integer in 0..2\^64 - 1."),
        ({"seed": 0.5}, "seed: got 0.5; expected an integer"),
        ({"indices": np.arange(3)}, r"indices: got int64 \[3\]; expected integers, one for each of 2 images."),
        ({"indices": [[0], [1, 2]]}, r"indices: got a list that is not an array \("),
        ({"indices": np.zeros(2)}, r"indices: got float64 \[2\]; expected integers"),
        ({"indices": np.array([-1, 0])}, r"indices: got '-1..0'; expected sample indices in 0..2\^32 - 1."),
    ],
)
def test_wrong_keys(named, message):
    with pytest.raises(InputError, match=message):
        corrupt(IMAGES, "fog", 1, **named)


def test_without_its_pictures_frost_says_what_to_install(monkeypatch):
    monkeypatch.setattr(frost_pictures.importlib.util, "find_spec", lambda name: None)
    frost_pictures._read_pictures.cache_clear()
    assert available_corruptions() == tuple(name for name in CORRUPTIONS if name != "frost")
    with pytest.raises(InputError, match=r'pip install "fastmagn\[corruptions\]"'):
        corrupt(IMAGES, "frost", 1)


def test_without_frosts_pictures_a_set_can_be_made_as_the_message_says(monkeypatch, tmp_path):
    monkeypatch.setattr(frost_pictures.importlib.util, "find_spec", lambda name: None)
    frost_pictures._read_pictures.cache_clear()
    arguments = ["--dataset", "digits", "--num_images", "1", "--out", str(tmp_path / "set")]
    with pytest.raises(InputError, match=r"^frost: .* or choose corruptions without frost: the set cbar has none\.$"):
        make_set(arguments)
    assert not (tmp_path / "set").exists()
    assert make_set([*arguments, "--corruption_set", "cbar"]) == 0
    assert len(list((tmp_path / "set").glob("*.npy"))) == 10 + 1  # and labels.npy


@pytest.mark.parametrize(
    "size", [(62, 62), (63, 63), (32, 400), (700, 40), (64, 64), (495, 900), (601, 70), (400, 1000)]
)
def test_frost_covers_images_of_every_size(size):
    if "frost" not in HERE:
        pytest.skip("imagecorruptions-imaug (frost's pictures) is not installed")
    sizes = frost_pictures.frost_sizes(*size, size_class((1, *size, 3)).frost_scale)
    assert len(sizes) == 5
    assert all(height > size[0] and width > size[1] for height, width, _ in sizes)
    frosty = corrupt(np.zeros((3, *size, 3), np.uint8), "frost", 5)
    assert (frosty.std((1, 2, 3)) > 1).all()


@pytest.mark.parametrize("name", HERE)
def test_medium_images_in_any_split(name, photographs):
    # 96 x 128 px are ten images to a chunk.
    images = np.repeat(photographs[96, 128], 3, axis=0)
    whole = corrupt(images, name, 4, seed=11)
    for keys in ([23], [4, 12, 5]):
        np.testing.assert_array_equal(corrupt(images[keys], name, 4, seed=11, indices=np.array(keys)), whole[keys])
    assert (whole != images).any((1, 2, 3)).all()


@pytest.mark.process
def test_frost_imports_no_code_of_the_package_and_no_opencv(tmp_path):
    """OpenCV's wheels need display libraries that servers lack; the pictures are read as data."""
    code = (
        "import sys, numpy as np; from fastmagn.corruptions import corrupt, available_corruptions;"
        "'frost' in available_corruptions() and corrupt(np.zeros((1, 32, 32, 3), np.uint8), 'frost', 1);"
        "assert not {'cv2', 'skimage', 'imagecorruptions', 'torch'} & set(sys.modules)"
    )
    run(["-c", code], tmp_path)
