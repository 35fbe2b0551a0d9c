"""The report as one self-contained HTML page: the template, style and script of assets/, with all pictures inside.

All text of run folders goes through the template's autoescape. The page's Content-Security-Policy allows only its own
script, style and pictures.
"""

import base64
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fastmagn import __version__
from fastmagn.errors import counted
from fastmagn.reporting import heat_maps, shades
from fastmagn.reporting.experiments import Experiment, measured_severities
from fastmagn.reporting.figure_data import FigureData
from fastmagn.reporting.figures import to_svg
from fastmagn.reporting.formats import headers, printed_rows
from fastmagn.reporting.gallery import ImagesOf, gallery, images_loader
from fastmagn.reporting.mistakes import mistakes
from fastmagn.reporting.names import network_title
from fastmagn.reporting.pictures import svg_address
from fastmagn.reporting.provenance import (
    command,
    differing_fields,
    environments,
    report_command,
    runs_table,
    whole_config,
)
from fastmagn.reporting.unlike import UNLIKE

MOST_OPEN = 8  # further warnings are folded in the page, and counted on the terminal
_WIDE_PT = 600  # figures that are wider have the whole width of the page


def to_page(data_sets: Sequence[Any], warnings: Sequence[str], drawn: Mapping[str, bytes], out: Path) -> str:
    """The whole page.

    Args:
        data_sets: The `document.DataSetReport`s.
        warnings: What was left out, one line each.
        drawn: The figures as SVG, by name.
        out: The report's folder, for the command that repeats the report.
    """
    environment = Environment(
        loader=PackageLoader("fastmagn.reporting", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"headers": headers, "printed_rows": printed_rows, "shade": heat_maps.shade}
    environment.globals |= {
        "num_shades": shades.NUM_SHADES,
        "unlike_title": UNLIKE,
        "difference_steps": shades.DIFFERENCE_STEPS,
    }
    environment.filters |= {"percent": percent, "signed": signed, "zipped": _zipped}
    style, script = f"{_asset('report.css')}\n{shades.style_sheet()}", _asset("report.js")
    images_of = images_loader()
    return environment.get_template("report.html.j2").render(
        version=__version__,
        style=style,
        script=script,
        policy=_policy(style, script),
        warnings=warnings,
        most_open=MOST_OPEN,
        data_sets=[_data_set(number, item, drawn, images_of) for number, item in enumerate(data_sets)],
        report_command=report_command([one for item in data_sets for one in item.experiments], out),
    )


def percent(value: float) -> str:
    """A fraction in per cent with one decimal."""
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference of fractions in percentage points, with one decimal and a sign; 0.0 has no sign."""
    text = f"{100 * value:+.1f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8").strip()


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows only this style, this script and inlined pictures."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {source(script)}"


def _data_set(number: int, data_set: Any, drawn: Mapping[str, bytes], images_of: ImagesOf) -> dict[str, Any]:
    """What the template needs for one data set."""
    experiments = data_set.experiments
    measured = measured_severities(experiments)
    maps = [heat_maps.heat_map(experiment, measured) for experiment in experiments]
    chosen, base = heat_maps.chosen_pair(experiments)
    difference, bound = heat_maps.difference_map(maps[chosen], maps[base])
    diagrams = _single_diagrams(data_set.figures)
    items = [
        {
            "label": _label(experiment, experiments),
            "num_runs": len(experiment.runs),
            "heat": heat,
            "diagrams": diagrams.get((experiment.network, experiment.label), {}),
            "gallery": gallery(experiment.runs[0], images_of),
            "mistakes": mistakes(_with_logits(experiment), images_of),
            "configs": [(str(run.path), whole_config(run)) for run in experiment.runs],
            "commands": [command(run) for run in experiment.runs],
        }
        for experiment, heat in zip(experiments, maps, strict=True)
    ]
    summary, *tables = data_set.tables
    header, *runs = runs_table(experiments)
    return {
        "id": f"set{number}",
        "title": data_set.title,
        "items": items,
        "chosen": chosen,
        "base": base,
        "lowest": heat_maps.darkest(maps),
        "difference": difference,
        "bound": bound,
        "summary": summary,
        "tables": [table for table in tables if not table.section],
        "more_tables": [table for table in tables if table.section],
        "figures": _figures(data_set.figures, drawn),
        "differing": differing_fields(experiments),
        "runs": {"header": header, "rows": runs},
        "environments": environments(experiments),
        "headlines": data_set.headlines,
        "unlike": data_set.unlike,
        "sentence": _sentence(experiments),
    }


def _label(experiment: Experiment, experiments: Sequence[Experiment]) -> str:
    """The label of an experiment, with its network if there are several networks."""
    several = len({item.network for item in experiments}) > 1
    return f"{experiment.label}, {network_title(experiment.network)}" if several else experiment.label


def _sentence(experiments: Sequence[Experiment]) -> str:
    """One line that says what is compared."""
    runs = counted(sum(len(experiment.runs) for experiment in experiments), "run")
    networks = dict.fromkeys(network_title(experiment.network) for experiment in experiments)
    labels = dict.fromkeys(experiment.label for experiment in experiments)
    return f"{', '.join(labels)} on {', '.join(networks)}; {runs}."


def _with_logits(experiment: Experiment) -> Any:
    """The first run of an experiment that has stored logits, else its first run."""
    return next((run for run in experiment.runs if os.path.isdir(run.logits)), experiment.runs[0])


def _addresses(figure: FigureData, svg: bytes) -> dict[str, str]:
    """The addresses of a figure's drawings: `address` on wide screens, `narrow`, and in dark mode `dark`.

    A map of shades has drawings of its own for dark pages, because dark means failure there too.
    """
    addresses = {"address": svg_address(svg), "narrow": svg_address(to_svg(figure, narrow=True))}
    if figure.kind == "fourier":
        addresses["dark"] = svg_address(to_svg(figure, dark=True))
        addresses["narrow_dark"] = svg_address(to_svg(figure, narrow=True, dark=True))
    return addresses


def _zipped(lists: Iterable[Iterable[Any]]) -> Iterator[tuple[Any, ...]]:
    return zip(*lists, strict=True)


def _width_pt(svg: bytes) -> float:
    """The width that an SVG file of Matplotlib's says."""
    found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)
    return float(found[1]) if found else 0.0


def _figures(figures: Sequence[FigureData], drawn: Mapping[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """The figures by kind, each with the addresses of its drawings."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for figure in figures:
        shown: dict[str, Any] = {"title": figure.title, "caption": figure.caption, "kind": figure.kind}
        shown |= _addresses(figure, drawn[figure.name]) | {"is_wide": _width_pt(drawn[figure.name]) > _WIDE_PT}
        by_kind.setdefault(figure.kind, []).append(shown)
    return by_kind


def _single_diagrams(figures: Sequence[FigureData]) -> dict[tuple[str, str], dict[str, str]]:
    """(network, label) -> the address of its reliability diagram by what it shows, clean or corrupt images."""
    addresses: dict[tuple[str, str], dict[str, str]] = {}
    for figure in figures:
        if figure.kind == "reliability":
            for series in figure.series:
                one = dataclasses.replace(figure, series=(series,), axes=figure.axes | {"has_legend": False})
                place = addresses.setdefault((figure.axes["network"], series["label"]), {})
                place[figure.axes["shown"]] = svg_address(to_svg(one))
    return addresses
