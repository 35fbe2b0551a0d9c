"""Whether all processes of a run, which may be on several hosts, train on the same images."""

from collections.abc import Callable, Sequence

from fastmagn.config.schema import Config
from fastmagn.data import FolderSource
from fastmagn.errors import InputError, some
from fastmagn.machine.console import warn
from fastmagn.machine.processes import World
from fastmagn.training.step import Run


def check_classes_of_all(world: World, config: Config, class_names: Sequence[str]) -> None:
    """Raise InputError on all ranks if some have other classes than rank 0, before a network is made for them."""
    found = world.gather(tuple(class_names))
    others = [str(rank) for rank, names in enumerate(found) if names != found[0]]
    if others:
        raise InputError(
            f"data.dir: {config.data.dir} has other classes for rank {some(others, 8)} than for rank 0; expected the"
            " same files on all hosts."
        )


def fingerprint_of_all(world: World, config: Config, which: str, read: Callable[[], str]) -> str:
    """The fingerprint of the images, which is the same on all ranks: they train on shares of one order.

    Args:
        world: torchrun's processes.
        config: The run's configuration, whose images they are.
        which: Which of them, for the message: training or test.
        read: Reads this rank's.

    Raises:
        InputError: Ranks have other images than rank 0, or labels.
    """
    own = world.rank_0_first(read)
    found = world.gather(own)
    others = {rank: one for rank, one in enumerate(found) if one != found[0]}
    if others:
        raise InputError(
            f"data.dir: {config.data.dir} has other {which} images or labels for rank {some(map(str, others), 8)} than"
            f" for rank 0 (fingerprint {next(iter(others.values()))[:16]}, of rank 0 {found[0][:16]}); expected"
            " the same files on all hosts."
        )
    return own


def decoder_of(run: Run) -> str | None:
    """What decodes the training images, `cpu` or `gpu`, whose pixels differ by some levels; None if they are arrays."""
    if not isinstance(run.source, FolderSource):
        return None
    return "gpu" if "GPU" in run.source.description else "cpu"


def warn_of_unlike_decoders(run: Run) -> None:
    """Warn if some ranks decode the training images on the GPU and some do not, as where DALI is on some hosts only."""
    found = run.world.gather(decoder_of(run))
    others = [str(rank) for rank, decoder in enumerate(found) if decoder != found[0]]
    if others:
        warn(
            f"rank {some(others, 8)} decodes images otherwise than rank 0, on the CPU or on the GPU, and some pixels"
            " differ by some levels. Install DALI on all hosts, or give --data.source pillow."
        )
