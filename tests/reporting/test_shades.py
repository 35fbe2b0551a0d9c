"""The colours of heat maps: dark is failure, one hue, and text can be read on all of them, by WCAG's own formula."""

import colorsys
import re
from itertools import pairwise

import numpy as np
import pytest

from fastmagn.reporting.shades import NUM_SHADES, accuracy_shades, failure_map, ink, luminance, style_sheet


def plain_luminance(colour):
    """WCAG 2.2's definition of relative luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((plain_luminance(one), plain_luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_accuracy_is_one_hue_from_dark_to_pale(dark):
    shades = accuracy_shades(dark)
    assert len(shades) == NUM_SHADES
    lights = [plain_luminance(shade) for shade in shades]
    assert all(low < high for low, high in pairwise(lights))
    hues = [colorsys.rgb_to_hls(*(int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0] for shade in shades]
    assert max(hues) - min(hues) < 0.12  # of the whole circle
    assert lights[0] < 0.05
    assert lights[-1] > (0.6 if dark else 0.85)


@pytest.mark.parametrize("dark", [False, True])
def test_the_fourier_maps_colours_are_those_of_the_tables(dark):
    ends = [tuple(np.round(255 * np.array(failure_map(dark)(value)[:3])).astype(int)) for value in (1.0, 0.0)]
    shades = accuracy_shades(dark)
    assert ends == [tuple(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in (shades[0], shades[-1])]


def test_the_ink_on_any_colour_has_contrast():
    random = np.random.default_rng(0)
    for pixels in random.integers(0, 256, (500, 3)):
        colour = "#" + "".join(f"{value:02x}" for value in pixels)
        assert luminance(colour) == pytest.approx(plain_luminance(colour))
        chosen = ink(colour)
        assert contrast(colour, chosen) == pytest.approx(max(contrast(colour, each) for each in ("#000000", "#ffffff")))
        assert contrast(colour, chosen) >= 4.5


def test_every_rule_of_the_style_sheet_has_contrast():
    rules = re.findall(r"\.([sd]\d+) \{ background: (#[0-9a-f]{6}); color: (#[0-9a-f]{6}); \}", style_sheet())
    assert len(rules) == 2 * (NUM_SHADES + 17)
    for name, background, colour in rules:
        assert contrast(background, colour) >= 4.5, name
