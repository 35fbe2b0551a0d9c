"""The paper's section 3.1 in numbers: Fisher information, curvature and loss deviation near an image.

`python -m fastmagn.theory RUN [RUN ...] --out DIR` compares trained runs. `measure_geometry` measures any model.
`curvature` and `smoothing` hold the quantities of the equations and proofs, for studies on small networks.
"""

from typing import Any

from fastmagn.registry import resolve

__all__ = ["GeometryConfig", "measure_geometry"]

# Imported when asked for: the command's --help must not wait for PyTorch.
_PUBLIC = {
    "GeometryConfig": "fastmagn.theory.config:GeometryConfig",
    "measure_geometry": "fastmagn.theory.measure:measure_geometry",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return resolve(_PUBLIC, name, "fastmagn.theory")
    raise AttributeError(f"module 'fastmagn.theory' has no attribute {name!r}")
