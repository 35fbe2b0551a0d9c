"""The CPU engine: AugMix on numba, exact against Pillow."""
