"""The CUDA engine: AugMix on numba-cuda, bit for bit the views of the CPU engine."""
