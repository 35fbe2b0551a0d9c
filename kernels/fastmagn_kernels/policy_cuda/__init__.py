"""The CUDA engine: policies, erasing and noise patches on numba-cuda, bit for bit what `policy_cpu` makes."""
