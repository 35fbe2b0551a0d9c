"""A data set whose images a DataLoader's workers augment and corrupt, and what must hold of the views.

`python -m tests.helpers.worker_views` is a parent that has used AugMix, corrupt and PyTorch's OpenMP threads, and then
forks workers. It needs two CPUs and OMP_NUM_THREADS=2.
"""

import multiprocessing.connection

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fastmagn import AugMix, AutoAugment, RandAugment, TrivialAugment, corrupt

NUM_IMAGES = 8
EPOCH = 3


def pictures(num_images: int = NUM_IMAGES, side_px: int = 24) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (num_images, side_px, side_px, 3), dtype=np.uint8)


class WorkerViews(Dataset):
    """One grey ramp and one picture for each index: the ramp drawn anew, the picture by its key, and corrupted."""

    def __init__(self) -> None:
        self.augmix = AugMix(seed=9)

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        ramp = torch.linspace(0, 1, 1024).reshape(1, 32, 32)
        picture = pictures()[index]
        keyed = self.augmix(torch.from_numpy(picture).permute(2, 0, 1), indices=index, epoch=EPOCH)
        foggy = corrupt(picture[None], "fog", 3, indices=[index])[0]
        return self.augmix(ramp), keyed, torch.from_numpy(foggy), torch.get_num_threads()


class WorkerPolicies(Dataset):
    """For each index a picture drawn anew by TrivialAugment, and one by its key by each policy."""

    def __init__(self) -> None:
        self.policies = (TrivialAugment(seed=9), RandAugment(seed=8, interpolation="bilinear"), AutoAugment(seed=7))

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = torch.from_numpy(pictures()[index]).permute(2, 0, 1)
        keyed = [policy(picture, indices=index, epoch=EPOCH) for policy in self.policies]
        same = torch.from_numpy(pictures(1)[0]).permute(2, 0, 1)
        return self.policies[0](same), torch.stack(keyed)


class CollateAugMix:
    """AugMix of whole batches in `collate_fn`."""

    def __init__(self) -> None:
        self.augmix = AugMix(seed=4)

    def __call__(self, samples: list[int]) -> Tensor:
        ramps = torch.linspace(0, 1, 1024).reshape(1, 32, 32).expand(len(samples), 1, 32, 32)
        return self.augmix(default_collate(list(ramps)))


def loaded(context: str, num_workers: int) -> tuple[Tensor, ...]:
    """A whole epoch of WorkerViews from the workers of a loader."""
    views = WorkerViews()
    loader = DataLoader(views, batch_size=3, num_workers=num_workers, multiprocessing_context=context, timeout=120)
    return tuple(torch.cat(parts) for parts in zip(*loader, strict=True))


def check_views(drawn: Tensor, keyed: Tensor, foggy: Tensor, num_threads: Tensor) -> None:
    """Every ramp has draws of its own; keyed views and corruptions are those of this process, in whole batches."""
    assert len({view.numpy().tobytes() for view in drawn}) == NUM_IMAGES
    rows = torch.from_numpy(pictures()).permute(0, 3, 1, 2)
    assert torch.equal(keyed, AugMix(seed=9)(rows, indices=range(NUM_IMAGES), epoch=EPOCH))
    np.testing.assert_array_equal(foggy.numpy(), corrupt(pictures(), "fog", 3))
    assert set(num_threads.tolist()) == {1}


def use_everything_once() -> None:
    torch.nn.Conv2d(3, 16, 3)(torch.rand(16, 3, 64, 64)).sum().backward()
    torch.rand(500, 500) @ torch.rand(500, 500)
    AugMix()(torch.rand(64, 3, 64, 64))
    corrupt(pictures(600, 32), "gaussian_noise", 2)


def child_views(images: Tensor, connection: multiprocessing.connection.Connection) -> None:
    connection.send(AugMix(seed=2)(images).numpy().tobytes())
    connection.send(torch.get_num_threads())


def main() -> None:
    threads = torch.get_num_threads()
    assert threads == 2
    use_everything_once()
    assert torch.get_num_threads() == threads
    first, second = loaded("fork", 2), loaded("fork", 2)
    for part in (first, second):
        check_views(*part)
    assert not torch.equal(first[0], second[0])  # the next epoch draws anew
    torch.manual_seed(1)
    third = loaded("fork", 2)
    torch.manual_seed(1)
    assert torch.equal(loaded("fork", 2)[0], third[0])
    batches = list(DataLoader(range(8), batch_size=2, num_workers=2, collate_fn=CollateAugMix(), timeout=120))
    assert len({view.numpy().tobytes() for batch in batches for view in batch}) == 8
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    images = torch.rand(64, 3, 64, 64)  # made here: PyTorch's own operations hang there
    child = multiprocessing.get_context("fork").Process(target=child_views, args=(images, theirs), daemon=True)
    child.start()  # no DataLoader, so PyTorch still believes in two threads there
    assert ours.poll(120)
    assert ours.recv() == AugMix(seed=2)(images).numpy().tobytes()
    assert ours.recv() == threads
    child.join()
    print("equal in forked workers")


if __name__ == "__main__":
    main()
