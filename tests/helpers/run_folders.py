"""Small run folders, made without training: what export and load read."""

from pathlib import Path

import numpy as np
import torch

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, plain, to_yaml
from fastmagn.machine.files import write_json, write_text
from fastmagn.models import Normalised, build_model
from fastmagn.runs.checkpoint import save_checkpoint
from fastmagn.runs.paths import last_checkpoint
from fastmagn.runs.progress import Progress

CLASS_NAMES = tuple(str(digit) for digit in range(10))
MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)


def randomised_model(name: str, seed: int) -> Normalised:
    """A network whose running statistics and weights are not those of a new one."""
    model = build_model(name, num_classes=10, mean=MEAN, std=STD, seed=seed)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return model.eval()


def made_results(config: Config, **changed) -> dict:
    return {
        "num_images": 599,
        "clean_accuracy": 0.9876,
        "mca": {"c15": 0.8765, "c18": None, "c19": None},
        "corruption_accuracy": {"fog": [0.9, 0.8, 0.7, 0.6, 0.5]},
        "rms_calibration_error": {
            **{"clean": 0.0123, "corrupt": 0.0456, "corruption_set": "c15"},
            **{"num_bins": 15, "binning": "width", "pooling": "pooled"},
        },
        "class_names": list(CLASS_NAMES),
        "image_size": [32, 32],
        "config": plain(config),
        **changed,
    }


def write_run(
    folder: Path, config: Config, step: int = 0, progress: Progress | None = None, **models: Normalised
) -> None:
    """A run folder of a run that is at `step`: config.yaml, and a checkpoint of `model` and, if given, `average`.

    Without its position, the training has ended.
    """
    write_text(folder / "config.yaml", to_yaml(config))
    save_checkpoint(
        last_checkpoint(folder),
        step=step,
        progress=progress or Progress(epoch=config.train.epochs),
        config=flatten(config),
        data_fingerprint="none",
        optimizer={},
        scaler={},
        **{name: model.state_dict() for name, model in models.items()},
    )


def make_run(folder: Path, *arguments: str, results: bool = True) -> tuple[Config, Normalised]:
    """A run folder of an untrained network; its config, and the model that it names; the average is of seed 2."""
    config = parse_config(["--run_dir", str(folder), *arguments], "test", "A test.")
    model, average = randomised_model(config.model.name, 1), randomised_model(config.model.name, 2)
    write_run(folder, config, model=model, **({"average": average} if config.train.ema_decay else {}))
    if results:
        write_json(folder / "results.json", made_results(config))
    return config, (average if config.eval.weights == "ema" else model)


def plain_probabilities(model: Normalised, images_u8: np.ndarray) -> np.ndarray:
    """float64 [B, K], of the network behind a normalisation written out here."""
    double = model.network.double()
    images = torch.from_numpy(images_u8.astype(np.float64) / 255)
    normalised = (images - torch.tensor(MEAN, dtype=torch.float64)) / torch.tensor(STD, dtype=torch.float64)
    with torch.no_grad():
        logits = double(normalised.permute(0, 3, 1, 2)).numpy()
    model.network.float()
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
