"""The CPU engine: policies, erasing and noise patches on numba, exact against Pillow."""
