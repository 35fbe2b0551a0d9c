"""Kernels compiled ahead: which there are, and processes that compile them into the cache that all runs share."""
