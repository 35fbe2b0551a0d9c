"""The paper's section 3.1 in numbers: Fisher information, curvature and loss deviation near an image.

`python -m fastmagn.theory RUN [RUN ...] --out DIR` compares trained runs. `measure_geometry` measures any model.
`curvature` and `smoothing` hold the quantities of the equations and proofs, for studies on small networks.
"""

from fastmagn.registry import lazy_attributes

__all__ = ["GeometryConfig", "measure_geometry"]

# Imported when used: the command's --help must not wait for PyTorch.
_PUBLIC = {
    "GeometryConfig": "fastmagn.theory.config:GeometryConfig",
    "measure_geometry": "fastmagn.theory.measure:measure_geometry",
}
__getattr__ = lazy_attributes(__name__, _PUBLIC)
