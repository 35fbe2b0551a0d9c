"""What AugMix and the policies have in common in other people's code: forms of images, keys, generators, workers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.utils.data import get_worker_info

from fastmagn.augment import operator
from fastmagn.augment.forks import torch_on_one_thread_in_forks
from fastmagn.augment.image_forms import is_video, refuse_places, to_tensor
from fastmagn.augment.image_memory import check_out, empty_like, in_order, is_planar
from fastmagn.augment.params import ViewParams, ViewSpec, sample_view_params
from fastmagn.augment.pixel_range import RangeCheck
from fastmagn.augment.views import choose_engine
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import as_array, as_integer, check


class ImageTransform(nn.Module):
    """A random change of images on 256 levels, each image by itself; subclasses implement `make`.

    Args:
        augment: What `ViewParams` get.
        view_spec: Likewise.
        moves: Why boxes and masks are refused, as the end of the message.
        seed: The seed of the draws: an integer in 0..2^64 - 1, or a torch.Generator on the CPU.
        backend: auto, or a name in BACKENDS.
    """

    def __init__(
        self,
        *,
        augment: AugmentConfig,
        view_spec: ViewSpec,
        moves: str,
        seed: int | torch.Generator,
        backend: str,
    ) -> None:
        super().__init__()
        choose_engine(backend, torch.device("cpu"))
        self.augment, self.view_spec, self.moves = augment, view_spec, moves
        self.backend = backend
        self.generator = _generator(seed)
        self.seed = self.generator.initial_seed()
        self._own_seed = 0 if isinstance(seed, torch.Generator) else self.seed
        self._set_up()

    def fill_compiled(self, images: Tensor, params: ViewParams, out: Tensor) -> bool:
        """Fill `out` by the compiled engine on the host, as `engines.numba_images.fill_augmix` does it."""
        raise NotImplementedError

    def fill(self, images_u8: Tensor, params: ViewParams, out: Tensor) -> None:
        """Fill `out` by any other engine.

        Args:
            images_u8: uint8 [B, C, H, W], B >= 1, C 1 or 3.
            params: For this batch.
            out: As many images, uint8 or floats in [0, 1] of any dtype, contiguous or channels last.
        """
        raise NotImplementedError

    def _set_up(self) -> None:
        """What belongs to this object in this process, and is neither copied nor pickled."""
        self._check_range = RangeCheck(type(self).__name__)
        self._number = operator.register(self)
        self._order = torch.zeros((), dtype=torch.int64, device="cpu")
        self._worker_seed: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        own = ("_check_range", "_number", "_order", "_worker_seed", "_worker_generator", "_worker_word")
        state = {name: value for name, value in vars(self).items() if name not in own}
        return state | {"generator": _standin(self.generator)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if isinstance(self.generator, _Standin):  # copy.copy
            self.generator = _restored(self.generator.state())
        self._set_up()

    def forward(
        self,
        images: Any,
        *others: Any,
        indices: int | Sequence[int] | np.ndarray | Tensor | None = None,
        epoch: int | np.integer | Tensor | None = None,
        out: Tensor | None = None,
    ) -> Any:
        """Augment a batch or an image.

        With `indices` and `epoch`, the views are a function of the seed, the epoch, the sample's index and its pixels
        alone: they do not depend on the worker, the batch or the calls before, and nothing is taken from the
        generator. They are the draws of a run with `train.seed` seed (AugMix: its first AugMix view; a policy: its
        clean view under that policy), without its crop, flip, jitter and rotation. For a second view of an image use a
        second object with another seed.

        Args:
            images: [B, 3, H, W], [B, 1, H, W], [3, H, W] or [1, H, W]; uint8, or floats in [0, 1], which are first
                rounded to 256 levels. A tensor, torchvision's Image or Video, or a PIL image (RGB or L). B can be 0.
                All frames of a Video have one draw.
            others: Labels and whatever else a pipeline passes on; returned unchanged after the images. Boxes, masks and
                key points are refused, as by torchvision: operations move the image and cannot move these with it.
            indices: The sample index of each image, integers [B] in 0..2^32 - 1, on the CPU; one integer for one image
                or one Video.
            epoch: The epoch, 0..2^32 - 1: an integer of Python, NumPy or PyTorch.
            out: Memory for the changed images, of the images' shape, dtype and device, contiguous or channels last; it
                may not overlap the images. If the images are refused for their range, it may hold some changed ones.
                Not with PIL images. In `torch.compile` the views are copied there.

        Returns:
            The changed images, of the same type, shape, dtype and device: `out` if it is given (its memory as a
            tv_tensor, if the images are one); with `others`, a tuple of them all. In memory they are contiguous or
            channels last as the images are (in a graph: channels last).

        Raises:
            InputError: The images have another shape or dtype; there are boxes or masks in `others`; floats are outside
                [0, 1] by more than half a level (0.5 / 255) or NaN; `indices` or `epoch` are out of range or one of
                them is missing; `out` does not fit the images. On CUDA the range of the first batch is checked at once,
                that of a later one by a later call, so that the host never waits.
        """
        check((indices is None) == (epoch is None), "epoch", epoch, "indices and epoch, both or neither")
        if torch.compiler.is_compiling():
            rows = None if indices is None else torch.as_tensor(indices, device="cpu")
            # The compiler takes NumPy's integers for tensors. The operator refuses a Python float.
            number = 0 if epoch is None else epoch if isinstance(epoch, int | float) else int(epoch)
            # Not under no_grad: an error in a graph would leave gradients off.
            changed = torch.ops.fastmagn.augment(
                images.detach(), self._order, rows, number, self._number, is_video(images)
            )
            if out is not None:
                same = (out.shape, out.dtype) == (images.shape, images.dtype)
                check(same, "out", "another shape or dtype", "those of the images")
                changed = out.copy_(changed)
        else:
            tensor, back = to_tensor(images, type(self).__name__.lower())
            refuse_places(others, self.moves)
            if out is not None:
                check(isinstance(images, Tensor), "out", "a tensor", "None with a PIL image")
                check_out(out, tensor)
            changed = back(self.change(tensor, indices, epoch, out, one_draw=is_video(images)))
        return (changed, *others) if others else changed

    @torch.no_grad()
    @torch_on_one_thread_in_forks
    def change(
        self,
        images: Tensor,
        indices: int | Sequence[int] | np.ndarray | Tensor | None,
        epoch: Any,
        out: Tensor | None = None,
        one_draw: bool = False,
    ) -> Tensor:
        """`forward` for what `to_tensor` returns: the changed images; without `indices`, keyed by the generator.

        `out` has passed `check_out`. With `one_draw`, all images have the draw of one.
        """
        batch = images.detach() if images.ndim == 4 else images.detach()[None]
        count = 1 if one_draw else len(batch)
        if indices is None:
            seed, epoch, keys = self._draw_key(), 0, np.arange(count)
        else:
            seed, keys = self.seed, _as_array(indices).reshape(-1)
            one_for = "one for all frames" if one_draw else "one for each image"
            check(len(keys) == count, "indices", f"{len(keys)} integers", f"{count}, {one_for}")
        if one_draw:
            keys = keys.repeat(len(batch))
        size = batch.shape[2], batch.shape[3]
        params = sample_view_params(seed, epoch, keys, self.view_spec, self.augment, size)
        if out is None:
            changed = empty_like(batch, batch.dtype)
        else:
            given = out.detach().as_subclass(Tensor)
            changed = given if given.ndim == 4 else given[None]
            if not given.is_inference():
                increment_version(given)  # so that autograd knows; kernels write without it
        if len(batch):
            with torch.inference_mode() if changed.is_inference() else nullcontext():
                self._fill(batch, params, changed)
        if out is not None:
            return out
        return changed if images.ndim == 4 else changed[0]

    def _fill(self, images: Tensor, params: ViewParams, out: Tensor) -> None:
        """Fill `out` with what becomes of images [B, C, H, W] of any dtype."""
        is_uint8 = images.dtype == torch.uint8
        if images.device.type == "cpu" and self.backend in ("auto", "numba"):
            source = images if is_uint8 else images.float()
            target = out if is_uint8 or out.dtype == torch.float32 else empty_like(out, torch.float32)
            if not self.fill_compiled(in_order(source, is_planar(source)), params, target):
                self._check_range(images)  # it raises
            if target is not out:
                out.copy_(target)
            return
        if not is_uint8:
            self._check_range(images)
            images = (images.float() * 255).round_().clamp_(0, 255).to(torch.uint8)
        self.fill(images, params, out)

    def _draw_key(self) -> int:
        """The key of a call's draws, from the generator; in a DataLoader's worker from one that it seeds there.

        The worker's seed changes with the worker and, as the loader starts workers anew, with the epoch. The generator
        arrives there in one state again and again.
        """
        worker = get_worker_info()
        if worker is None:
            return _draw(self.generator, self._own_seed)
        if self._worker_seed != worker.seed:
            self._worker_word = mixed(_draw(self.generator, self._own_seed), worker.seed)
            self._worker_generator = torch.Generator(device="cpu").manual_seed(self._worker_word)
            self._worker_seed = worker.seed
        return _draw(self._worker_generator, self._worker_word)


class _Standin:
    """Takes a generator's place in a pickle or a copy, which then has one generator for all transforms that share it.

    Its state goes there as bytes: a tensor would go to another process through shared memory.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state(self) -> bytes:
        return self.generator.get_state().numpy().tobytes()

    def __reduce__(self) -> tuple[Callable[[bytes], torch.Generator], tuple[bytes]]:
        return _restored, (self.state(),)


