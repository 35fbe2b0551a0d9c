"""What the drawings of a report share: the look of methods, panels, bars, lines and legends.

A method has the same colour and marker in all figures. Its configurations differ in line style, hatch and lightness.
"""

import textwrap
import zlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastmagn.reporting.figure_data import Series

# The paper's methods have Okabe and Ito's colours, the others Paul Tol's "muted" ones. Both suit colour-blind readers.
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
    "afa": ("#99DDFF", "1"),
    "afa_jsd": ("#BBCC33", "2"),
    "afa_augmix": ("#EE8866", "3"),
    "noisymix": ("#AAAA00", "4"),
    "augmix_no_jsd": ("#3399FF", ">"),
    "apr": ("#774411", "^"),
    "hybridaugment": ("#22BB88", "D"),
    "prime": ("#5E3C99", "P"),
    "prime_no_jsd": ("#FF99AA", "p"),
    "gaussian_noise": ("#88CCEE", "s"),
    "augmix_noise": ("#AA3377", "o"),
}
_OTHER_STYLES = (("#6699CC", "1"), ("#888888", "2"))
_LINES = ("-", "--", ":", "-.", (0, (1, 4)))
_HATCHES = ("", "///", "...", "xxx", "\\\\\\")

SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "fastmagn",
    "savefig.dpi": 150,
    "text.parse_math": False,  # a run's name may hold dollars
}
# For a figure that keeps its colours on a dark page; the colours are those of assets/report.css.
DARK: dict[Any, Any] = {f"{name}.facecolor": "#14171a" for name in ("figure", "axes", "savefig")}
DARK |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#e4e7ea")
NARROW_IN = 3.8  # the width of a phone's figure, at which its text has its own size
NARROW_PANEL = (1.7, 1.6)  # of two panels side by side in it
IN_PER_CHAR = 0.085  # mean width of a character of the 10 pt font
_LINE_IN, _ROW_GAP_IN = 0.17, 0.07  # the height of a legend's line and the gap between its rows
_LEGEND_SHARE = 0.25
_PANEL_CHARS = 22  # of a line above a small panel
_PAPER: dict[str, Any] = {"linestyle": "none", "marker": "D", "markersize": 5}
_PAPER |= {"markerfacecolor": "white", "markeredgecolor": "black"}


class Style(NamedTuple):
    """The look of one experiment."""

    color: str
    marker: str
    line: Any
    hatch: str


def style(series: Series) -> Style:
    """The colour and marker of the method, the line and hatch of the variant. Unknown methods get theirs by name."""
    color, marker = (
        METHOD_STYLES.get(series["method"]) or _OTHER_STYLES[zlib.crc32(series["method"].encode()) % len(_OTHER_STYLES)]
    )
    variant = series["variant"] % len(_LINES)
    return Style(color, marker, _LINES[variant], _HATCHES[variant])


def new_figure(width_in: float, height_in: float) -> Figure:
    return Figure(figsize=(width_in, height_in), layout="constrained")


