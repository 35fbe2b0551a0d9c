"""Readers of -C sets."""
