"""Numba kernels of fastmagn: arrays in, arrays out. Imports nothing of fastmagn."""
