"""Policies: random operations of drawn strength, as tables for the kernels."""
