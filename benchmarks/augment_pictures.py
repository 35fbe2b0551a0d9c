"""A page of pictures for `benchmarks.augment`: each backend's view for the same parameters, and where it differs."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.per_image_augmix import TWO_VIEWS
from fastmagn.augment.params import identity_base, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig

GAIN = 8  # differences are small: one level of 255 would be invisible


def save_pictures(path: Path, images_u8: Tensor, augment: AugmentConfig, backends: list[str]) -> None:
    """Write a PNG with one row per image. Columns: original, Pillow's view, each backend's view and its difference.

    Args:
        path: The file; its folder is created.
        images_u8: uint8 [B, 3, H, W].
        augment: Settings, such as AugMix's strength.
        backends: Names in `augment.views.BACKENDS`.
    """
    params = sample_view_params(0, 0, np.arange(len(images_u8)), TWO_VIEWS, augment, tuple(images_u8.shape[2:]))
    params = identity_base(params)

    def first_augmix_view(backend: str) -> np.ndarray:
        views = make_views(images_u8, params, backend)
        return views.chunk(params.view_spec.num_views)[1].permute(0, 2, 3, 1).cpu().numpy()

    reference = first_augmix_view("pil")
    columns = {"original": images_u8.permute(0, 2, 3, 1).cpu().numpy() / 255, "Pillow reference": reference}
    for backend in backends:
        view = first_augmix_view(backend)
        difference = np.abs(view - reference)
        columns[backend] = view
        columns[f"{backend}: {GAIN} x difference\n(largest {255 * difference.max():.1f} of 255)"] = GAIN * difference
    rows = len(images_u8)
    figure = Figure(figsize=(1.7 * len(columns), 1.6 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=8)
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(np.clip(picture, 0, 1), interpolation="nearest")
            axes[row, column].set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
