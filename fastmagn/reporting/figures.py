"""Draws the figures of a report: FigureData to a Matplotlib figure, PNG or SVG. The same data give the same bytes."""

import dataclasses
import io
import textwrap
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fastmagn.reporting.drawing import (
    DARK,
    IN_PER_CHAR,
    NARROW_IN,
    NARROW_PANEL,
    add_legend,
    add_legend_of_drawn,
    draw_bar,
    draw_line,
    finish,
    in_percent,
    in_two_lines,
    label_rows,
    new_figure,
    panel_grid,
    paper_handle,
    settings,
    wrapped,
)
from fastmagn.reporting.figure_data import FigureData
from fastmagn.reporting.looks import style
from fastmagn.reporting.names import by_kind, corruption_title, network_title
from fastmagn.reporting.shades import failure_map

FIGURE_FORMATS = ("png", "svg")
_CLEAN_ALPHA = 0.45
_PAGE_IN = 10.8  # the width of a figure that has the report's page for itself
_WIDEST_IN = 16.0  # with more upright bars than fit, they are drawn across, below each other
_PHONE_CHARS = 20  # of a line, on a phone


def draw(data: FigureData, narrow: bool = False) -> Figure:
    """Draw a figure, in per cent. Opens no window and leaves pyplot's state alone.

    Args:
        data: What it shows.
        narrow: Whether it is for a phone: NARROW_IN wide, with its panels and bars below each other.
    """
    with settings():
        return _drawn(data, narrow)


def _drawn(data: FigureData, narrow: bool) -> Figure:
    return DRAWINGS[data.kind](_in_short_lines(data) if narrow else data, narrow)


def _in_short_lines(data: FigureData) -> FigureData:
    """The figure with names that fit on a phone, however long they are: foreign runs have any name."""
    series = tuple(item | {"label": textwrap.fill(item["label"], _PHONE_CHARS)} for item in data.series)
    networks = [textwrap.fill(network_title(name), _PHONE_CHARS) for name in data.axes.get("networks", ())]
    return dataclasses.replace(data, axes=data.axes | {"networks": networks}, series=series)


