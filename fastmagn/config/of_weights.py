"""The fields of a configuration that `evaluate --weights FILE` sets where no word of the command line does."""

from pathlib import Path

_MAX_METHOD_CHARS = 100  # as in a report
# What an exported file may say, also of its model alone, and what the configuration of a checkpoint's run does.
OF_MODEL = ("model.name", "eval.test_time_flip")
SAID_BY_FILE = ("data.name", "data.image_size", *OF_MODEL)
SAID_BY_RUN = (
    *(*SAID_BY_FILE, "data.dir", "data.eval_resize_px"),
    *("data.test_shards", "data.image_column", "data.label_column"),
)


def weights_fields(weights: Path) -> dict[str, str]:
    """The name of the file stands for the method, which is unknown."""
    return {"method": weights.stem[:_MAX_METHOD_CHARS], "train.amp": "float32"}
