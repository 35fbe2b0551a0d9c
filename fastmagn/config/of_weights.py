"""The fields of a configuration that `evaluate --weights FILE` sets where no word of the command line does."""

from pathlib import Path

_MAX_METHOD_CHARS = 100  # as in a report


def weights_fields(weights: Path) -> dict[str, str]:
    """The name of the file stands for the method, which is unknown."""
    return {"method": weights.stem[:_MAX_METHOD_CHARS], "train.amp": "float32"}
