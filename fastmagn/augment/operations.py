"""The versioned table of AugMix's operations: what each id in `AugMixParams.ops` does, and what its magnitude means.

The operations are google-research/augmix's on Pillow (augmentations.py): bilinear, black fill, uint8. The ids and the
same level -> magnitude rule, compiled, are in `fastmagn_kernels.random.draws`; a test holds the two together.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One AugMix operation.

    Args:
        id: Its number in `ViewParams.ops`.
        name: Its name.
        unit: The magnitude's unit; "none" if the operation has no magnitude.
        magnitude: (level in [0.1, 10), height, width) -> unsigned magnitude.
        signed: Whether a fair coin gives the magnitude's sign.
        overlaps_corruptions: Whether it overlaps the corruptions of the test sets; it is then off by default.
    """

    id: int
    name: str
    unit: str
    magnitude: Callable[[float, int, int], float]
    signed: bool = False
    overlaps_corruptions: bool = False


def _enhance_factor(level: float, _height: int, _width: int) -> float:
    return level * 1.8 / 10 + 0.1


OPERATIONS: tuple[Operation, ...] = (
    Operation(id=0, name="autocontrast", unit="none", magnitude=lambda level, h, w: 0),
    Operation(id=1, name="equalize", unit="none", magnitude=lambda level, h, w: 0),
    Operation(id=2, name="posterize", unit="bits", magnitude=lambda level, h, w: 4 - int(level * 4 / 10)),
    Operation(id=3, name="rotate", unit="deg", magnitude=lambda level, h, w: int(level * 30 / 10), signed=True),
    Operation(id=4, name="solarize", unit="threshold", magnitude=lambda level, h, w: 256 - int(level * 256 / 10)),
    Operation(id=5, name="shear_x", unit="px per px", magnitude=lambda level, h, w: level * 0.3 / 10, signed=True),
    Operation(id=6, name="shear_y", unit="px per px", magnitude=lambda level, h, w: level * 0.3 / 10, signed=True),
    Operation(
        id=7, name="translate_x", unit="px", magnitude=lambda level, h, w: int(level * (w / 3) / 10), signed=True
    ),
    Operation(
        id=8, name="translate_y", unit="px", magnitude=lambda level, h, w: int(level * (h / 3) / 10), signed=True
    ),
    Operation(id=9, name="color", unit="factor", magnitude=_enhance_factor, overlaps_corruptions=True),
    Operation(id=10, name="contrast", unit="factor", magnitude=_enhance_factor, overlaps_corruptions=True),
    Operation(id=11, name="brightness", unit="factor", magnitude=_enhance_factor, overlaps_corruptions=True),
    Operation(id=12, name="sharpness", unit="factor", magnitude=_enhance_factor, overlaps_corruptions=True),
)

NUM_AUGMIX_OPERATIONS = sum(not op.overlaps_corruptions for op in OPERATIONS)
