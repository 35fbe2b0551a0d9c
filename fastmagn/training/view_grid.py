"""RUN/views.png: the first views that the method trains on, one row per image and one column per view."""

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

NUM_IMAGES = 8
_CELL_PX = 96  # smaller images are enlarged to about this
_GAP_PX, _TITLE_PX = 4, 18


def view_grid(views: Tensor, titles: list[str]) -> Image.Image:
    """The grid of the first images of a batch.

    Args:
        views: float [V*B, 3, H, W], as the model is given them; pixels are clipped to [0, 1] for the picture.
        titles: The titles of the V views.
    """
    columns = [view[:NUM_IMAGES] for view in views.chunk(len(titles))]
    return draw_grid([to_u8(column) for column in columns], titles)


def to_u8(view: Tensor) -> np.ndarray:
    """A view float [N, 3, H, W] as pictures uint8 [N, H, W, 3]; pixels are clipped to [0, 1]."""
    pixels = view.detach().float().clamp(0, 1).mul(255).round().byte()
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def draw_grid(columns: list[np.ndarray], titles: list[str]) -> Image.Image:
    """Columns of uint8 [N, H, W, 3] images under their titles. Small images are enlarged without smoothing."""
    rows, height, width, _ = columns[0].shape
    scale = max(1, _CELL_PX // max(height, width))
    cell_x, cell_y = width * scale + _GAP_PX, height * scale + _GAP_PX
    grid = Image.new("RGB", (_GAP_PX + cell_x * len(columns), _TITLE_PX + cell_y * rows), "white")
    pen = ImageDraw.Draw(grid)
    for column, (images, title) in enumerate(zip(columns, titles, strict=True)):
        left = _GAP_PX + column * cell_x
        pen.text((left, 2), title, fill="black")
        for row, image in enumerate(images):
            enlarged = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            grid.paste(enlarged, (left, _TITLE_PX + row * cell_y))
    return grid
