"""Policies, erased areas and noise patches on numba-cuda, bit for bit those of the CPU engine."""
