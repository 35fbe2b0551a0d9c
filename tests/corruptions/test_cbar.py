"""C-bar's corruptions: pixel by pixel those of plain code on the same draws, and the sets."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plain_cbar import LEVELS, PLAIN_CBAR
from fastmagn.config.corruption_sets import SET_NAMES, set_parts
from fastmagn.corruptions import CORRUPTION_SETS, CORRUPTIONS, corrupt
from fastmagn.corruptions.sets import CIFAR_CBAR, IMAGENET_CBAR, are_covered, in_order, set_members, sets_to_show
from fastmagn.errors import InputError
from tests.helpers.kernel_draws import KernelDraws
from tests.helpers.tiers import slow_but

SEED = 3
NAMES = tuple(PLAIN_CBAR)
# Where the rounding of SciPy's sums decides between two levels: a channel of chromatic aberration is smoothed by
# multiples of 1/36, and half of these fall between levels in one of 36 pixels.
EQUAL_SHARE = {"transverse_chromatic_abberation": 0.985}


def plain(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    draws = (KernelDraws(name, severity, SEED, i) for i in range(len(images)))
    return np.stack([PLAIN_CBAR[name](image, severity, rng) for image, rng in zip(images, draws, strict=True)])


def assert_same(images: np.ndarray, name: str, severity: int, equal_share: float = 0.999) -> None:
    difference = np.abs(corrupt(images, name, severity, seed=SEED).astype(int) - plain(images, name, severity))
    assert difference.max() <= 1
    assert (difference == 0).mean() >= EQUAL_SHARE.get(name, equal_share)


@pytest.mark.parametrize("severity", slow_but([1, 2, 3, 4, 5], 1, 5))
@pytest.mark.parametrize("name", NAMES)
def test_is_the_plain_computation_on_the_same_draws(name, severity, pictures):
    assert_same(pictures[:12], name, severity)


@pytest.mark.parametrize("severity", slow_but([1, 2, 3, 4, 5], 5))
@pytest.mark.parametrize("name", NAMES)
def test_large_images(name, severity, photographs):
    assert_same(photographs[96, 128][:2], name, severity)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (20, 51), (33, 12)], ids=str)
def test_other_sizes(name, size):
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    assert_same(images, name, 3, equal_share=0.98)  # few pixels, and one in the middle, which a turn does not move


def test_is_what_the_official_code_gives():
    """The file was made by the authors' code (facebookresearch/augmentation-corruption), commit ba4d5a5.

    Its draws were replaced by those of seed 3 and sample 0, as KernelDraws does; the image is a gradient of 32 x 32 px
    with a bright disk. The numbers are the corrupted image's levels at every fifth pixel.
    """
    y, x = np.mgrid[:32, :32]
    image = np.stack([8 * y, 8 * x, np.where((y - 12) ** 2 + (x - 18) ** 2 < 64, 230, 40)], axis=-1).astype(np.uint8)
    expected = json.loads(Path(__file__).with_name("official_cbar.json").read_text())
    assert set(expected) == set(CIFAR_CBAR)
    for name, by_severity in expected.items():
        for severity, levels in by_severity.items():
            ours = corrupt(image[None], name, int(severity), seed=SEED)[0, ::5, ::5].astype(int)
            assert np.abs(ours - np.array(levels)).max() <= 1, (name, severity)


@pytest.mark.parametrize("name", NAMES)
def test_draws_differ_between_images_and_have_the_plain_codes_distribution(name, pictures):
    images = np.repeat(pictures[:1], 400, axis=0)
    ours = corrupt(images, name, 3, seed=SEED).astype(float)
    rng = np.random.default_rng(1)
    plain_code = np.stack([PLAIN_CBAR[name](pictures[0], 3, rng) for _ in range(100)]).astype(float)
    for measure in (
        lambda a: a.mean((1, 2, 3)),
        lambda a: a.std((1, 2, 3)),
        lambda a: a[:, 4:28, 4:28].mean((1, 2, 3)),
    ):
        first, second = measure(ours), measure(plain_code)
        spread = np.sqrt(first.var() / len(first) + second.var() / len(second))
        assert abs(first.mean() - second.mean()) <= 4.5 * spread + 0.05


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"pinch_and_twirl", "plasma_noise", "lines"}))
def test_severity_grows(name, pictures):
    images = pictures[:200]
    distance = [abs(corrupt(images, name, s).astype(float) - images).mean() for s in (1, 2, 3, 4, 5)]
    assert np.all(np.diff(distance) > 0)


def test_every_number_of_lines_of_the_table():
    black = np.zeros((40, 32, 32, 3), np.uint8)
    covered = [(corrupt(black, "lines", s) > 0).mean() for s in (1, 2, 3, 4, 5)]
    assert np.all(np.diff(covered) > 0)
    assert covered[0] > 0.02


def test_sets():
    assert len(CIFAR_CBAR) == len(IMAGENET_CBAR) == 10
    assert set(CIFAR_CBAR) | set(IMAGENET_CBAR) == set(LEVELS) == set(CORRUPTIONS) - set(CORRUPTION_SETS["c19"])
    assert set_members("cbar", 32, 32) == set_members("cbar", 63, 400) == CIFAR_CBAR
    assert set_members("cbar", 64, 64) == set_members("cbar", 224, 224) == IMAGENET_CBAR
    assert set_members("c15+cbar", 32, 32) == CORRUPTION_SETS["c15"] + CIFAR_CBAR
    assert set_members("c15+c18", 32, 32) == CORRUPTION_SETS["c15"] + CORRUPTION_SETS["c18"][14:] + ()
    assert set_members("cbar+c15+cbar", 32, 32) == CIFAR_CBAR + CORRUPTION_SETS["c15"]


@pytest.mark.parametrize("value", ["c12", "c15+", "", "c15,cbar", "c15 + cbar", None, ["c15"]])
def test_unknown_sets(value):
    with pytest.raises(
        InputError, match="expected one of c15, c18, c19, cbar, or a corruption such as fog, or several of these"
    ):
        set_parts("corruption_set", value)


def test_the_configuration_knows_every_set():
    assert set(SET_NAMES) == {*CORRUPTION_SETS, "cbar"}


def test_what_complete_sets_cover():
    assert sets_to_show(CIFAR_CBAR)["cbar"] == CIFAR_CBAR
    assert sets_to_show(IMAGENET_CBAR)["cbar"] == IMAGENET_CBAR
    assert "cbar" not in sets_to_show(CIFAR_CBAR[1:])
    assert are_covered(CORRUPTION_SETS["c15"] + CIFAR_CBAR, CORRUPTION_SETS["c15"] + CIFAR_CBAR)
    assert not are_covered((*CIFAR_CBAR, "fog"), (*CIFAR_CBAR, "fog"))
    assert not are_covered(CIFAR_CBAR[1:], CIFAR_CBAR)
    assert in_order(["zebra", "ripple", "fog", "antelope", "fog"]) == ["fog", "ripple", "antelope", "zebra"]
