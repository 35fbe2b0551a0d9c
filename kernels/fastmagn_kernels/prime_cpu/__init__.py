"""PRIME's views on numba: filters, colour curves and displacements in float64, and their mixture."""
