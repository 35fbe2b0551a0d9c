"""fastmagn: corruption-robust image classifiers (MAGN, AugMix) trained at the speed of the model."""

__version__ = "0.1.0"
