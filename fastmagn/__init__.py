"""fastmagn: corruption-robust image classifiers (MAGN, AugMix) trained at the speed of the model.

For other people's training loops: `AugMix`, `MAGNLoss`, `jensen_shannon`.
"""

from typing import Any

from fastmagn.registry import resolve

__version__ = "0.1.0"
__all__ = ["AugMix", "MAGNLoss", "jensen_shannon"]

# Imported when asked for: a command like `python -m fastmagn.corrupt` must not pay for the others.
_PUBLIC = {
    "AugMix": "fastmagn.augment.augmix:AugMix",
    "MAGNLoss": "fastmagn.losses:MAGNLoss",
    "jensen_shannon": "fastmagn.losses:jensen_shannon",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return resolve(_PUBLIC, name, "fastmagn")
    raise AttributeError(f"module 'fastmagn' has no attribute {name!r}")
