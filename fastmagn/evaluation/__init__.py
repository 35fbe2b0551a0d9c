"""Accuracy and calibration on clean and corrupted images."""
