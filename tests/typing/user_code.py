"""A user's program that has every public name, with its types. It is type-checked, and not run."""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import fastmagn
from fastmagn import (
    AugMix,
    AutoAugment,
    MAGNLoss,
    RandAugment,
    TrivialAugment,
    corrupt,
    evaluate_robustness,
    jensen_shannon,
    list_models,
    load,
)
from fastmagn.config.schema import Config, LossConfig, TrainConfig
from fastmagn.data.image_set import ImageSet
from fastmagn.extend import add_corruption, add_dataset, add_method, add_model, image_set
from fastmagn.methods.method import LogitViews, LossParts, Method
from fastmagn.train import train
from fastmagn.training.callbacks import Callbacks, EpochDone, StepDone


def views(images: Tensor) -> list[Tensor]:
    out = torch.empty_like(images)
    return [augment(images, out=out) for augment in (AugMix(seed=0), AutoAugment(), RandAugment(), TrivialAugment())]


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    consistency = jensen_shannon(logits, logits, logits)
    assert_type(consistency, Tensor)
    return consistency


def measured(model: nn.Module, images_u8: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    foggy = corrupt(images_u8, "fog", 3, seed=1)
    results = evaluate_robustness(model, foggy, labels)
    return float(results["clean_accuracy"])


def predicted(images_u8: NDArray[np.uint8]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    names = list_models("*magn*")
    assert_type(names, list[str])
    classifier = load(names[0] if names else Path("model.safetensors"))
    assert_type(classifier(torch.zeros(1, 3, 32, 32)), Tensor)
    return classifier.predict(images_u8).labels, classifier.class_names


def own_data(folder: Path, download: bool) -> ImageSet:
    images_u8 = np.zeros((4, 32, 32, 3), np.uint8)
    return image_set(class_names=("a", "b"), train=(images_u8, [0, 1, 0, 1]), test=(images_u8, [0, 1, 0, 1]))


def own_loss(logits: LogitViews, targets: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    loss = nn.functional.cross_entropy(logits.clean, targets, label_smoothing=weights.label_smoothing)
    return loss, {"cross_entropy": loss}


def own_corruption(
    images_u8: NDArray[np.uint8], severity: int, seed: int, indices: NDArray[np.int64]
) -> NDArray[np.uint8]:
    return images_u8 // np.uint8(severity)


def own_network(num_classes: int) -> nn.Module:
    return nn.Linear(3, num_classes)


add_dataset("own", own_data)
add_model("own", own_network)
add_method("own", Method(title="Own", loss=own_loss, uses_noise=True))
add_corruption("own", own_corruption)

losses: list[float] = []
rows: list[dict[str, object]] = []


def on_step(done: StepDone) -> None:
    losses.append(done.parts["loss"].item())


def on_epoch(done: EpochDone) -> None:
    rows.append(dict(done.row))


if __name__ == "__main__":
    criterion = MAGNLoss()
    results = train(Config(train=TrainConfig(epochs=2)), Callbacks(on_step=on_step, on_epoch=on_epoch))
    assert_type(fastmagn.__version__, str)
    print(results["clean_accuracy"], views(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)), criterion)
