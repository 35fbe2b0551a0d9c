"""Finds a network's own tensors among those of a file: behind prefixes of wrappers, and beside a normalisation."""

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from torch import Tensor

# The prefixes that wrappers give names: DataParallel and DistributedDataParallel; torch.compile; a model behind its
# normalisation, as RobustBench and fastmagn have it. A network may have modules of these names too.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.")
_MOST_WRAPPERS = 8  # around each other; a hostile name may have any number of them
_MEANS, _STDS = ("mean", "mu"), ("std", "sigma")


class Unwrapped(NamedTuple):
    """A network's tensors, and the normalisation beside them.

    Args:
        tensors: By their names in the network, as far as it has them.
        mean: What the file's model subtracts from each channel, pixels in [0, 1]; None if it does not say.
        std: What it then divides by; None likewise.
    """

    tensors: dict[str, Tensor]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None


def unwrap(stored: Mapping[str, Tensor], known: Collection[str]) -> Unwrapped:
    """The tensors of the network that has the names `known`.

    Of the prefixes that all names share, as few are removed as leave the most names that the network has; all of them
    if no name is the network's. Three numbers called mean or std are a normalisation unless the network has them.

    Args:
        stored: A file's tensors by the names that they have there.
        known: Names of the network's state_dict.
    """
    certain = [name for name, value in stored.items() if not _may_normalise(name, value)] or list(stored)
    prefixes = list(islice(_shared_prefixes(certain), _MOST_WRAPPERS + 1))
    counts = [sum(name.removeprefix(prefix) in known for name in certain) for prefix in prefixes]
    prefix = prefixes[counts.index(max(counts))] if any(counts) else prefixes[-1]
    is_certain = set(certain)
    own: dict[str, Tensor] = {}
    beside: dict[str, Tensor] = {}
    for name, value in stored.items():
        inner = name.removeprefix(prefix)
        is_own = name in is_certain or (name.startswith(prefix) and inner in known)
        (own if is_own else beside)[inner if is_own else name] = value
    return Unwrapped(own, _channels(beside, _MEANS), _channels(beside, _STDS))


def _shared_prefixes(names: Collection[str]) -> Iterator[str]:
    """None, the outermost that all names have, that and the next, and so on."""
    prefix = ""
    while True:
        yield prefix
        longer = (prefix + wrapper for wrapper in _WRAPPERS)
        found = next((one for one in longer if all(name.startswith(one) for name in names)), None)
        if found is None:
            return
        prefix = found


def _may_normalise(name: str, value: Tensor) -> bool:
    last = name.rpartition(".")[2]
    return last in (*_MEANS, *_STDS) and value.numel() == 3 and not value.is_complex() and not value.is_meta


def _channels(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[float, float, float] | None:
    found = [value for name, value in tensors.items() if name.rpartition(".")[2] in names]
    return tuple(found[0].flatten().double().tolist()) if found else None