def add_legend(figure: Figure, handles: list[Any]) -> None:
    """Add a legend above the panels, row by row, with as many columns as fit; nothing without handles.

    Where it would take more than _LEGEND_SHARE of the figure's height, the figure becomes taller.
    """
    if not handles:
        return
    most_chars = int((figure.get_figwidth() - 0.65) / IN_PER_CHAR)
    for handle in handles:
        handle.set_label("\n".join(textwrap.fill(line, most_chars) for line in handle.get_label().splitlines()))
    lines = [handle.get_label().splitlines() or [""] for handle in handles]
    longest = max(len(line) for label in lines for line in label)
    fitting = max(1, int(figure.get_figwidth() / (IN_PER_CHAR * longest + 0.65)))
    num_rows = -(-len(handles) // fitting)
    num_columns = -(-len(handles) // num_rows)
    # Matplotlib fills the legend column by column. In this order it reads row by row.
    order = [handles[i] for column in range(num_columns) for i in range(column, len(handles), num_columns)]
    rows = [lines[i : i + num_columns] for i in range(0, len(lines), num_columns)]
    height_in = sum(_ROW_GAP_IN + _LINE_IN * max(map(len, row)) for row in rows)
    figure.set_figheight(figure.get_figheight() + max(0, height_in - _LEGEND_SHARE * figure.get_figheight()))
    figure.legend(handles=order, loc="outside upper center", ncols=num_columns)


def add_legend_of_drawn(figure: Figure, panels: Sequence[Axes], series: Sequence[Series]) -> None:
    """Add a legend of those series that some panel shows, in their order."""
    drawn = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    add_legend(figure, [drawn[item["label"]] for item in series if item["label"] in drawn])


def panel_grid(
    number: int, num_columns: int, panel: tuple[float, float], sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with `number` panels, row by row, that share their axes; the vertical one only if `sharey`."""
    num_rows = -(-number // num_columns)
    least = 5.0 if num_columns * panel[0] > NARROW_IN else NARROW_IN
    figure = new_figure(max(least, panel[0] * num_columns + 0.5), panel[1] * num_rows + 0.9)
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=sharey, squeeze=False).ravel()
    for spare in panels[number:]:
        spare.remove()
    for last in panels[max(0, number - num_columns) : number]:
        last.tick_params(labelbottom=True)
    return figure, list(panels[:number])


def draw_bar(
    axes: Axes,
    place: float,
    width: float,
    cell: dict[str, Any] | None,
    look: Style,
    alpha: float = 1.0,
    across: bool = False,
) -> None:
    """Draw a bar with its value at its end, its spread and the paper's number; nothing without a cell.

    It is at `place` of the horizontal axis, or of the vertical one if it is drawn `across`.
    """
    if cell is None:
        return
    mean, sd = 100 * cell["mean"], 100 * (cell["sd"] or 0)
    bar = axes.barh if across else axes.bar
    bar(place, mean, width, color=look.color, alpha=alpha, hatch=look.hatch, edgecolor="white", linewidth=0)

    def point(value: float) -> tuple[float, float]:
        return (value, place) if across else (place, value)

    if sd:
        spread: dict[str, Any] = {"xerr" if across else "yerr": sd}
        axes.errorbar(*point(mean), **spread, color="black", linewidth=1, capsize=2)
    top = mean + sd
    if cell["paper"] is not None:
        axes.plot(*point(100 * cell["paper"]), **_PAPER, label="Paper")
        top = max(top, 100 * cell["paper"])
    gap = 4 if cell["paper"] is None else 7
    side: dict[str, Any] = {"ha": "left", "va": "center"} if across else {"ha": "center"}
    offset = (gap, 0) if across else (0, gap)
    axes.annotate(f"{mean:.1f}", point(top), xytext=offset, textcoords="offset points", fontsize=8, **side)


def label_rows(axes: Axes, labels: Sequence[str], places: Sequence[float] = (), **style: Any) -> None:
    """Name the rows of horizontal bars, the first one at the top."""
    axes.set_yticks(places or range(len(labels)), labels, **({"va": "center"} | style))
    axes.invert_yaxis()


def draw_line(axes: Axes, series: Series, x: list[int], accuracy: list[float], size: float = 6) -> Any:
    look = style(series)
    filled: dict[str, Any] = {} if series["variant"] == 0 else {"markerfacecolor": "white"}
    (line,) = axes.plot(
        x,
        in_percent(accuracy),
        linestyle=look.line,
        color=look.color,
        marker=look.marker,
        markersize=size,
        linewidth=1.5,
        label=series["label"],
        **filled,
    )
    return line


def finish(axes: Axes, grid: Literal["both", "x", "y"], xlabel: str = "", ylabel: str = "") -> None:
    axes.grid(True, axis=grid)
    if xlabel:
        axes.set_xlabel(xlabel)
    if ylabel:
        axes.set_ylabel(ylabel)


def paper_handle(axes: Axes) -> list[Any]:
    handles, labels = axes.get_legend_handles_labels()
    return [handle for handle, label in zip(handles, labels, strict=True) if label == "Paper"][:1]


def in_percent(values: Any) -> list[float]:
    return [100 * value for value in values]


def in_two_lines(title: str) -> str:
    """A corruption's title in up to two lines that fit above a panel; what is longer ends with dots."""
    return textwrap.fill(title, _PANEL_CHARS, max_lines=2, placeholder=" …")


def wrapped(label: str) -> str:
    """A label in short lines, for a bar or a panel: the differences go below the method."""
    return label.replace(" (", "\n(").replace(", ", ",\n")
