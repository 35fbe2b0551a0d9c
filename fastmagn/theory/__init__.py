"""The paper's section 3.1 in numbers: Fisher information, curvature and loss deviation about an image.

`python -m fastmagn.theory RUN [RUN ...] --out DIR` compares trained runs, `measure_geometry` measures any model, and
`curvature` and `smoothing` hold what the equations and proofs speak of, for studies on small networks.
"""

from fastmagn.theory.measure import GeometryConfig, measure_geometry

__all__ = ["GeometryConfig", "measure_geometry"]
