"""Readers of corrupted (-C) sets."""
