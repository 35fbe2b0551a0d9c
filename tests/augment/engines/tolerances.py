"""How far each engine may be from Pillow, operation by operation: the table, and how a test measures against it."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from fastmagn.augment.engines.pil import apply_operation
from fastmagn.augment.operations import Operation
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from tests.augment.drawn import with_draws
from tests.helpers.operations import magnitudes


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """A difference from Pillow on uint8.

    Args:
        max_levels: Largest absolute difference, levels of 255.
        share_differing: Share of the values that differ at all, 0..1.
        share_above_1: Share of the values that differ by more than one level, 0..1.
    """

    max_levels: int = 0
    share_differing: float = 0.0
    share_above_1: float = 0.0

    def allows(self, measured: "Tolerance") -> bool:
        """Whether no field of `measured` is larger."""
        return all(mine >= theirs for mine, theirs in zip(*map(dataclasses.astuple, (self, measured)), strict=True))


EXACT = Tolerance()

# engine -> images -> what -> tolerance: what was measured, and a tenth. What: an operation of AugMix, or the base
# transform's rotation; if it is not listed, it is exact. Images: `pictures` of several sizes up to 33 px, the 1,000 of
# CIFAR-10, three of 224 x 180 px.
TOLERANCES: dict[str, dict[str, dict[str, Tolerance]]] = {
    "kornia": {
        "pictures": {
            "rotate": Tolerance(max_levels=1, share_differing=2.4e-4),
            "shear_x": Tolerance(max_levels=1, share_differing=1.9e-4),
            "shear_y": Tolerance(max_levels=1, share_differing=7.4e-4),
            "base_rotation": Tolerance(max_levels=1, share_differing=4.2e-4),
        },
        "cifar10": {
            "rotate": Tolerance(max_levels=1, share_differing=2.6e-4),
            "shear_x": Tolerance(max_levels=1, share_differing=2.5e-4),
            "shear_y": Tolerance(max_levels=1, share_differing=2.5e-4),
            "base_rotation": Tolerance(max_levels=1, share_differing=5.2e-4),
        },
        "large": {
            "rotate": Tolerance(max_levels=1, share_differing=3.7e-4),
            "shear_x": Tolerance(max_levels=1, share_differing=2.8e-3),
            "shear_y": Tolerance(max_levels=1, share_differing=2.7e-3),
        },
    },
}


def drawable_magnitudes(op: Operation, height: int, width: int) -> list[float]:
    """Those of `magnitudes` that a level in [0.1, 10) gives."""
    smallest = op.magnitude(0.1, height, width) if op.unit == "px per px" else 0.0
    return [magnitude for magnitude in magnitudes(op, height, width) if abs(magnitude) >= smallest]


def differences(backend: str, op: Operation, images: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    """|engine - Pillow| after `op`, int [B, H, W, 3]: uint8 images [B, H, W, 3], a magnitude each, float64 [B].

    The operation is the one chain of an AugMix view that is all chains, of an image as it is.
    """
    batch = len(images)
    augment = AugmentConfig(mixture_width=1, mixture_depth=1)
    spec = ViewSpec(num_augmix_views=1, num_noise_views=0)
    params = identity_base(sample_view_params(0, 0, np.arange(batch), spec, augment, images.shape[1:3]))
    only = np.ones((1, batch, 1))
    params = with_draws(
        params,
        ops=np.full((1, batch, 1, 1), op.id),
        magnitudes=magnitude[None, :, None, None],
        chain_weights=only,
        mix_weight=only[..., 0],
    )
    views = make_views(torch.from_numpy(images.copy()).permute(0, 3, 1, 2), params, backend)[batch:]
    made = (views.permute(0, 2, 3, 1) * 255).round().int().numpy()
    pairs = zip(images, magnitude, strict=True)
    expected = np.stack([np.asarray(apply_operation(Image.fromarray(image), op.id, value)) for image, value in pairs])
    return np.abs(made - expected)


def measured(differences: list[np.ndarray]) -> Tolerance:
    """The tolerance that just allows these differences, all taken together."""
    levels = np.concatenate([part.ravel() for part in differences])
    return Tolerance(
        max_levels=int(levels.max()),
        share_differing=float((levels > 0).mean()),
        share_above_1=float((levels > 1).mean()),
    )


def check_table(backend: str, images: str, measurements: dict[str, Tolerance]) -> None:
    """Print what was measured beside what is allowed (`pytest -s` shows it), and hold the one to the other."""
    row = "{:<14} {:>9} {:>9} {:>12} {:>9} {:>12} {:>9}"
    print(f"\n{backend} against Pillow on {images}: levels of 255, share of values that differ, and by more than 1")
    print(row.format("", "levels", "allowed", "share", "allowed", "share > 1", "allowed"))
    allowed = {name: TOLERANCES[backend][images].get(name, EXACT) for name in measurements}
    for name, found in measurements.items():
        columns = zip(*map(dataclasses.astuple, (found, allowed[name])), strict=True)
        print(row.format(name, *(f"{value:.3g}" for column in columns for value in column)))
    assert [name for name, found in measurements.items() if not allowed[name].allows(found)] == []
