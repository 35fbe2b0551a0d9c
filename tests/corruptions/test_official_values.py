"""All corruptions against values that the published sets' own scripts computed.

`official_values.npz` holds, by the side of the image, uint8 [19 corruptions, severities 1, 3 and 5, 24 pixels, RGB]. It
was made with the functions of make_cifar_c.py (32 and 45 px), make_tinyimagenet_c.py (64 and 83 px) and
make_imagenet_c.py (131 and 224 px) of hendrycks/robustness, commit 8190fe3, on the image of `picture`, with these
changes only. NumPy's and scikit-image's draws are those of our random stream for seed 3 and index 5. Names that NumPy,
SciPy and scikit-image have renamed are the new ones. In the three scripts' other size, the numbers of px are replaced,
and 244 by 244/224 of the side. Levels after a motion blur by ImageMagick 6.9.11-60 are read from its memory, where they
are rounded; its PNG writer truncates them.
"""

from pathlib import Path

import numpy as np
import pytest

from fastmagn.corruptions import CORRUPTION_SETS, available_corruptions, corrupt

VALUES = Path(__file__).with_name("official_values.npz")
SEVERITIES = (1, 3, 5)
NUM_PLACES = 24


def picture(side: int) -> np.ndarray:
    """Stripes, ramps and edges: uint8 [side, side, 3], the same on every machine."""
    y, x = np.mgrid[:side, :side]
    return np.stack([(y * y // 9 + 5 * x) % 256, abs(2 * x - y) * 3 % 256, (x ^ y) * 4 % 256], axis=-1).astype(np.uint8)


def places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that are compared; they include a corner and all borders."""
    k = np.arange(NUM_PLACES)
    return k * (side - 1) // (NUM_PLACES - 1), k * 7 % NUM_PLACES * (side - 1) // (NUM_PLACES - 1)


@pytest.mark.parametrize("side", [32, 45, 64, 83, 131, 224])
def test_is_what_the_script_computes_from_the_same_draws(side):
    names = CORRUPTION_SETS["c19"]
    here = available_corruptions()
    with np.load(VALUES) as values:
        official = dict(zip(names, values[str(side)], strict=True))
    image = picture(side)[None]
    for name in names:
        if name not in here:
            continue
        for severity, expected in zip(SEVERITIES, official[name], strict=True):
            got = corrupt(image, name, severity, seed=3, indices=np.array([5]))[0][places(side)]
            assert abs(got.astype(int) - expected).max() <= 1, (name, severity)
