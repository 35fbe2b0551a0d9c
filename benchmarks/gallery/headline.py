"""README's picture: a photograph in all its views, and the accuracies of two runs by corruption and severity.

Coordinates are in pixels of the picture as README shows it; it is drawn with twice as many, for sharp screens.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.gallery.methods import views_in_one_step
from benchmarks.gallery.numbers import JUDGED_BY
from benchmarks.gallery.photos import CREDIT, temple
from benchmarks.gallery.strips import font
from fastmagn.corruptions import SEVERITIES
from fastmagn.reporting.heat_maps import shade
from fastmagn.reporting.names import corruption_title, data_title, method_title, network_title
from fastmagn.reporting.shades import NUM_SHADES, accuracy_shades, ink

SCALE = 2
WIDTH_PX, HEIGHT_PX = 900, 476
QUALITY = 80
VIEWS_OF = "magn_augmix"
_BACKGROUND, _INK, _SOFT = "#ffffff", "#1b1f24", "#57606a"
_MARGIN_PX, _VIEW_PX, _STEP_PX = 14, 136, 10
_NAMES_PX, _TOP_PX, _ROW_PX, _CELL_PX = 446, 70, 20, 42
_MAPS_PX = (452, 678)


def headline(baseline: dict[str, Any], best: dict[str, Any]) -> Image.Image:
    """The picture of two runs, as `numbers.read_numbers` returns them."""
    picture = Image.new("RGB", (SCALE * WIDTH_PX, SCALE * HEIGHT_PX), _BACKGROUND)
    page = _Page(picture)
    _draw_views(page)
    lowest = darkest([baseline, best])
    _draw_legend(page, lowest)
    _draw_notes(page, best)
    page.text(_NAMES_PX - 10, 20, f"{data_title(best['data'])}, accuracy in %", 11, color=_SOFT, anchor="rm")
    page.text(_NAMES_PX, 60, "severity", 11, color=_SOFT, anchor="rm")
    for row, name in enumerate(best["corruption_accuracy"]):
        page.text(_NAMES_PX, _middle(row), corruption_title(name), 12, anchor="rm")
    for left, run in zip(_MAPS_PX, (baseline, best), strict=True):
        _draw_map(page, left, run, lowest)
    return picture


def darkest(runs: list[dict[str, Any]]) -> float:
    """The accuracy of the darkest shade: the lowest of all, rounded down to a tenth."""
    return np.floor(10 * min(min(row) for run in runs for row in run["corruption_accuracy"].values())) / 10


class _Page:
    """Draws in the coordinates of the picture as it is shown."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture, self.pen = picture, ImageDraw.Draw(picture)

    def text(
        self, x: float, y: float, text: str, size_px: int, *, color: str = _INK, bold: bool = False, anchor: str = "lm"
    ) -> None:
        self.pen.text((SCALE * x, SCALE * y), text, fill=color, font=font(SCALE * size_px, bold), anchor=anchor)

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        corner = (SCALE * (x + width) - 1, SCALE * (y + height) - 1)
        self.pen.rectangle(((SCALE * x, SCALE * y), corner), fill=color)

    def image(self, x: int, y: int, side_px: int, image_u8: np.ndarray) -> None:
        side = SCALE * side_px
        self.picture.paste(
            Image.fromarray(image_u8).resize((side, side), Image.Resampling.LANCZOS), (SCALE * x, SCALE * y)
        )


def _draw_views(page: _Page) -> None:
    page.text(_MARGIN_PX, 20, "One image, all its views", 15, bold=True)
    views, labels, _ = views_in_one_step(VIEWS_OF, 0)
    for i, (view, label) in enumerate(zip([temple(), *views], ["clean", *labels], strict=True)):
        x = _MARGIN_PX + i % 2 * (_VIEW_PX + _STEP_PX)
        y = 38 + i // 2 * (_VIEW_PX + 22)
        page.image(x, y, _VIEW_PX, view)
        page.text(x + _VIEW_PX / 2, y + _VIEW_PX + 10, label, 12, anchor="mm")


def _draw_legend(page: _Page, lowest: float) -> None:
    width = (2 * _VIEW_PX + _STEP_PX) / NUM_SHADES
    for i, color in enumerate(accuracy_shades()):
        page.box(_MARGIN_PX + i * width, 372, width, 12, color)
    page.text(_MARGIN_PX, 394, f"{100 * lowest:.0f} %", 12)
    page.text(_MARGIN_PX + NUM_SHADES * width / 2, 394, "accuracy: dark is failure", 12, anchor="mm")
    page.text(_MARGIN_PX + NUM_SHADES * width, 394, "100 %", 12, anchor="rm")


def _draw_notes(page: _Page, run: dict[str, Any]) -> None:
    lines = (
        f"{data_title(run['data'])}, {network_title(run['network'])}, {run['epochs']} epochs, seed {run['seed']};",
        f"{run['num_images']:,} test images. {JUDGED_BY}: all but gaussian noise.",
        CREDIT,
    )
    for i, line in enumerate(lines):
        page.text(_MARGIN_PX, 420 + 17 * i, line, 11, color=_SOFT)


def _draw_map(page: _Page, left: float, run: dict[str, Any], lowest: float) -> None:
    totals = f"mCA {JUDGED_BY} {100 * run['mca'][JUDGED_BY]:.1f}   clean {100 * run['clean_accuracy']:.1f}"
    page.text(left, 20, method_title(run["method"]), 15, bold=True)
    page.text(left, 40, totals, 13)
    for column, severity in enumerate(SEVERITIES):
        page.text(left + (column + 0.5) * _CELL_PX, 60, str(severity), 11, color=_SOFT, anchor="mm")
    shades = accuracy_shades()
    for row, accuracies in enumerate(run["corruption_accuracy"].values()):
        for column, accuracy in enumerate(accuracies):
            color = shades[shade(accuracy, lowest)]
            x = left + column * _CELL_PX
            page.box(x, _TOP_PX + row * _ROW_PX, _CELL_PX - 1, _ROW_PX - 1, color)
            text = f"{100 * accuracy:.0f}"
            page.text(x + (_CELL_PX - 1) / 2, _middle(row), text, 11, color=ink(color), anchor="mm")


def _middle(row: int) -> float:
    return _TOP_PX + row * _ROW_PX + _ROW_PX / 2
