"""Parameters with chosen draws, for engines on the host (a CUDA kernel draws its own)."""

import dataclasses
from types import SimpleNamespace

import numpy as np

from fastmagn.augment.params import ViewParams


def flat(params: ViewParams) -> SimpleNamespace:
    """All drawn arrays of `params`, by name."""
    return SimpleNamespace(**params.base._asdict(), **params.augmix._asdict(), sigma=params.sigma)


def with_draws(params: ViewParams, **arrays: np.ndarray) -> ViewParams:
    """`params`, but for the given arrays of `base`, `augmix` and `sigma`."""
    chosen = {name: np.asarray(values, getattr(flat(params), name).dtype) for name, values in arrays.items()}
    sigma = chosen.pop("sigma", params.sigma)
    base = {name: chosen.pop(name, array) for name, array in params.base._asdict().items()}
    augmix = {name: chosen.pop(name, array) for name, array in params.augmix._asdict().items()}
    assert not chosen
    changed = dataclasses.replace(params)
    vars(changed).update(  # where cached_property keeps them
        base=params.base._replace(**base), augmix=params.augmix._replace(**augmix), sigma=sigma
    )
    return changed
