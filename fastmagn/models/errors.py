"""What the loaders of weights raise among themselves."""


class Ambiguous(ValueError):
    """Weights fit a network in their shapes, but not certainly in their meaning; the message says why."""