def to_files(data: FigureData) -> dict[str, bytes]:
    """The figure as the content of a file of each format, without date or random names."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None}}
    files = {}
    with settings():
        figure = DRAWINGS[data.kind](data, False)
        for ending in FIGURE_FORMATS:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, metadata=metadata[ending])
            files[ending] = buffer.getvalue()
    return files


def to_svg(data: FigureData, narrow: bool = False, dark: bool = False) -> bytes:
    """The figure as an SVG file; the same as that of `to_files` if it is neither narrow nor for a dark page."""
    buffer = io.BytesIO()
    with settings(**(DARK if dark else {})):
        _drawn(data, narrow).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def draw_accuracy_bars(data: FigureData, narrow: bool) -> Figure:
    """Two bars per method: clean (light) and mCA; or only the first, if the methods share no corruption.

    They stand up while they fit, and are else below each other.
    """
    has_mca = any(series["mca"] is not None for series in data.series)
    sides = {"clean": -1, "mca": 1} if has_mca else {"clean": 0}
    labels = [wrapped(series["label"]) for series in data.series]
    longest = max(len(line) for label in labels for line in label.splitlines())
    width_in = max(5.0, max(1.0, IN_PER_CHAR * longest + 0.15) * len(labels) + 1.2)
    across = narrow or width_in > _WIDEST_IN
    size = (NARROW_IN if narrow else _PAGE_IN, 0.55 * len(labels) + 1.3) if across else (width_in, 3.9)
    figure = new_figure(*size)
    axes = figure.add_subplot()
    for position, series in enumerate(data.series):
        for name, side in sides.items():
            alpha = _CLEAN_ALPHA if name == "clean" else 1.0
            draw_bar(axes, position + 0.2 * side, 0.38, series[name], style(series), alpha, across=across)
    if across:
        label_rows(axes, labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 118 if narrow else 106)
        axes.set_xticks(range(0, 101, 20))
        finish(axes, "x", xlabel="Accuracy (%)")
    else:
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylim(0, 109)
        axes.set_yticks(range(0, 101, 20))
        finish(axes, "y", ylabel="Accuracy (%)")
    handles = [
        Patch(color="#555555", alpha=_CLEAN_ALPHA, label="Clean"),
        *([Patch(color="#555555", label=f"mCA ({data.axes['corruption_set']})")] if has_mca else []),
        *paper_handle(axes),
    ]
    add_legend(figure, handles)
    return figure


def draw_calibration_bars(data: FigureData, narrow: bool) -> Figure:
    """A clean and a corrupt panel, with the networks side by side and a bar per method; below each other if narrow."""
    networks = data.axes["networks"]
    titles = {"clean": "Clean images", "corrupt": f"Corrupted images ({data.axes['corruption_set']})"}
    places: dict[tuple[str, int], float] = {}  # of each bar, in bars, by (label, network)
    ticks, right = [], 0.0
    for number in range(len(networks)):
        shown = [item["label"] for item in data.series if item["clean"][number] or item["corrupt"][number]]
        places |= {(label, number): right + i for i, label in enumerate(shown)}
        ticks.append(right + (len(shown) - 1) / 2)
        right += len(shown) + 1.2
    width_in = max(6.5, 0.45 * right + 1.0)
    across = narrow or width_in > _WIDEST_IN
    size = (NARROW_IN if narrow else _PAGE_IN, 0.5 * right + 1.6) if across else (width_in, 5.2)
    figure = new_figure(*size)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, part in zip(panels, titles, strict=True):
        for series in data.series:
            for number, cell in enumerate(series[part]):
                if cell is not None:
                    draw_bar(axes, places[series["label"], number], 0.9, cell, style(series), across=across)
        axes.set_title(titles[part], loc="left")
        names = [network_title(name) for name in networks]
        if across:
            axes.margins(x=0.14)
            label_rows(axes, names, ticks, rotation=90)
            axes.set_ylim(right - 1.1, -1.1)
            finish(axes, "x", xlabel="RMS calibration error (%)" if part == "corrupt" else "")
            continue
        axes.margins(y=0.14)
        axes.set_xlim(-1.1, right - 1.1)
        axes.set_xticks(ticks, names)
        finish(axes, "y", ylabel="RMS calibration\nerror (%)")
    looks = [(item["label"], style(item)) for item in data.series]
    patches = [Patch(facecolor=look.color, hatch=look.hatch, edgecolor="white", label=label) for label, look in looks]
    add_legend(figure, [*patches, *(paper_handle(panels[0]) or paper_handle(panels[1]))])
    return figure


def draw_corruption_profile(data: FigureData, narrow: bool) -> Figure:
    """A row per corruption, grouped by kind, with a marker per method."""
    kinds = by_kind(data.axes["corruptions"])
    names = [name for members in kinds.values() for name in members]
    figure = new_figure(NARROW_IN if narrow else 7.5, 0.29 * len(names) + 1.6)
    axes = figure.add_subplot()
    rows: dict[str, float] = {}
    places, ticks = 0.0, []
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
        if not points:
            continue
        axes.plot(
            *zip(*points, strict=True),
            linestyle="none",
            markersize=8,
            label=series["label"],
            **look.of_marker("white", 0.6),
        )
    axes.set_yticks(list(rows.values()), [corruption_title(name) for name in rows])
    axes.set_ylim(places - 0.8, -0.8)
    for place, kind in ticks:
        axes.annotate(kind, (1.01, place), xycoords=("axes fraction", "data"), rotation=270, va="center", ha="left")
    axes.set_xlim(right=min(100.8, axes.get_xlim()[1]))
    finish(axes, "both", xlabel="Accuracy (%), mean over severities")
    drawn = {handle.get_label(): handle for handle in axes.get_legend_handles_labels()[0]}
    add_legend(figure, [drawn[series["label"]] for series in data.series if series["label"] in drawn])
    return figure


def draw_severity(data: FigureData, narrow: bool) -> Figure:
    """One line per method."""
    figure = new_figure(NARROW_IN if narrow else 6.5, 4.4)
    axes = figure.add_subplot()
    for series in data.series:
        sd = [100 * value if value is not None else 0 for value in series["sd"]]
        container = draw_line(axes, series, data.axes["severities"], series["accuracy"])
        axes.errorbar(
            data.axes["severities"], in_percent(series["accuracy"]), sd, fmt="none", ecolor=container.get_color()
        )
    axes.set_xticks(data.axes["severities"])
    ylabel = f"Accuracy (%), mean over {data.axes['corruption_set']}"
    finish(axes, "both", xlabel="Severity (0: clean)", ylabel=ylabel)
    add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_severity_grid(data: FigureData, narrow: bool) -> Figure:
    """One panel per corruption."""
    names = data.axes["corruptions"]
    figure, panels = panel_grid(len(names), *((2, NARROW_PANEL) if narrow else (5, (2.0, 1.75))))
    for axes, name in zip(panels, names, strict=True):
        for series in data.series:
            points = [
                (severity, accuracy)
                for severity, accuracy in zip(data.axes["severities"], series["accuracy"][name], strict=True)
                if accuracy is not None
            ]
            if len(points) > 1:  # severity 0 alone: the corruption was not measured
                severities, accuracies = map(list, zip(*points, strict=True))
                draw_line(axes, series, severities, accuracies, size=4)
        axes.set_title(in_two_lines(corruption_title(name)))
        axes.set_xticks(data.axes["severities"])
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        finish(axes, "both")
    figure.supxlabel("Severity (0: clean)", fontsize=11)
    figure.supylabel("Accuracy (%)", fontsize=11)
    add_legend_of_drawn(figure, panels, data.series)
    return figure


def draw_reliability(data: FigureData, narrow: bool) -> Figure:
    """One panel per method: accuracy by bins of confidence, the diagonal, and the share of predictions per bin."""
    side = (2, (1.7, 1.95)) if narrow and len(data.series) > 1 else (min(4, len(data.series)), (2.6, 2.75))
    figure, panels = panel_grid(len(data.series), *side)
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
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "color": "black"}
        axes.plot(centres, confidence, **dots, label="Mean confidence")
        axes.set_title(wrapped(series["label"]))
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axes.text(3, 99, f"RMS {100 * series['rms']:.2f} %", va="top", bbox=box)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 103)
        axes.set_xticks(range(0, 101, 25))
        axes.set_yticks(range(0, 101, 25))
        finish(axes, "both")
    figure.supxlabel("Confidence (%)", fontsize=11)
    figure.supylabel("Accuracy (%)", fontsize=11)
    if data.axes.get("has_legend", True):  # the page has one for the diagrams of single methods
        add_legend(figure, panels[0].get_legend_handles_labels()[0])
    return figure


def draw_training(data: FigureData, narrow: bool) -> Figure:
    """Panels for loss, training accuracy and, if it was measured, validation accuracy."""
    panels = [("loss", "Loss"), ("train_accuracy", "Training accuracy (%)")]
    if any(value is not None for series in data.series for value in series["validation_accuracy"]):
        panels.append(("validation_accuracy", "Validation accuracy (%)"))
    shape = (len(panels), 1) if narrow else (1, len(panels))
    figure = new_figure(*((NARROW_IN, 2.6 * len(panels) + 0.6) if narrow else (_PAGE_IN, 3.7)))
    drawn: dict[str, Any] = {}
    for axes, (name, title) in zip(figure.subplots(*shape), panels, strict=True):
        for series in data.series:
            points = [(epoch + 1, value) for epoch, value in zip(series["epoch"], series[name], strict=True)]
            points = [(epoch, value) for epoch, value in points if value is not None]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            look = style(series)
            size = 4 if len(epochs) < 12 else 0
            shown = values if name == "loss" else in_percent(values)
            keys = {"color": look.color, "linestyle": look.line, "label": series["label"], "markersize": size}
            (line,) = axes.plot(epochs, shown, linewidth=1.4, **keys, **look.of_marker(look.color, 0.6))
            drawn.setdefault(series["label"], line)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_title(title, loc="left")
        axes.set_xlabel("Epoch")
        finish(axes, "both")
    add_legend(figure, list(drawn.values()))
    return figure


def draw_perturbations(data: FigureData, narrow: bool) -> Figure:
    """One panel per perturbation, each with its own scale: the share of the images that flip at each frame."""
    names = data.axes["perturbations"]
    figure, panels = panel_grid(len(names), *((2, NARROW_PANEL) if narrow else (5, (2.1, 1.75))), sharey=False)
    for axes, name in zip(panels, names, strict=True):
        for series in data.series:
            flips = series["flips"][name]
            if flips is not None:
                draw_line(axes, series, list(range(1, len(flips) + 1)), flips, size=0)
        axes.set_title(in_two_lines(corruption_title(name)))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_ylim(bottom=0)
        finish(axes, "both")
    figure.supxlabel("Frame", fontsize=11)
    figure.supylabel("Images that flip (%)", fontsize=11)
    add_legend_of_drawn(figure, panels, data.series)
    return figure


def draw_fourier(data: FigureData, narrow: bool) -> Figure:
    """One panel per method: the error at each frequency, frequency 0 in the middle, dark where the method fails."""
    num_columns = 1 if narrow else min(4, len(data.series))
    side = 4.2 if num_columns == 2 else 2.9
    figure, panels = panel_grid(len(data.series), num_columns, (side, side))
    is_dark = mpl.rcParams["text.color"] == DARK["text.color"]
    for axes, series in zip(panels, data.series, strict=True):
        first, last = series["frequencies"][0] - 0.5, series["frequencies"][-1] + 0.5
        image = axes.imshow(
            [in_percent(row) for row in series["error"]],
            extent=(first, last, last, first),
            cmap=failure_map(is_dark),
            vmin=0,
            vmax=100,
            interpolation="nearest",
        )
        axes.set_title(f"{wrapped(series['label'])}\nmean error {100 * series['mean_error']:.1f} %")
        axes.set_xlabel("Horizontal (cycles per image)")
        axes.set_ylabel("Vertical (cycles per image)")
        axes.label_outer()
    bar = figure.colorbar(image, ax=panels, shrink=0.75)
    bar.set_label("Error (%)")
    return figure


DRAWINGS: dict[str, Callable[[FigureData, bool], Figure]] = {
    "accuracy_bars": draw_accuracy_bars,
    "calibration_bars": draw_calibration_bars,
    "corruption_profile": draw_corruption_profile,
    "severity": draw_severity,
    "severity_grid": draw_severity_grid,
    "reliability": draw_reliability,
    "training": draw_training,
    "perturbations": draw_perturbations,
    "fourier": draw_fourier,
}
