"""The numba kernels of fastmagn: arrays in, arrays out. They import nothing of fastmagn."""
