"""The trained model of a run folder, and what is known of it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastmagn import __version__
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.data import ImageSet, load_data
from fastmagn.data.files.decoding import resize_px
from fastmagn.errors import InputError
from fastmagn.exporting.info import ModelInfo
from fastmagn.methods.rse import NoiseEnsemble
from fastmagn.methods.test_time import model_for_test
from fastmagn.models import Normalised, build_model
from fastmagn.runs.checkpoint import last_checkpoint, load_model, read_checkpoint

_RESULTS = ("num_images", "clean_accuracy", "mca", "rms_calibration_error")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's model on the CPU, in evaluation mode.

    Args:
        network: The network behind its normalisation: images float [B, 3, H, W] in [0, 1] -> logits [B, K].
        measured: What results.json measures: the network, or its method's ensemble.
        info: For a file's metadata.
        config: The run's.
        results: The run's results.json where it measures these weights.
    """

    network: Normalised
    measured: nn.Module
    info: ModelInfo
    config: Config
    results: dict[str, Any] | None


def load_run(run_dir: Path, weights: str | None = None) -> Trained:
    """The model of a run's last checkpoint; no code in its files is run.

    Args:
        run_dir: The run folder.
        weights: last or ema; None takes the run's eval.weights.

    Raises:
        InputError: No run folder, or without a checkpoint that fits its configuration; no such weights.
    """
    config_file = run_dir / "config.yaml"
    if not config_file.is_file():
        raise InputError(f"{run_dir}: is not a run folder: it has no config.yaml. Give one that fastmagn.train made.")
    config = parse_config(["--config", str(config_file)], "run", "A run's configuration.")
    if weights is not None:
        config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, weights=weights))
    results = _read_results(run_dir / "results.json")
    class_names, image_size = _classes(results, config)
    path = last_checkpoint(run_dir)
    state = read_checkpoint(path, torch.device("cpu"))
    network = build_model(
        config.model.name, num_classes=len(class_names), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=image_size
    )
    load_model(state, network, path, config.eval.weights)  # mean and std are in the checkpoint
    measured = model_for_test(network.eval(), config, image_size).eval()
    results = results if results is not None and _measures(results, config) else None
    info = ModelInfo(
        network=config.model.name,
        class_names=class_names,
        image_size=image_size,
        resize_px=resize_px(config.data) if config.data.name == "folder" else image_size[0],
        mean=tuple(network.mean.flatten().tolist()),
        std=tuple(network.std.flatten().tolist()),
        data=config.data.name,
        method=config.method,
        weights=config.eval.weights,
        bn_views=config.model.bn_views,
        test_time_flip=config.eval.test_time_flip,
        noise_draws=sum(len(module.noises) for module in measured.modules() if isinstance(module, NoiseEnsemble)),
        results=None if results is None else {name: results[name] for name in _RESULTS},
        fastmagn=__version__,
    )
    return Trained(network=network, measured=measured, info=info, config=config, results=results)


def _read_results(path: Path) -> dict[str, Any] | None:
    """results.json; None where the run has not come so far."""
    try:
        results = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); measure the run again.") from error
    if not isinstance(results, dict) or any(name not in results for name in (*_RESULTS, "config")):
        raise InputError(f"{path}: is not a run's results; measure the run again.")
    return results


def _classes(results: dict[str, Any] | None, config: Config) -> tuple[tuple[str, ...], tuple[int, int]]:
    """Class names and image size (H, W): from the results, as the images may not be here, or else from the images."""
    if results is not None and "class_names" in results and "image_size" in results:
        return tuple(results["class_names"]), tuple(results["image_size"])
    image_set = load_data(config.data)
    return image_set.class_names, image_set.test_images_u8.shape[1:3]


def _measures(results: dict[str, Any], config: Config) -> bool:
    """Whether the results are those of the weights and the ensemble that `config` names."""
    measured = results["config"].get("eval", {})
    return all(measured.get(name) == getattr(config.eval, name) for name in ("weights", "test_time_flip", "rse_draws"))


def load_trained(run_dir: Path, config: Config, image_set: ImageSet, device: torch.device) -> Normalised:
    """The network of a run's last checkpoint, on `device`, channels last.

    Raises:
        InputError: The checkpoint is missing, damaged, or does not fit `config` and the image set.
    """
    model = build_model(
        config.model.name,
        num_classes=image_set.num_classes,
        mean=image_set.mean,
        std=image_set.std,
        image_size=image_set.test_images_u8.shape[1:3],
    )
    model.to(device, memory_format=torch.channels_last)
    path = last_checkpoint(run_dir)
    load_model(read_checkpoint(path, device), model, path, config.eval.weights)
    return model
