"""AugMix for any training loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from fastmagn.augment import augmix_operator
from fastmagn.augment.forks import torch_on_one_thread_in_forks
from fastmagn.augment.image_forms import refuse_places, to_tensor
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.augment.pixel_range import RangeCheck
from fastmagn.augment.views import choose_engine, make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import as_integer, check, is_integer

_ONE_AUGMIX_VIEW = ViewSpec(num_augmix_views=1, num_noise_views=0)


class AugMix(nn.Module):
    """AugMix (D. Hendrycks et al., ICLR 2020) of a batch, on the batch's device; every image gets its own chains.

    Chains work on uint8 and equal Pillow's to the bit (`fastmagn.augment.operations`); the mixture is computed in
    float32 and rounded to the images' dtype. Each call draws anew; the same seed draws the same sequence on every
    device.

    >>> import torch
    >>> from fastmagn import AugMix
    >>> images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> augmix = AugMix(seed=0)
    >>> first, second = augmix(images), augmix(images)
    >>> first.shape, first.dtype, torch.equal(first, second)
    (torch.Size([8, 3, 32, 32]), torch.uint8, False)
    >>> torch.equal(AugMix(seed=0)(images), first)
    True
    >>> augmix(images / 255).dtype
    torch.float32
    >>> keyed = augmix(images, indices=range(8), epoch=3)
    >>> torch.equal(augmix(images[5], indices=5, epoch=3), keyed[5])
    True

    It runs in a `DataLoader`'s workers (fork, spawn and forkserver; per image or in `collate_fn`), there on one thread.
    Every worker and, without persistent workers, every epoch draws anew; the loader's generator or `torch.manual_seed`
    makes that repeatable. It runs inside `torch.compile` on plain tensors, as one opaque operator, with the draws of
    eager mode; give `indices` as a tensor there, since new numbers in a list compile anew. A copy or a pickle has a
    generator of its own, in the state that the original's had; `state_dict` has no entry for it.

    Args:
        aug_severity: Strength, 1..10: an operation's level is uniform in [0.1, aug_severity]. AugMix uses 3 for CIFAR
            and 1 for ImageNet.
        random_aug_severity: Draw the strength uniformly from 1..aug_severity for each image.
        mixture_width: Number of chains, 1..8.
        mixture_depth: Number of operations in a chain, 1..8; -1 draws it uniformly from 1, 2, 3.
        all_operations: Add the four operations that overlap the usual test corruptions.
        seed: The seed of the draws: an integer in 0..2^64 - 1, or a torch.Generator on the CPU (to resume, save and
            restore its state). Give each process of a distributed training its own, or use the keyed form.
        backend: auto (the fastest exact engine for the batch's device), numba, kornia, dali or pil.

    Raises:
        InputError: An argument has another type or is out of range.
    """

    def __init__(
        self,
        *,
        aug_severity: int = 3,
        random_aug_severity: bool = False,
        mixture_width: int = 3,
        mixture_depth: int = -1,
        all_operations: bool = False,
        seed: int | torch.Generator = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        integers = {"aug_severity": aug_severity, "mixture_width": mixture_width, "mixture_depth": mixture_depth}
        for name, value in integers.items():
            check(is_integer(value), f"augment.{name}", value, "an integer")
        flags = {"random_aug_severity": random_aug_severity, "all_operations": all_operations}
        for name, value in flags.items():
            check(isinstance(value, bool | np.bool_), f"augment.{name}", value, "True or False")
        self.augment = AugmentConfig(
            **{name: int(value) for name, value in integers.items()},
            **{name: bool(value) for name, value in flags.items()},
        )
        choose_engine(backend, torch.device("cpu"))
        self.backend = backend
        self.generator = _generator(seed)
        self.seed = self.generator.initial_seed()
        self._set_up()

    def _set_up(self) -> None:
        """What belongs to this object in this process, and is neither copied nor pickled."""
        self._check_range = RangeCheck()
        self._number = augmix_operator.register(self)
        self._order = torch.zeros((), dtype=torch.int64, device="cpu")
        self._worker_seed: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        own = ("_check_range", "_number", "_order", "_worker_seed", "_worker_generator")
        state = {name: value for name, value in vars(self).items() if name not in own}
        # Bytes: a tensor would go to another process through shared memory.
        return state | {"generator": self.generator.get_state().numpy().tobytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        generator_state = torch.frombuffer(bytearray(state["generator"]), dtype=torch.uint8)
        self.generator = torch.Generator(device="cpu").set_state(generator_state)
        self._set_up()

    def forward(
        self,
        images: Any,
        *others: Any,
        indices: int | Sequence[int] | np.ndarray | Tensor | None = None,
        epoch: int | None = None,
    ) -> Any:
        """Augment a batch or an image.

        With `indices` and `epoch`, the views are a function of the seed, the epoch, the sample's index and its pixels
        alone: they do not depend on the worker, the batch or the calls before, and nothing is taken from the
        generator. They are the first AugMix view of each sample in a run with `train.seed` seed, without its crop,
        flip, jitter and rotation. For a second view of an image use a second AugMix with another seed.

        Args:
            images: [B, 3, H, W], [B, 1, H, W], [3, H, W] or [1, H, W]; uint8, or floats in [0, 1], which are first
                rounded to 256 levels. A tensor, torchvision's Image or Video, or a PIL image (RGB or L). B can be 0.
            others: Labels and whatever else a pipeline passes on; returned unchanged after the images. Boxes, masks and
                key points are refused, as by torchvision's AugMix: the mixture is of images moved in several ways.
            indices: The sample index of each image, integers [B] in 0..2^32 - 1, on the CPU; one integer for one image.
            epoch: The epoch, 0..2^32 - 1.

        Returns:
            The mixed images, of the same type, shape, dtype and device, channels last in memory; with `others`, a tuple
            of them all.

        Raises:
            InputError: The images have another shape or dtype; there are boxes or masks in `others`; floats are outside
                [0, 1] by more than half a level (0.5 / 255) or NaN; `indices` or `epoch` are out of range or one of
                them is missing. On CUDA the range of the first batch is checked at once, that of a later one by a later
                call, so that the host never waits.
        """
        check((indices is None) == (epoch is None), "epoch", epoch, "indices and epoch, both or neither")
        if torch.compiler.is_compiling():
            rows = None if indices is None else torch.as_tensor(indices, device="cpu")
            # Not under no_grad: an error in a graph would leave gradients off.
            mixed = torch.ops.fastmagn.augmix(images.detach(), self._order, rows, epoch or 0, self._number)
        else:
            tensor, back = to_tensor(images)
            refuse_places(others)
            mixed = back(self.mix(tensor, indices, 0 if epoch is None else epoch))
        return (mixed, *others) if others else mixed

    @torch.no_grad()
    @torch_on_one_thread_in_forks
    def mix(self, images: Tensor, indices: int | Sequence[int] | np.ndarray | Tensor | None, epoch: int) -> Tensor:
        """`forward` for what `to_tensor` returns: the mixed images; without `indices`, keyed by the generator."""
        batch = images if images.ndim == 4 else images[None]
        channels, height, width = batch.shape[1:]
        if indices is None:
            seed, epoch, keys = self._draw_key(), 0, np.arange(len(batch))
        else:
            seed, keys = self.seed, _as_array(indices).reshape(-1)
            check(len(keys) == len(batch), "indices", f"{len(keys)} integers", f"{len(batch)}, one for each image")
        params = sample_view_params(seed, epoch, keys, _ONE_AUGMIX_VIEW, self.augment, (height, width))
        if not len(batch):
            return images.clone()
        is_uint8 = images.dtype == torch.uint8
        if not is_uint8:
            self._check_range(batch)
            batch = (batch.float() * 255).round_().clamp_(0, 255).to(torch.uint8)
        # Equal channels stay equal in every operation, so a grey image may pass as an RGB one.
        views = make_views(batch.expand(-1, 3, -1, -1), identity_base(params), self.backend)
        mixed = views[len(batch) :, :channels].contiguous(memory_format=torch.channels_last)
        mixed = (mixed * 255).round_().to(torch.uint8) if is_uint8 else mixed.to(images.dtype)
        return mixed if images.ndim == 4 else mixed[0]

    def _draw_key(self) -> int:
        """The key of a call's draws, from the generator; in a DataLoader's worker from one that it seeds there.

        The worker's seed changes with the worker and, as the loader starts workers anew, with the epoch. The generator
        arrives there in one state again and again.
        """
        worker = get_worker_info()
        if worker is None:
            return _draw(self.generator)
        if self._worker_seed != worker.seed:
            words = np.random.SeedSequence([_draw(self.generator), worker.seed]).generate_state(1, np.uint64)
            self._worker_generator = torch.Generator(device="cpu").manual_seed(int(words[0]))
            self._worker_seed = worker.seed
        return _draw(self._worker_generator)

    def extra_repr(self) -> str:
        augment = self.augment
        return f"aug_severity={augment.aug_severity}, mixture_width={augment.mixture_width}, backend={self.backend!r}"


def _generator(seed: int | torch.Generator) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        check(seed.device.type == "cpu", "seed", f"a generator on {seed.device}", "one on the CPU")
        return seed
    allowed = "an integer in 0..2^64 - 1, or a torch.Generator on the CPU"
    return torch.Generator(device="cpu").manual_seed(as_integer("seed", seed, range(-(2**63), 2**64), allowed))


def _as_array(indices: int | Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
    return indices.numpy(force=True) if isinstance(indices, Tensor) else np.asarray(indices)


def _draw(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator, device="cpu"))
