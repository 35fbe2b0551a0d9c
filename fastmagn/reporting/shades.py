"""The colours of heat maps. Accuracy has one hue from pale to dark, where dark is failure, on light and dark pages.

The page's style sheet and Matplotlib's figures take them from here. The text on a shade is black or white, whichever
has the greater contrast by WCAG 2; that is 4.5 or more on any colour.
"""

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, to_hex, to_rgb

NUM_SHADES = 16  # of accuracy
DIFFERENCE_STEPS = 8  # shades on each side of zero
# ColorBrewer's RdBu; on a dark page orange to blue through its grey. Blue is better; safe for colour-blind eyes.
DIFFERENCES = (
    *("#a21328", "#bd2d35", "#d05548", "#e17860", "#f19e7d", "#f8bb9e", "#fdd9c4", "#fae8de", "#f6f7f7"),
    *("#e3edf3", "#cfe4ef", "#acd2e5", "#8ac0db", "#5fa5cd", "#3e8cbf", "#2b73b3", "#1b5a9c"),
)
DARK_DIFFERENCES = (
    *("#ee8f5c", "#d78357", "#bf7751", "#a86b4b", "#8f5f46", "#765240", "#5d453a", "#413733", "#22272c"),
    *("#2c3b4a", "#354c64", "#3d5d7c", "#456d94", "#4d7cab", "#558bc2", "#5d9ad8", "#64a9ee"),
)


_PALEST, _PALEST_ON_DARK = 0.08, 0.3  # where the ramp begins: on a dark page white would glare


def failure_map(dark: bool = False) -> Colormap:
    """Matplotlib's map of error: pale at none, dark where every prediction is wrong. ColorBrewer's Purples."""
    places = np.linspace(_PALEST_ON_DARK if dark else _PALEST, 1, 256)
    return ListedColormap(mpl.colormaps["Purples"](places), "failure")


def accuracy_shades(dark: bool = False) -> list[str]:
    """The NUM_SHADES colours of accuracy as #rrggbb, from the lowest (dark) to the highest (pale)."""
    colours = failure_map(dark)
    return [to_hex(colours(1 - i / (NUM_SHADES - 1))) for i in range(NUM_SHADES)]


def ink(background: str) -> str:
    """The colour of text on a colour #rrggbb: #000000 or #ffffff, whichever has the greater contrast."""
    light = luminance(background)
    return "#000000" if (light + 0.05) ** 2 >= 1.05 * 0.05 else "#ffffff"


def luminance(colour: str) -> float:
    """The relative luminance of a colour #rrggbb, 0..1, as WCAG 2 defines it."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def style_sheet() -> str:
    """CSS rules: `.sN` are the shades of accuracy, `.dN` those of differences, for light and dark pages."""
    dark = "\n".join([*_rules("s", accuracy_shades(dark=True)), *_rules("d", DARK_DIFFERENCES)])
    rules = [*_rules("s", accuracy_shades()), *_rules("d", DIFFERENCES)]
    return "\n".join(rules) + f"\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"


def _rules(kind: str, colours: list[str] | tuple[str, ...]) -> list[str]:
    return [f".{kind}{i} {{ background: {colour}; color: {ink(colour)}; }}" for i, colour in enumerate(colours)]
