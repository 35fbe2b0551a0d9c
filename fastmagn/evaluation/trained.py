"""The trained model of a run folder: the one reader of a finished run."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fastmagn.config.own_code import explained
from fastmagn.config.schema import Config
from fastmagn.data import ImageSet, load_data
from fastmagn.data.padding import former_padding, padded_from
from fastmagn.errors import InputError, counted
from fastmagn.machine.console import warn
from fastmagn.methods.test_time import model_for_test
from fastmagn.models import Normalised, build_model
from fastmagn.models.shapes import fits
from fastmagn.runs.checkpoint import load_model, read_checkpoint
from fastmagn.runs.code import warn_if_code_changed
from fastmagn.runs.paths import RESULTS, last_checkpoint
from fastmagn.runs.reading import check_results, read_config, read_results

MEASURES = ("num_images", "clean_accuracy", "mca", "rms_calibration_error", "subset", "corrupted_as")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's model in evaluation mode.

    Args:
        network: The network behind its normalisation: images float [B, 3, H, W] in [0, 1] -> logits [B, K].
        measured: The model that results.json measures: the network, or its method's ensemble.
        config: The run's configuration.
        class_names: K names; label k is class_names[k].
        image_size: (H, W), px.
        padded_from: (H, W) of the set's own images, px, if they are padded to `image_size`; else None.
        results: The run's results.json if it measures these weights, else None.
        has_ended: Whether the weights are those at the end of the training that the configuration asks for.
        steps: The steps that the weights were trained for.
        data_fingerprint: The fingerprint of the training images, see `ImageSet.fingerprint`.
    """

    network: Normalised
    measured: nn.Module
    config: Config
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    padded_from: tuple[int, int] | None
    results: dict[str, Any] | None
    has_ended: bool
    steps: int
    data_fingerprint: str


def load_run(
    run_dir: Path,
    *,
    config: Config | None = None,
    weights: Literal["last", "ema"] | None = None,
    image_set: ImageSet | None = None,
    device: torch.device | None = None,
) -> Trained:
    """Load the model of a run's last checkpoint. No code in the files is run.

    Args:
        run_dir: The run folder.
        config: The configuration to use in place of the run's own, such as one with another data.dir.
        weights: last or ema; None takes eval.weights of the configuration.
        image_set: Images whose classes and size the model is built for. Without them results.json says both, or, where
            it is missing, the images that the configuration names.
        device: Where the model is put, channels last; None leaves it on the CPU in the default memory format.

    Raises:
        InputError: It is not a run folder; the checkpoint is missing, damaged, or does not fit the configuration and
            the images; there are no such weights; results.json is damaged.
    """
    config = config or read_config(run_dir)
    if weights is not None:
        config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, weights=weights))
    results = _read_results(run_dir) if image_set is None else None
    warn_if_code_changed(run_dir)
    with explained(config.imports):
        class_names, image_size, padding = _classes(results, config, image_set)
    path = last_checkpoint(run_dir)
    state = read_checkpoint(path, device or torch.device("cpu"))
    options = {"num_classes": len(class_names), "image_size": image_size, "weight_names": state["model"].keys()}
    if not fits(state["model"], config.model.name, **options):
        raise InputError(f"{path}: its weights do not fit this model; check model.name and data.name.")
    # The checkpoint holds mean and standard deviation.
    with explained(config.imports):
        network = build_model(config.model.name, mean=(0.0,) * 3, std=(1.0,) * 3, **options)
    if device is not None:
        network.to(device, memory_format=torch.channels_last)
    load_model(state, network, path, config.eval.weights)
    with explained(config.imports):
        measured = model_for_test(network, config, image_size)
    has_ended = _has_ended(state, config, run_dir)
    if not has_ended:
        warn(f"{run_dir}: training has not ended. These are its weights after {counted(state['step'], 'step')}.")
    return Trained(
        network=network.eval(),
        measured=measured.eval(),
        config=config,
        class_names=class_names,
        image_size=image_size,
        padded_from=padding,
        results=results if results is not None and _measures(results, config, state["step"]) else None,
        has_ended=has_ended,
        steps=state["step"],
        data_fingerprint=state["data_fingerprint"],
    )


def _has_ended(state: dict[str, Any], config: Config, run_dir: Path) -> bool:
    """Whether a checkpoint is of the last step, and an equal average of weights has its batch statistics."""
    epoch, train = state["progress"].get("epoch"), config.train
    if 0 < train.max_steps <= state["step"]:
        return True
    if not isinstance(epoch, int) or epoch < train.epochs:
        return False
    is_average = train.swa_fraction > 0 and config.eval.weights == "ema"
    was_measured = "statistics" in state or (run_dir / RESULTS).exists()  # earlier versions kept no statistics
    return was_measured or not is_average


def _read_results(run_dir: Path) -> dict[str, Any] | None:
    """results.json; None where training has not ended."""
    file = run_dir / RESULTS
    try:
        results = read_results(file)
    except FileNotFoundError:
        return None
    check_results(results, file)
    return results


def _classes(
    results: dict[str, Any] | None, config: Config, image_set: ImageSet | None
) -> tuple[tuple[str, ...], tuple[int, int], tuple[int, int] | None]:
    """Class names, image size (H, W), and that before the padding."""
    if image_set is None and results is not None and "class_names" in results and "image_size" in results:
        return tuple(results["class_names"]), *size_in_results(results, config.data.name)
    image_set = image_set or load_data(config.data)
    images_u8 = image_set.test_images_u8
    return image_set.class_names, images_u8.shape[1:3], padded_from(images_u8)


def size_in_results(results: dict[str, Any], data_name: str) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Image size (H, W) in a results.json that has it, and that before the padding."""
    given = results.get("padded_from")
    return tuple(results["image_size"]), (given[0], given[1]) if given else former_padding(data_name)


def _measures(results: dict[str, Any], config: Config, step: int) -> bool:
    """Whether the results are those of the weights at `step`, and of the ensemble that `config` names.

    A run that is resumed after its end keeps its former results until it ends again.
    """
    measured = results["config"]["eval"]
    return results.get("steps", step) == step and all(
        measured.get(name) == getattr(config.eval, name) for name in ("weights", "test_time_flip", "rse_draws")
    )
