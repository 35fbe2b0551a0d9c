"""Measure fastmagn against its alternatives: `python -m benchmarks.NAME`."""
