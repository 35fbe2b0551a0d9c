"""What weights that fastmagn exported say about their model, for the command that measures them.

PyTorch is imported only if there is such a file.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmagn.config.schema import Config
from fastmagn.data import ENCODED
from fastmagn.models.published import SUFFIX, published_file

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
    return {"data.name": info.data, "data.image_size": info.image_size[0], "model.name": info.network}


def resized_alike(info: "ModelInfo", config: Config) -> Config:
    """The config, with the file's `data.eval_resize_px` where images of the file's size are cut out of larger ones."""
    data = config.data
    if data.name not in ENCODED or data.eval_resize_px or data.image_size != info.image_size[0]:
        return config
    from fastmagn.data.files.decoding import resize_px

    if info.resize_px == resize_px(data):
        return config  # the default may be above the largest length that can be given
    return replace(config, data=replace(data, eval_resize_px=info.resize_px))
