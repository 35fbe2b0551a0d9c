"""Evaluations on a stored -C set as people write them, for `benchmarks.evaluate`: float32, and accuracies only.

Shape letters: M test images, S severities, H W image.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES

Accuracies = dict[str, list[float]]  # each corruption's by severity, in 0..1, and that of the clean images
Rival = Callable[["StoredImages", nn.Module, int], Accuracies]  # the last argument is the batch size
NUM_WORKERS = 2


class StoredImages:
    """Clean images and the stored ones of a -C set.

    Args:
        images_u8: Clean test images, uint8 [M, H, W, 3].
        labels: int64 [M].
        folder: Holds NAME.npy of each corruption of c19, uint8 [S M, H, W, 3].
    """

    def __init__(self, images_u8: np.ndarray, labels: np.ndarray, folder: Path) -> None:
        self.images_u8, self.labels, self.folder = images_u8, labels, folder

    def parts(self) -> Iterator[tuple[str, np.ndarray]]:
        """The clean images and each corruption with its name: uint8 [S, M, H, W, 3], S = 1 if clean, read whole."""
        yield "clean", self.images_u8[None]
        for name in CORRUPTION_SETS["c19"]:
            stored = np.load(self.folder / f"{name}.npy")
            yield name, stored.reshape(len(SEVERITIES), -1, *stored.shape[1:])[:, : len(self.labels)]


@torch.no_grad()
def plain_loop(images: StoredImages, model: nn.Module, batch_size: int) -> Accuracies:
    """A `for` over the batches of NumPy arrays."""
    device = next(model.parameters()).device
    labels = torch.from_numpy(images.labels).to(device)
    accuracies: Accuracies = {}
    for name, severities in images.parts():
        accuracies[name] = []
        for cell in severities:
            num_correct = 0
            for start in range(0, len(cell), batch_size):
                batch = torch.from_numpy(cell[start : start + batch_size]).to(device)
                logits = model(batch.permute(0, 3, 1, 2).float() / 255)
                num_correct += (logits.argmax(dim=1) == labels[start : start + batch_size]).sum().item()
            accuracies[name].append(num_correct / len(cell))
    return accuracies


class _Items(Dataset):
    """Images uint8 [S M, H, W, 3] as tensors, float32 [3, H, W] in [0, 1], with their labels."""

    def __init__(self, images_u8: np.ndarray, labels: np.ndarray) -> None:
        self.images_u8, self.labels = images_u8, labels

    def __len__(self) -> int:
        return len(self.images_u8)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.images_u8[i]).permute(2, 0, 1).float() / 255, self.labels[i % len(self.labels)]


@torch.no_grad()
def loader_loop(images: StoredImages, model: nn.Module, batch_size: int) -> Accuracies:
    """A DataLoader with two workers for each corruption, over all of its severities."""
    device = next(model.parameters()).device
    accuracies: Accuracies = {}
    for name, severities in images.parts():
        items = _Items(severities.reshape(-1, *severities.shape[2:]), images.labels)
        loader = DataLoader(items, batch_size, num_workers=NUM_WORKERS, pin_memory=device.type == "cuda")
        correct = [model(batch.to(device)).argmax(dim=1) == labels.to(device) for batch, labels in loader]
        accuracies[name] = torch.cat(correct).view(len(severities), -1).float().mean(dim=1).tolist()
    return accuracies


RIVALS: dict[str, Rival] = {"plain loop": plain_loop, f"DataLoader, {NUM_WORKERS} workers": loader_loop}


def largest_difference(found: Accuracies, expected: Accuracies) -> float:
    """The largest difference of a cell's accuracies; both have the same cells."""
    assert found.keys() == expected.keys()
    return max(float(np.abs(np.subtract(found[name], expected[name])).max()) for name in expected)
