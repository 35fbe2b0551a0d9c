"""The names that `eval.corruption_set` joins, and the severities of `eval.severities`."""

import re
from itertools import pairwise

from fastmagn.errors import UnknownName, check, nearest

# A corruption that the user has added (`fastmagn.extend`) is a set of its own.
SET_NAMES = ["c15", "c18", "c19", "cbar"]
# Those of `fastmagn.corruptions`, which this package must not import.
CORRUPTION_NAMES = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    *("blue_noise_sample", "brownish_noise", "checkerboard_cutout", "inverse_sparkles", "sparkles"),
    *("pinch_and_twirl", "ripple", "circular_motion_blur", "lines", "transverse_chromatic_abberation"),
    *("caustic_refraction", "cocentric_sine_waves", "perlin_noise", "plasma_noise", "single_frequency_greyscale"),
)
ALL_SEVERITIES = "1,2,3,4,5"


def set_parts(field: str, value: object) -> tuple[str, ...]:
    """The names that `value` joins by +, each once: ("c15", "fog") for c15+fog.

    Raises:
        UnknownName: It is not text, or a name is unknown.
    """
    parts = tuple(dict.fromkeys(value.split("+"))) if isinstance(value, str) else ()
    known = [*SET_NAMES, *CORRUPTION_NAMES]
    unknown = [part for part in parts if part not in known]
    if unknown or not parts:
        raise UnknownName(
            f"{field}: got {value!r}; expected one of {', '.join(SET_NAMES)}, or a corruption such as fog, or several"
            f" of these joined by +, such as c15+cbar.{nearest(unknown[0], known) if unknown else ''}"
        )
    return parts


def severity_numbers(field: str, value: str | int) -> tuple[int, ...]:
    """The severities that `value` lists: (1, 3, 5) for "1,3,5".

    Raises:
        InputError: It is something else, or they do not rise.
    """
    numbers = tuple(map(int, str(value).split(","))) if re.fullmatch(r"[1-5](,[1-5])*", str(value)) else (0, 0)
    rising = all(first < second for first, second in pairwise(numbers))
    check(rising, field, value, "some of 1,2,3,4,5, rising, such as 1,3,5")
    return numbers
