"""Writes the measured geometry of several runs as JSON, a table and a figure. Shape letter: M images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fastmagn.config.text import escape_markdown
from fastmagn.data.subset import BY_CLASS
from fastmagn.errors import counted
from fastmagn.machine.files import replace_file, write_json, write_text

Measured = Mapping[str, np.ndarray]

# name in `measure_geometry` -> its row in the table
ROWS = {
    "loss": "loss L, nats",
    "fisher_trace": "Tr(G), equation (8)",
    "fisher_largest_eigenvalue": "largest eigenvalue of G",
    "gradient_norm": "gradient norm, abs(grad L)",
    "hessian_trace": "Tr(H), Hutchinson's estimate",
    "curvature": "largest curvature, eigenvalue of H",
    "loss_deviation_mean": "loss deviation under noise, mean, nats",
    "loss_deviation_max": "loss deviation under noise, largest, nats",
    "loss_bound_mean": "bound (12) on it, mean, nats",
    "loss_bound_share": "share of noise within the bound",
    "noise_kl": "noise regulariser, left of (9), nats",
    "noise_kl_small_noise": "its small-noise value, right of (9), nats",
}
_COMPARED = {"curvature": "largest curvature, abs(eigenvalue of H)"}
# name in `measure_geometry` -> label of the panel's axis
PANELS = {
    "fisher_trace": r"Fisher information, $\mathrm{Tr}\,G(x)$",
    "gradient_norm": r"loss gradient, $\|\nabla_x \mathcal{L}\|_2$",
    "curvature": r"largest curvature, $|\lambda(H(x))|$",
    "loss_deviation_mean": r"loss deviation, mean $|\mathcal{L}(x+\delta)-\mathcal{L}(x)|$",
}
_LINE_STYLES = ("-", "--", "-.", ":")


def summarise(measured: Measured) -> dict[str, dict[str, float]]:
    """Mean, median and quartiles of each quantity, [M], over the images."""
    return {
        name: {
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "lower_quartile": float(np.quantile(values, 0.25)),
            "upper_quartile": float(np.quantile(values, 0.75)),
        }
        for name, values in measured.items()
    }


def compare(measured: Measured, first: Measured) -> dict[str, dict[str, float | None]]:
    """Compare each quantity, [M], with the first run's; the eigenvalue `curvature` without its sign.

    Returns:
        By quantity, `ratio_of_medians` (None if the first median is 0) and `share_below`, the share of images whose
        value is below the first run's.
    """
    compared = {}
    for name in measured:
        values, others = (np.abs(run[name]) if name == "curvature" else run[name] for run in (measured, first))
        median = float(np.median(others))
        ratio = float(np.median(values)) / median if median else None
        compared[name] = {"ratio_of_medians": ratio, "share_below": float((values < others).mean())}
    return compared


def geometry_json(
    head: dict[str, Any], runs: dict[str, dict[str, Any]], measured: Mapping[str, Measured]
) -> dict[str, Any]:
    """The content of geometry.json: `head`, and for each label the run's description in `runs` and its measurements."""
    first = next(iter(measured))
    entries = {}
    for label, values in measured.items():
        entries[label] = {**runs[label], "summary": summarise(values)}
        if label != first:
            entries[label]["against_first"] = compare(values, measured[first])
        entries[label]["per_image"] = {name: array.tolist() for name, array in values.items()}
    return {**head, "runs": entries}


def geometry_markdown(geometry: dict[str, Any]) -> str:
    """The text of geometry.md: medians, quartiles and means of each run, then each later run against the first."""
    runs, settings = geometry["runs"], geometry["settings"]
    labels, titles = list(runs), list(map(escape_markdown, runs))
    lines = [
        "# Geometry of the loss near test images",
        "",
        f"{escape_markdown(geometry['dataset'])}, {_which(geometry)}, seed {settings['seed']}; with respect to"
        f" the image, pixels in [0, 1]. Loss deviations: noise of standard deviation {settings['noise_sigma']:g}; noise"
        f" regulariser: sigma_max {settings['sigma_max']:g}; {counted(settings['num_noise'], 'draw')} per image."
        f" {_precision(settings)}",
        "",
        "Median over the images [quartiles]; mean.",
        "",
        *_table_head(["quantity", *titles]),
        _row(
            [
                "accuracy on these images",
                *(f"{100 * runs[label]['summary']['correct']['mean']:.1f} %" for label in labels),
            ]
        ),
    ]
    for name, title in ROWS.items():
        lines.append(_row([title, *(_cell(runs[label]["summary"][name]) for label in labels)]))
    if len(labels) > 1:
        heads = [f"{title}: {what}" for title in titles[1:] for what in ("ratio of medians", "images below")]
        lines += ["", f"Against {titles[0]}, image by image.", "", *_table_head(["quantity", *heads])]
        for name in (*PANELS, "noise_kl"):
            cells = [_comparison(runs[label]["against_first"][name]) for label in labels[1:]]
            lines.append(_row([_COMPARED.get(name, ROWS[name]), *(part for cell in cells for part in cell)]))
    return "\n".join(lines) + "\n"


