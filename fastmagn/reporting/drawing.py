"""What the drawings of a report share: panels, bars, lines and legends."""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastmagn.reporting.figure_data import Series
from fastmagn.reporting.fonts import families
from fastmagn.reporting.looks import Style, style

SETTINGS: dict[Any, Any] = {
    "font.family": list(families()),
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


@contextmanager
def settings(**more: Any) -> Iterator[None]:
    """Draw and save with SETTINGS and these more. Characters that no font has are boxes, see `fonts.note_on_boxes`."""
    with mpl.rc_context(SETTINGS | more), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


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
    (line,) = axes.plot(
        x,
        in_percent(accuracy),
        linestyle=look.line,
        color=look.color,
        markersize=size,
        linewidth=1.5,
        label=series["label"],
        **look.of_marker(look.color, 0.6),
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
