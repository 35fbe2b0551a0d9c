"""Fixtures of the tests of data."""

from tests.helpers.photo_folders import photo_folder

__all__ = ["photo_folder"]