def geometry_figure(head: dict[str, Any], measured: Mapping[str, Measured]) -> Figure:
    """Four panels with logarithmic x axes: for each run, the share of images whose value is at most x."""
    figure = Figure(figsize=(9.6, 6.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2, sharey=True).flat, PANELS.items(), strict=True):
        pooled = np.concatenate([np.abs(values[name]) for values in measured.values()])
        positive = pooled[pooled > 0]
        lowest, highest = (np.quantile(positive, 0.005), positive.max()) if len(positive) else (0.1, 1.0)
        lines = []
        for number, values in enumerate(measured.values()):
            look = {"color": f"C{number % 10}", "linestyle": _LINE_STYLES[number % len(_LINE_STYLES)]}
            magnitudes = np.abs(values[name])
            lines.append(axes.ecdf(np.maximum(magnitudes, lowest / 10), linewidth=1.8, **look))
            median = max(float(np.median(magnitudes)), lowest)
            axes.plot(median, 0.5, "o", color=look["color"], markersize=7, markeredgecolor="white")
        axes.set(xscale="log", xlim=(lowest, highest * 1.3), ylim=(0, 1.01), xlabel=title)
        axes.grid(True, which="major", color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    for axes in figure.axes[::2]:
        axes.set_ylabel("share of images at or below")
    labels = [label.replace("$", r"\$") for label in measured]
    figure.legend(lines, labels, loc="outside upper center", ncols=min(len(labels), 4), frameon=False)
    sigma = head["settings"]["noise_sigma"]
    figure.supxlabel(
        f"{head['dataset']}, {counted(head['num_images'], 'test image')}; pixels in [0, 1], loss in nats, "
        rf"$\delta$ Gaussian with $\sigma$ = {sigma:g}; dots are medians; left is smoother",
        fontsize=9,
        color="0.35",
    )
    return figure


def write_report(
    out: Path, head: dict[str, Any], runs: dict[str, dict[str, Any]], measured: Mapping[str, Measured]
) -> str:
    """Write geometry.json, geometry.md, geometry.png and geometry.svg into `out`; returns the text of geometry.md."""
    geometry = geometry_json(head, runs, measured)
    table = geometry_markdown(geometry)
    write_json(out / "geometry.json", geometry)
    write_text(out / "geometry.md", table)
    figure = geometry_figure(head, measured)
    for suffix in ("png", "svg"):
        with replace_file(out / f"geometry.{suffix}") as file:
            figure.savefig(file, format=suffix, dpi=150)
    return table


def _which(geometry: dict[str, Any]) -> str:
    chosen = geometry.get("subset", {}).get("chosen")
    count = geometry["num_images"]
    if chosen == "all":
        return f"all {counted(count, 'test image')}"
    return counted(count, "evenly drawn test image") if chosen == BY_CLASS else f"first {counted(count, 'test image')}"


def _precision(settings: dict[str, Any]) -> str:
    probes = counted(settings["num_probes"], "probe")
    products = f"eigenvalues by {counted(settings['num_iterations'], 'product')} with the matrix"
    if settings["fisher"] == "exact":
        return f"G is exact; Tr(H) by {probes}, its {products}."
    return f"Traces by {probes}, {products}."


def _table_head(cells: list[str]) -> list[str]:
    return [_row(cells), _row(["---", *["---:"] * (len(cells) - 1)])]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(summary: dict[str, float]) -> str:
    middle = f"{summary['median']:.3g} [{summary['lower_quartile']:.3g}, {summary['upper_quartile']:.3g}]"
    return f"{middle}; {summary['mean']:.3g}"


def _comparison(compared: dict[str, Any]) -> tuple[str, str]:
    ratio = compared["ratio_of_medians"]
    return "-" if ratio is None else f"{ratio:.3g}", f"{100 * compared['share_below']:.0f} %"