_standins: WeakValueDictionary[int, _Standin] = WeakValueDictionary()  # while one is pickled or copied


def _standin(generator: torch.Generator) -> _Standin:
    """The same object for the same generator, by which pickle and copy know it again."""
    return _standins.setdefault(id(generator), _Standin(generator))


def _restored(state: bytes) -> torch.Generator:
    return torch.Generator(device="cpu").set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _generator(seed: int | torch.Generator) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        check(seed.device.type == "cpu", "seed", f"a generator on {seed.device}", "one on the CPU")
        return seed
    allowed = "an integer in 0..2^64 - 1, or a torch.Generator on the CPU"
    return torch.Generator(device="cpu").manual_seed(as_integer("seed", seed, range(2**64), allowed))


def _as_array(indices: int | Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
    return as_array("indices", indices.detach().cpu() if isinstance(indices, Tensor) else indices)


def _draw(generator: torch.Generator, seed: int) -> int:
    """A key from a generator that was given `seed`: PyTorch's on the CPU keep its low 32 bits, the key needs all."""
    key, high = int(torch.randint(2**63 - 1, (), generator=generator, device="cpu")), seed >> 32
    return mixed(key, high) if high else key


def mixed(*words: int) -> int:
    """A key, 0..2^64 - 1, that depends on all of the words, integers of 0 or more."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
