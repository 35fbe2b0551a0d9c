"""Makes the pictures of the documentation: `python -m benchmarks.gallery`."""
