"""A strip for each corruption, at its five severities, and one for each perturbation sequence, frame by frame."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.gallery.photos import temple
from benchmarks.gallery.strips import cell, strip
from fastmagn.corruptions import CORRUPTIONS, PERTURBATIONS, SEVERITIES, corrupt
from fastmagn.corruptions.sequences import SIDE_PX, perturb

NUM_FRAMES = 8
_FRAME_PX = 64


def pictures() -> Iterator[tuple[str, Image.Image]]:
    """The pictures, each after its name."""
    for name in CORRUPTIONS:
        shown = [corrupt(temple()[None], name, severity)[0] for severity in SEVERITIES]
        yield f"corruptions/{name}", strip(shown, [f"severity {severity}" for severity in SEVERITIES])
    small = np.asarray(cell(temple(), SIDE_PX))
    for name in PERTURBATIONS:
        frames = perturb(small[None], name)[0]
        chosen = np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)
        labels = [f"frame {frame + 1}" for frame in chosen]
        yield f"perturbations/{name}", strip([*frames[chosen]], labels, _FRAME_PX)
