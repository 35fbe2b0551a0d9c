"""The look of each experiment of a report: no two of one report look the same.

A method has the same colour and marker in all figures; NAME+magn has those of NAME, with a dark edge around the marker,
and lines and hatches of its own. Configurations of a method differ in line, hatch and the part of the marker that is
filled, and from the sixth on also in lightness.
"""

from typing import Any, Literal, NamedTuple

from matplotlib.colors import to_hex, to_rgb

from fastmagn.methods.table import base_name
from fastmagn.reporting.figure_data import Series

Fill = Literal["full", "none", "left", "right", "bottom"]

# The paper's methods have Okabe and Ito's colours, the others Paul Tol's "muted" ones. Both suit colour-blind readers.
# All markers are filled: one that is only an edge would vanish where the edge is white.
METHOD_STYLES = {
    "standard": ("#555555", "o"),
    "at": ("#E69F00", "s"),
    "trades": ("#CC79A7", "D"),
    "rse": ("#56B4E9", "^"),
    "augmix": ("#0072B2", "v"),
    "magn": ("#009E73", "P"),
    "magn_augmix": ("#D55E00", "X"),
    "cutout": ("#332288", "<"),
    "mixup": ("#117733", ">"),
    "cutmix": ("#999933", "p"),
    "autoaugment": ("#882255", "h"),
    "trivialaugment": ("#AA4499", "d"),
    "dign": ("#DDCC77", "*"),
    "randaugment": ("#44AA99", "H"),
    "ta_noise": ("#661100", "8"),
    "afa": ("#99DDFF", "<"),
    "afa_jsd": ("#BBCC33", "h"),
    "afa_augmix": ("#EE8866", "d"),
    "noisymix": ("#AAAA00", "8"),
    "augmix_no_jsd": ("#3399FF", ">"),
    "apr": ("#774411", "^"),
    "hybridaugment": ("#22BB88", "D"),
    "prime": ("#5E3C99", "P"),
    "prime_no_jsd": ("#FF99AA", "p"),
    "gaussian_noise": ("#88CCEE", "s"),
    "augmix_noise": ("#AA3377", "o"),
}
# Of the user's own methods and of measured weights, in their order.
_OTHER_COLORS = ("#6699CC", "#CC6677", "#004488", "#DDAA33", "#009988", "#EE3377", "#BBBBBB", "#7A4B00")
_OTHER_MARKERS = ("v", "s", "d", "^", "h", "X", ">")
_LINES = ("-", "--", ":", "-.", (0, (1, 4)))
_HATCHES = ("", "///", "...", "xxx", "\\\\\\")
_MAGN_LINES = tuple((0, (8, 1.5, *(1, 1.5) * dots)) for dots in range(2, 7))
_MAGN_HATCHES = ("++", "++///", "++..", "++xx", "++\\\\\\")
_FILLS: tuple[Fill, ...] = ("full", "none", "left", "right", "bottom")
_MAGN_EDGE = "#222222"
_FADE = 0.65  # of a colour that is left with each step of lightness


class Style(NamedTuple):
    """The look of one experiment: `fill` is the filled part of its marker, `edge` the colour around it or empty."""

    color: str
    marker: str
    line: Any
    hatch: str
    fill: Fill
    edge: str

    def of_marker(self, edge: str, width: float) -> dict[str, Any]:
        """Matplotlib's keys of its marker; a full one gets this edge, `width` in points, if it has none of its own."""
        is_full, is_hollow = self.fill == "full", self.fill == "none"
        return {
            "marker": self.marker,
            "fillstyle": "full" if is_hollow else self.fill,
            "markerfacecolor": "white" if is_hollow else self.color,
            "markerfacecoloralt": "white",
            "markeredgecolor": self.edge or (edge if is_full else self.color),
            "markeredgewidth": width if is_full and not self.edge else 2 * width,
        }


def style(series: Series) -> Style:
    """The look of a series, by its `method`, `variant` and, where the method is not fastmagn's, `look`."""
    base, number = base_name(series["method"]), series.get("look", 0)
    color, marker = METHOD_STYLES.get(base) or (
        _faded(_OTHER_COLORS[number % len(_OTHER_COLORS)], number // len(_OTHER_COLORS)),
        _OTHER_MARKERS[number % len(_OTHER_MARKERS)],
    )
    lines, hatches = (_LINES, _HATCHES) if base == series["method"] else (_MAGN_LINES, _MAGN_HATCHES)
    steps, variant = divmod(series["variant"], len(lines))
    edge = "" if lines is _LINES else _MAGN_EDGE
    return Style(_faded(color, steps), marker, lines[variant], hatches[variant], _FILLS[variant], edge)


def _faded(color: str, steps: int) -> str:
    """The colour, by turns darker and lighter with each step."""
    if steps == 0:
        return color
    left, aim = _FADE ** -(-steps // 2), float(steps % 2 == 0)
    red, green, blue = (left * part + (1 - left) * aim for part in to_rgb(color))
    return to_hex((red, green, blue))
