"""What an exported file says about its model besides the weights: a line of JSON in its metadata."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from fastmagn import __version__
from fastmagn.data import ENCODED
from fastmagn.data.files.decoding import resize_px, shorter_side_px
from fastmagn.data.padding import former_padding
from fastmagn.errors import InputError
from fastmagn.evaluation.trained import MEASURES, Trained
from fastmagn.methods.rse import NoiseEnsemble
from fastmagn.models.weight_files import OUR_METADATA

FORMAT_VERSION = 2
_WITHOUT_PADDING = 1  # the version of files without padded_from, which earlier versions of fastmagn read too
METADATA_KEY = OUR_METADATA
MAX_SIDE_PX = 4096
_MAX_RESIZE_PX = shorter_side_px(MAX_SIDE_PX, 0)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A trained model, as its file's metadata and `fastmagn.load(...).info` have it.

    Args:
        network: model.name, such as resnet18 or timm:NAME.
        class_names: K names; label k is class_names[k].
        image_size: (H, W), px, of the images it was trained on; H is W.
        resize_px: Shorter side to which larger pictures are resized before their central square is cut out.
        mean: What the model subtracts from each channel, pixels in [0, 1].
        std: What it then divides by.
        data: Name of the data set.
        method: Name of the method.
        weights: last, or ema: which of the run's.
        bn_views: joint or per_view: the batches behind the running statistics, with which batch normalisation is done.
        test_time_flip: Whether logits are the mean over the image and its mirror image.
        noise_draws: Noises over which rse's ensemble averages probabilities; 0 for other methods.
        results: clean_accuracy, mca, rms_calibration_error, num_images, subset and corrupted_as of the run's
            results.json, as far as it has them; None where that measures other weights or is not there.
        fastmagn: Version that wrote the file.
        padded_from: (H, W), px, of the data set's own images if they were padded to `image_size` by repeating their
            edges; None if they were not. Larger pictures are then resized and cut to this size before they are padded.
    """

    network: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    resize_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    data: str
    method: str
    weights: str
    bn_views: str
    test_time_flip: bool
    noise_draws: int
    results: dict[str, Any] | None
    fastmagn: str
    padded_from: tuple[int, int] | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def to_json(self) -> str:
        """One line, with the format's version."""
        version = _WITHOUT_PADDING if self.padded_from is None else FORMAT_VERSION
        fields = {"format_version": version, **dataclasses.asdict(self), "num_classes": self.num_classes}
        if self.padded_from is None:
            del fields["padded_from"]
        return json.dumps(fields, allow_nan=False)


def model_info(trained: Trained) -> ModelInfo:
    """The ModelInfo of a run's model."""
    config, network, results = trained.config, trained.network, trained.results
    return ModelInfo(
        network=config.model.name,
        class_names=trained.class_names,
        image_size=trained.image_size,
        padded_from=trained.padded_from,
        resize_px=resize_px(config.data) if config.data.name in ENCODED else trained.image_size[0],
        mean=tuple(network.mean.flatten().tolist()),
        std=tuple(network.std.flatten().tolist()),
        data=config.data.name,
        method=config.method,
        weights=config.eval.weights,
        bn_views=config.model.bn_views,
        test_time_flip=config.eval.test_time_flip,
        noise_draws=sum(
            len(module.noises) for module in trained.measured.modules() if isinstance(module, NoiseEnsemble)
        ),
        results=None if results is None else {name: results[name] for name in MEASURES if name in results},
        fastmagn=__version__,
    )


def info_from_json(text: str | None, file: str) -> ModelInfo:
    """The ModelInfo of a file's metadata.

    Args:
        text: The value under METADATA_KEY, from anyone; None if there is none.
        file: Name of the file, for the errors.

    Raises:
        InputError: It is not there, of another version, or not what `to_json` writes.
    """
    if text is None:
        raise InputError(f"{file}: was not written by fastmagn.export: its metadata have no {METADATA_KEY!r}.")
    try:
        fields = json.loads(text)
        version = fields.pop("format_version")
        if version not in (_WITHOUT_PADDING, FORMAT_VERSION):
            raise InputError(
                f"{file}: got format version {version!r}; expected {_WITHOUT_PADDING} or {FORMAT_VERSION}. Use a newer"
                " fastmagn."
            )
        fields.pop("num_classes")
        for name in ("class_names", "image_size", "mean", "std"):
            fields[name] = tuple(fields[name])
        if fields.get("padded_from") is None:
            fields["padded_from"] = former_padding(fields["data"])
        else:
            fields["padded_from"] = tuple(fields["padded_from"])
        info = ModelInfo(**fields)
        _check_types(info)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: its metadata are damaged ({type(error).__name__}); export the run again.") from error
    return info


def _is_within(size: tuple[Any, ...], largest_px: int) -> bool:
    return len(size) == 2 and all(type(side) is int and 1 <= side <= largest_px for side in size)


def _check_types(info: ModelInfo) -> None:
    """Raise ValueError where a field is not of its type: the text may be from anyone."""
    texts = (info.network, info.data, info.method, info.weights, info.bn_views, info.fastmagn, *info.class_names)
    numbers = (*info.mean, *info.std)
    holds = (
        all(type(text) is str for text in texts)
        and info.num_classes > 0
        and _is_within(info.image_size, MAX_SIDE_PX)
        and info.image_size[0] == info.image_size[1]
        and type(info.resize_px) is int
        and info.image_size[0] <= info.resize_px <= _MAX_RESIZE_PX
        and (info.padded_from is None or _is_within(info.padded_from, info.image_size[0]))
        and len(info.mean) == len(info.std) == 3
        and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        and type(info.test_time_flip) is bool
        and type(info.noise_draws) is int
        and isinstance(info.results, dict | None)
    )
    if not holds:
        raise ValueError("a field of another type")
