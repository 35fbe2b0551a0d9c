"""Draws the figures of a report: from FigureData to a Matplotlib figure, PNG or SVG. The same data give the same bytes.

A method has the same colour and marker in all figures. Its configurations differ in line style, hatch and lightness.
"""

import io
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fastmagn.reporting.figure_data import FigureData, Series
from fastmagn.reporting.names import by_kind, corruption_title, network_title

FIGURE_FORMATS = ("png", "svg")

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
}
_OTHER_STYLES = (("#661100", "8"), ("#44AA99", "H"), ("#6699CC", "1"), ("#888888", "2"))
_LINES = ("-", "--", ":", "-.", (0, (1, 4)))
_HATCHES = ("", "///", "...", "xxx", "\\\\\\")

_SETTINGS = {
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
_CLEAN_ALPHA = 0.45
_IN_PER_CHAR = 0.085  # mean width of a character of the 10 pt font
_PAPER = {"linestyle": "none", "marker": "D", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": "black"}


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


def draw(data: FigureData) -> Figure:
    """Draw a figure, in per cent. Opens no window and leaves pyplot's state alone."""
    with mpl.rc_context(_SETTINGS):
        return DRAWINGS[data.kind](data)


def to_files(data: FigureData) -> dict[str, bytes]:
    """The figure as the content of a file of each format, without date or random names."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None}}
    files = {}
    with mpl.rc_context(_SETTINGS):
        figure = DRAWINGS[data.kind](data)
        for ending in FIGURE_FORMATS:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, metadata=metadata[ending])
            files[ending] = buffer.getvalue()
    return files


def to_svg(data: FigureData) -> bytes:
    """The figure as an SVG file, the same as that of `to_files`."""
    buffer = io.BytesIO()
    with mpl.rc_context(_SETTINGS):
        DRAWINGS[data.kind](data).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def draw_accuracy_bars(data: FigureData) -> Figure:
    """Two bars per method: clean (light) and mCA."""
    labels = [_wrapped(series["label"]) for series in data.series]
    longest = max(len(line) for label in labels for line in label.splitlines())
    figure = _figure(max(5.0, max(1.0, _IN_PER_CHAR * longest + 0.15) * len(labels) + 1.2), 3.9)
    axes = figure.add_subplot()
    for position, series in enumerate(data.series):
        for side, name in ((-1, "clean"), (1, "mca")):
            _bar(axes, position + 0.2 * side, 0.38, series[name], style(series), _CLEAN_ALPHA if side < 0 else 1.0)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 20))
    _finish(axes, "y", ylabel="Accuracy (%)")
    handles = [
        Patch(color="#555555", alpha=_CLEAN_ALPHA, label="Clean"),
        Patch(color="#555555", label=f"mCA ({data.axes['corruption_set']})"),
        *_paper_handle(axes),
    ]
    _legend(figure, handles)
    return figure


def draw_calibration_bars(data: FigureData) -> Figure:
    """A clean and a corrupt panel, with the networks side by side and a bar per method."""
    networks = data.axes["networks"]
    titles = {"clean": "Clean images", "corrupt": f"Corrupted images ({data.axes['corruption_set']})"}
    places, ticks, right = {}, [], 0.0  # the place of each bar, in bars, by (label, network)
    for number in range(len(networks)):
        shown = [item["label"] for item in data.series if item["clean"][number] or item["corrupt"][number]]
        places |= {(label, number): right + i for i, label in enumerate(shown)}
        ticks.append(right + (len(shown) - 1) / 2)
        right += len(shown) + 1.2
    figure = _figure(max(6.5, 0.45 * right + 1.0), 6.2)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, part in zip(panels, titles, strict=True):
        for series in data.series:
            for number, cell in enumerate(series[part]):
                if cell is not None:
                    _bar(axes, places[series["label"], number], 0.9, cell, style(series))
        axes.set_title(titles[part], loc="left")
        axes.margins(y=0.14)
        axes.set_xlim(-1.1, right - 1.1)
        axes.set_xticks(ticks, [network_title(name) for name in networks])
        _finish(axes, "y", ylabel="RMS calibration\nerror (%)")
    looks = [(item["label"], style(item)) for item in data.series]
    patches = [Patch(facecolor=look.color, hatch=look.hatch, edgecolor="white", label=label) for label, look in looks]
    _legend(figure, [*patches, *(_paper_handle(panels[0]) or _paper_handle(panels[1]))])
    return figure


def draw_corruption_profile(data: FigureData) -> Figure:
    """A row per corruption, grouped by kind, with a marker per method."""
    kinds = by_kind(data.axes["corruptions"])
    names = [name for members in kinds.values() for name in members]
    figure = _figure(7.5, 0.29 * len(names) + 1.6)
    axes = figure.add_subplot()
    rows, places, ticks = {}, 0.0, []
    for kind, shown in kinds.items():
        if not shown:
            continue
        ticks.append((places + (len(shown) - 1) / 2, kind))
        rows |= {name: places + i for i, name in enumerate(shown)}
        places += len(shown) + 0.6
        if len(rows) < len(names):
            axes.axhline(places - 0.8, color="#AAAAAA", linewidth=0.8)
    for series in sorted(data.series, key=lambda item: item["variant"] == 0):  # first configurations on top
        look = style(series)
        points = [
            (100 * series["accuracy"][name], rows[name]) for name in names if series["accuracy"][name] is not None
        ]
        fill = look.color if series["variant"] == 0 else "white"
        if not points:
            continue
        axes.plot(
            *zip(*points, strict=True),
            linestyle="none",
            marker=look.marker,
            markersize=8,
            markeredgecolor=look.color if series["variant"] else "white",
            markerfacecolor=fill,
            markeredgewidth=0.6 if series["variant"] == 0 else 1.2,
            label=series["label"],
        )
    axes.set_yticks(list(rows.values()), [corruption_title(name) for name in rows])
    axes.set_ylim(places - 0.8, -0.8)
    for place, kind in ticks:
        axes.annotate(kind, (1.01, place), xycoords=("axes fraction", "data"), rotation=270, va="center", ha="left")
    axes.set_xlim(right=min(100.8, axes.get_xlim()[1]))
    _finish(axes, "both", xlabel="Accuracy (%), mean over severities")
    drawn = {handle.get_label(): handle for handle in axes.get_legend_handles_labels()[0]}
    _legend(figure, [drawn[series["label"]] for series in data.series if series["label"] in drawn])
    return figure


def draw_severity(data: FigureData) -> Figure:
    """One line per method."""
    figure = _figure(6.5, 4.4)
    axes = figure.add_subplot()
    for series in data.series:
        sd = [100 * value if value is not None else 0 for value in series["sd"]]
        container = _line(axes, series, data.axes["severities"], series["accuracy"])
        axes.errorbar(
            data.axes["severities"], _percent(series["accuracy"]), sd, fmt="none", ecolor=container.get_color()
        )
    axes.set_xticks(data.axes["severities"])
    ylabel = f"Accuracy (%), mean over {data.axes['corruption_set']}"
    _finish(axes, "both", xlabel="Severity (0: clean)", ylabel=ylabel)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_severity_grid(data: FigureData) -> Figure:
    """One panel per corruption."""
    names = data.axes["corruptions"]
    figure, panels = _grid(len(names), num_columns=5, panel=(2.0, 1.75))
    for axes, name in zip(panels, names, strict=True):
        for series in data.series:
            points = [
                (severity, accuracy)
                for severity, accuracy in zip(data.axes["severities"], series["accuracy"][name], strict=True)
                if accuracy is not None
            ]
            if len(points) > 1:  # severity 0 alone: the corruption was not measured
                _line(axes, series, *map(list, zip(*points, strict=True)), size=4)
        axes.set_title(corruption_title(name))
        axes.set_xticks(data.axes["severities"])
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        _finish(axes, "both")
    figure.supxlabel("Severity (0: clean)", fontsize=11)
    figure.supylabel("Accuracy (%)", fontsize=11)
    drawn = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    _legend(figure, [drawn[series["label"]] for series in data.series if series["label"] in drawn])
    return figure


def draw_reliability(data: FigureData) -> Figure:
    """One panel per method: accuracy by bins of confidence, the diagonal, and the share of predictions per bin."""
    figure, panels = _grid(len(data.series), num_columns=min(4, len(data.series)), panel=(2.6, 2.75))
    for axes, series in zip(panels, data.series, strict=True):
        look = style(series)
        filled = [i for i, count in enumerate(series["count"]) if count]
        accuracy = np.array([100 * series["accuracy"][i] for i in filled])
        confidence = np.array([100 * series["confidence"][i] for i in filled])
        share = np.array([100 * series["count"][i] / sum(series["count"]) for i in filled])
        width = 100 / series["num_bins"]
        # Bins of equal numbers of predictions have no fixed edges: their bars are at their mean confidence.
        centres = (np.array(filled) + 0.5) * width if series["binning"] == "width" else confidence
        axes.bar(centres, accuracy, 0.94 * width, color=look.color, alpha=0.55, label="Accuracy")
        axes.plot(centres, share, color="#222222", linestyle=":", linewidth=1.5, label="Share of predictions")
        axes.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=1, label="Calibrated")
        dots = {"linestyle": "none", "marker": "o", "markersize": 4, "color": "black"}
        axes.plot(centres, confidence, **dots, label="Mean confidence")
        axes.set_title(_wrapped(series["label"]))
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axes.text(3, 99, f"RMS {100 * series['rms']:.2f} %", va="top", bbox=box)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 103)
        axes.set_xticks(range(0, 101, 25))
        axes.set_yticks(range(0, 101, 25))
        _finish(axes, "both")
    figure.supxlabel("Confidence (%)", fontsize=11)
    figure.supylabel("Accuracy (%)", fontsize=11)
    _legend(figure, panels[0].get_legend_handles_labels()[0])
    return figure


def draw_training(data: FigureData) -> Figure:
    """Panels for loss, training accuracy and, if it was measured, validation accuracy."""
    panels = [("loss", "Loss"), ("train_accuracy", "Training accuracy (%)")]
    if any(value is not None for series in data.series for value in series["validation_accuracy"]):
        panels.append(("validation_accuracy", "Validation accuracy (%)"))
    figure = _figure(3.6 * len(panels), 3.7)
    drawn: dict[str, Any] = {}
    for axes, (name, title) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for series in data.series:
            points = [(epoch + 1, value) for epoch, value in zip(series["epoch"], series[name], strict=True)]
            points = [(epoch, value) for epoch, value in points if value is not None]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            look = style(series)
            marker = look.marker if len(epochs) < 12 else ""
            shown = values if name == "loss" else _percent(values)
            keys = {"color": look.color, "linestyle": look.line, "marker": marker, "label": series["label"]}
            (line,) = axes.plot(epochs, shown, markersize=4, linewidth=1.4, **keys)
            drawn.setdefault(series["label"], line)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_title(title, loc="left")
        axes.set_xlabel("Epoch")
        _finish(axes, "both")
    _legend(figure, list(drawn.values()))
    return figure


DRAWINGS: dict[str, Callable[[FigureData], Figure]] = {
    "accuracy_bars": draw_accuracy_bars,
    "calibration_bars": draw_calibration_bars,
    "corruption_profile": draw_corruption_profile,
    "severity": draw_severity,
    "severity_grid": draw_severity_grid,
    "reliability": draw_reliability,
    "training": draw_training,
}


def _figure(width_in: float, height_in: float) -> Figure:
    return Figure(figsize=(width_in, height_in), layout="constrained")


def _legend(figure: Figure, handles: list[Any]) -> None:
    """Add a legend above the panels, row by row, with as many columns as fit; nothing without handles."""
    if not handles:
        return
    longest = max(len(handle.get_label()) for handle in handles)
    fitting = max(1, int(figure.get_figwidth() / (_IN_PER_CHAR * longest + 0.65)))
    num_rows = -(-len(handles) // fitting)
    num_columns = -(-len(handles) // num_rows)
    # Matplotlib fills the legend column by column. In this order it reads row by row.
    order = [handles[i] for column in range(num_columns) for i in range(column, len(handles), num_columns)]
    figure.legend(handles=order, loc="outside upper center", ncols=num_columns)


def _grid(number: int, num_columns: int, panel: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with `number` panels, row by row, that share their axes."""
    num_rows = -(-number // num_columns)
    figure = _figure(max(5.0, panel[0] * num_columns + 0.5), panel[1] * num_rows + 0.9)
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in panels[number:]:
        spare.remove()
    for last in panels[max(0, number - num_columns) : number]:
        last.tick_params(labelbottom=True)
    return figure, list(panels[:number])


def _bar(axes: Axes, x: float, width: float, cell: dict[str, Any] | None, look: Style, alpha: float = 1.0) -> None:
    """Draw a bar with its value above it, its spread and the paper's number; nothing without a cell."""
    if cell is None:
        return
    mean, sd = 100 * cell["mean"], 100 * (cell["sd"] or 0)
    axes.bar(x, mean, width, color=look.color, alpha=alpha, hatch=look.hatch, edgecolor="white", linewidth=0)
    if sd:
        axes.errorbar(x, mean, sd, color="black", linewidth=1, capsize=2)
    top = mean + sd
    if cell["paper"] is not None:
        axes.plot(x, 100 * cell["paper"], **_PAPER, label="Paper")
        top = max(top, 100 * cell["paper"])
    axes.annotate(
        f"{mean:.1f}",
        (x, top),
        xytext=(0, 4 if cell["paper"] is None else 7),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )


def _line(axes: Axes, series: Series, x: list[int], accuracy: list[float], size: float = 6) -> Any:
    look = style(series)
    filled = {} if series["variant"] == 0 else {"markerfacecolor": "white"}
    (line,) = axes.plot(
        x,
        _percent(accuracy),
        linestyle=look.line,
        color=look.color,
        marker=look.marker,
        markersize=size,
        linewidth=1.5,
        label=series["label"],
        **filled,
    )
    return line


def _finish(axes: Axes, grid: str, xlabel: str = "", ylabel: str = "") -> None:
    axes.grid(True, axis=grid)
    if xlabel:
        axes.set_xlabel(xlabel)
    if ylabel:
        axes.set_ylabel(ylabel)


def _paper_handle(axes: Axes) -> list[Any]:
    handles, labels = axes.get_legend_handles_labels()
    return [handle for handle, label in zip(handles, labels, strict=True) if label == "Paper"][:1]


def _percent(values: Any) -> list[float]:
    return [100 * value for value in values]


def _wrapped(label: str) -> str:
    """A label in short lines, for a bar or a panel: the differences go below the method."""
    return label.replace(" (", "\n(").replace(", ", ",\n")
