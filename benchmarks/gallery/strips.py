"""A strip: images side by side, each with a label below it."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL_PX, GAP_PX, LABEL_PX = 112, 4, 18
BACKGROUND, INK = "#20252b", "#e8eaed"  # the same on light and dark pages
_TEXT_PX = 12
_QUALITY = 55


def cell(image_u8: np.ndarray, side_px: int = CELL_PX) -> Image.Image:
    """An image uint8 [H, H, 3] at another side: the mean of whole squares of pixels, or whole squares for a pixel."""
    assert max(len(image_u8), side_px) % min(len(image_u8), side_px) == 0
    return Image.fromarray(image_u8).resize((side_px, side_px), Image.Resampling.BOX)


def strip(images_u8: Sequence[np.ndarray], labels: Sequence[str], side_px: int = CELL_PX) -> Image.Image:
    """Images uint8 [H, H, 3], side by side at a side of `side_px`, with their labels."""
    width = GAP_PX + len(labels) * (side_px + GAP_PX)
    picture = Image.new("RGB", (width, GAP_PX + side_px + LABEL_PX), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for i, (image_u8, label) in enumerate(zip(images_u8, labels, strict=True)):
        left = GAP_PX + i * (side_px + GAP_PX)
        picture.paste(cell(image_u8, side_px), (left, GAP_PX))
        assert font(_TEXT_PX).getlength(label) <= side_px + GAP_PX, f"the label is too long: {label}"
        middle = (left + side_px // 2, GAP_PX + side_px + LABEL_PX // 2)
        pen.text(middle, label, fill=INK, font=font(_TEXT_PX), anchor="mm")
    return picture


def save(picture: Image.Image, path: Path, quality: int = _QUALITY) -> None:
    """Write a picture as WebP; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="WEBP", quality=quality, method=6)


@cache
def font(size_px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size_px)
