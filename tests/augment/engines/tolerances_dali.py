"""How far the DALI backend's operations may be from Pillow's; measured on the CPU by test_dali.py, which prints it.

Over 14 pictures at every magnitude that can be drawn, at 32x32, 20x33, 1x1 and (fewer) 224x180, and over 1,000
CIFAR images. No value is more than one level off. Most of the shears' 0.6 % come from shears of 1e-9, where Pillow
truncates from just below an integer: without those the shares at 32x32 are below 0.02 %.
"""

from typing import NamedTuple


class Tolerance(NamedTuple):
    """Of uint8 values, three a pixel.

    Args:
        max_levels: The largest difference.
        differing: The share that differs at all, 0..1.
    """

    max_levels: int
    differing: float


EXACT = Tolerance(0, 0.0)

TOLERANCES = {
    "autocontrast": EXACT,
    "equalize": EXACT,
    "posterize": EXACT,
    "rotate": Tolerance(1, 0.005),
    "solarize": EXACT,
    "shear_x": Tolerance(1, 0.007),
    "shear_y": Tolerance(1, 0.007),
    "translate_x": EXACT,
    "translate_y": EXACT,
    "color": EXACT,
    "contrast": EXACT,
    "brightness": EXACT,
    "sharpness": EXACT,
}
