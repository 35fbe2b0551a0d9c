"""The terms of equation (6). Legend: V views, B batch, K classes."""

from fastmagn.losses.divergences import jensen_shannon, kl_divergence
from fastmagn.losses.magn import MAGNLoss, magn_consistency

__all__ = ["MAGNLoss", "jensen_shannon", "kl_divergence", "magn_consistency"]
