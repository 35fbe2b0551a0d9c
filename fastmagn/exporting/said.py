"""What weights of fastmagn's say about their model, for the command that measures them: exported files, checkpoints.

PyTorch is imported only if there is such a file.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmagn.config.of_weights import SAID_BY_FILE, SAID_BY_RUN
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.data import ENCODED
from fastmagn.errors import InputError
from fastmagn.models.published import SUFFIX, published_file
from fastmagn.runs.paths import CONFIG, run_of_checkpoint
from fastmagn.runs.reading import read_config

if TYPE_CHECKING:
    from fastmagn.exporting.info import ModelInfo


def said_by(weights: Path) -> "ModelInfo | None":
    """What a file, or a published model's name, says about its model; None if fastmagn did not export it.

    Raises:
        InputError: What the file says is damaged, or of a newer version.
    """
    file = published_file(weights) or weights
    if file.suffix.lower() != SUFFIX or not file.is_file():
        return None
    from fastmagn.exporting.safetensors_file import read_info

    return read_info(file)


def said_fields(info: "ModelInfo") -> dict[str, Any]:
    """The fields that the file gives, by their dotted names."""
    values = (info.data, info.image_size[0], info.network, info.test_time_flip)
    return dict(zip(SAID_BY_FILE, values, strict=True))


def checkpoint_fields(weights: Path) -> dict[str, Any]:
    """The fields that the configuration of a checkpoint's run gives; none for other files."""
    run_dir = run_of_checkpoint(weights)
    if run_dir is None or not weights.is_file() or not (run_dir / CONFIG).is_file():
        return {}
    try:
        config = flatten(read_config(run_dir))
    except InputError:  # another program's
        return {}
    return {name: config[name] for name in SAID_BY_RUN}


def resized_alike(info: "ModelInfo", config: Config) -> Config:
    """The config, with the file's `data.eval_resize_px` where images of the file's size are cut out of larger ones."""
    data = config.data
    if data.name not in ENCODED or data.eval_resize_px or data.image_size != info.image_size[0]:
        return config
    from fastmagn.data.files.decoding import resize_px

    if info.resize_px == resize_px(data):
        return config  # the default may be above the largest length that can be given
    return replace(config, data=replace(data, eval_resize_px=info.resize_px))
