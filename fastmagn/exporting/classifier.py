"""Use a trained classifier: `fastmagn.load(NAME_OR_FILE).predict(images)`.

Shape letters: B batch, K classes, H W image.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.errors import InputError, as_integer, check, counted
from fastmagn.evaluation.class_names import Classes
from fastmagn.evaluation.trained import load_run
from fastmagn.exporting.images import as_batch, as_sequence
from fastmagn.exporting.info import ModelInfo, model_info
from fastmagn.exporting.onnx_file import read_onnx
from fastmagn.exporting.safetensors_file import read_safetensors
from fastmagn.machine.hardware import indexed, precision
from fastmagn.models.published import published_file, published_names


class Prediction(NamedTuple):
    """The most probable class of each image, int64 [B], and the probabilities of all classes, float32 [B, K]."""

    labels: np.ndarray
    probabilities: np.ndarray


class Classifier:
    """A trained model with everything that it needs to classify images. `load` makes one.

    Args:
        logits: (uint8 [B, H, W, 3], or float32 [B, 3, H, W] in [0, 1]) -> logits float32 [B, K].
        info: What the file says about the model: network, data, method, results and more.
    """

    def __init__(self, logits: Callable[[np.ndarray], np.ndarray], info: ModelInfo) -> None:
        self._logits = logits
        self.info = info

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names; label k is class_names[k]."""
        return self.info.class_names

    @property
    def trained_for(self) -> Classes:
        """The classes, and the data set that they are of: what `evaluate_robustness` compares a dataset with."""
        return Classes(self.class_names, self.info.data, repr(self))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W), px."""
        return self.info.image_size

    def predict(self, images: Any, *, batch_size: int = 256, resize: bool = False) -> Prediction:
        """Classify images.

        Args:
            images: An array or tensor of `image_size`, uint8 or float in [0, 1], [B, H, W, 3] or [B, 3, H, W]; or a
                list of image files and Pillow images (or a single one). These are converted to RGB and turned upright
                by their EXIF orientation. If `info.padded_from` is a size, images of that size are padded as the run's
                were.
            batch_size: Images per forward pass, 1 or more.
            resize: Resize files and Pillow images: the shorter side is resized to `info.resize_px` (bicubic), and the
                centre is cut out, as for the run's test images; so are images that already have `image_size`. A model
                for small images sees little of a photograph that way.

        Returns:
            labels int64 [B] and probabilities float32 [B, K], computed in float32.

        Raises:
            InputError: The images are of another kind, size or range; a file cannot be read.
        """
        batch_size = as_integer("batch_size", batch_size, range(1, sys.maxsize), "an integer, 1 or more")
        images = as_sequence(images)
        parts = [np.empty((0, self.info.num_classes), np.float32)]
        for first in range(0, len(images), batch_size):
            batch = as_batch(images[first : first + batch_size], self.info, resize)
            parts.append(torch.from_numpy(self._logits(batch)).softmax(dim=1).numpy())
        probabilities = np.concatenate(parts)
        return Prediction(probabilities.argmax(axis=1), probabilities)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, as a network gives them: `evaluate_robustness(classifier, images_u8, labels)` measures them.

        Args:
            images: Float [B, 3, H, W] in [0, 1].

        Returns:
            float32 [B, K] on the images' device, without gradients.

        Raises:
            InputError: The images are of another size or range.
        """
        return torch.from_numpy(self._logits(as_batch(images, self.info, False))).to(images.device)

    def __repr__(self) -> str:
        info, (height, width) = self.info, self.image_size
        return f"Classifier({info.network}, {counted(info.num_classes, 'class')} of {info.data}, {height}x{width} px)"


def load(file: str | Path, device: str = "auto") -> Classifier:
    """Load a trained classifier: a published one, a file of `fastmagn.export`, or a run. No code in it is run.

    Examples:
        >>> import numpy as np
        >>> import fastmagn
        >>> classifier = fastmagn.load("runs/digits-magn_augmix-resnet_small-seed0")
        >>> classifier
        Classifier(resnet_small, 10 classes of digits, 32x32 px)
        >>> labels, probabilities = classifier.predict(np.zeros((2, 32, 32, 3), np.uint8))
        >>> labels.shape, probabilities.shape
        ((2,), (2, 10))

    Args:
        file: A name of `fastmagn.list_models()`; FILE.safetensors; FILE.onnx (runs in onnxruntime, which needs the
            extra `onnx`); or a run folder, whose eval.weights says which weights are loaded. A folder or file that is
            named like a published classifier is loaded in its place.
        device: auto (CUDA if there is a device), cpu or cuda.

    Raises:
        InputError: The file does not exist, is none of these, or is damaged; or the device does not exist.
    """
    path = Path(file)
    check(device in ("auto", "cpu", "cuda"), "device", device, "auto, cpu or cuda")
    if not _exists(path):
        path = published_file(path) or path
    if not (path.exists() or path.suffix):
        raise InputError(f"{path}: no such folder; expected the folder of a run, a file, or {published_names(path)}")
    if path.is_dir():
        trained = load_run(path)
        return Classifier(_in_torch(trained.measured, device), model_info(trained))
    if path.suffix not in (".safetensors", ".onnx"):
        raise InputError(f"{path}: expected NAME.safetensors, NAME.onnx, or a run folder.")
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; python -m fastmagn.export --run RUN --format FORMAT --out FILE makes one."
        )
    if path.suffix == ".onnx":
        return Classifier(*read_onnx(path, device))
    model, info = read_safetensors(path)
    return Classifier(_in_torch(model, device), info)


def _exists(path: Path) -> bool:
    """Raises InputError if that cannot be known, as for a name that is too long."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a run folder or a file.") from error


def _in_torch(model: nn.Module, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Move a model in evaluation mode to the device; returns its function from images to logits."""
    has_cuda = torch.cuda.is_available()
    check(device != "cuda" or has_cuda, "device", device, "cpu or auto, as PyTorch finds no CUDA device here")
    place = indexed(torch.device("cuda" if has_cuda and device != "cpu" else "cpu"))
    return _InTorch(model.to(place).to(memory_format=torch.channels_last), place)


@dataclass(frozen=True)
class _InTorch:
    """What `Classifier` calls, in float32 whatever the caller's autocast; it can be pickled."""

    model: nn.Module
    place: torch.device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.array(images)).to(self.place)
        if batch.dtype == torch.uint8:
            batch = batch.permute(0, 3, 1, 2).float().div_(255)
        with torch.inference_mode(), precision(self.place, "float32"):
            return self.model(batch).float().cpu().numpy()
