"""A strip for each of a few AugMix views: the chains that it mixes, and the mixture."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from benchmarks.gallery.photos import SIDE_PX, temple
from benchmarks.gallery.strips import strip
from fastmagn.augment.engines.pil import apply_operation
from fastmagn.augment.params import ViewParams, ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.augment.wording import augmix_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.training.view_grid import to_u8
from fastmagn_kernels.random.draws import NO_OPERATION

AUG_SEVERITIES = (1, 3, 10)
NUM_IMAGES = 2
_ONE_AUGMIX_VIEW = ViewSpec(num_augmix_views=1, num_noise_views=0)


def pictures() -> Iterator[tuple[str, Image.Image, str]]:
    """The pictures, each after its name and before the text that says what made it."""
    for aug_severity in AUG_SEVERITIES:
        params = drawn(aug_severity)
        for i, text in enumerate(augmix_views(params, 0)):
            shares = params.augmix.mix_weight[0, i] * params.augmix.chain_weights[0, i]
            labels = ["clean", *(f"chain {chain + 1}" for chain in range(len(shares))), "AugMix view"]
            amounts = [1 - shares.sum(), *shares]
            labels[:-1] = [f"{label}: {100 * amount:.0f} %" for label, amount in zip(labels, amounts, strict=False)]
            shown = [temple(), *chains(params, i), mixtures(params)[i]]
            yield f"augmix/severity_{aug_severity}_{i + 1}", strip(shown, labels), text


def drawn(aug_severity: int) -> ViewParams:
    """The draws of the views at one strength of AugMix; the clean views are the photograph itself."""
    augment, indices = AugmentConfig(aug_severity=aug_severity), np.arange(NUM_IMAGES)
    return identity_base(sample_view_params(0, 0, indices, _ONE_AUGMIX_VIEW, augment, (SIDE_PX, SIDE_PX)))


def mixtures(params: ViewParams) -> np.ndarray:
    """The AugMix views, uint8 [NUM_IMAGES, H, W, 3]."""
    images = torch.tensor(temple()).permute(2, 0, 1).repeat(params.batch_size, 1, 1, 1)
    return to_u8(make_views(images, params)[params.batch_size :])


def chains(params: ViewParams, i: int) -> list[np.ndarray]:
    """The photograph after each chain of a view, uint8 [H, W, 3], by Pillow's operations."""
    made = []
    for ids, magnitudes in zip(params.augmix.ops[0, i], params.augmix.magnitudes[0, i], strict=True):
        image = Image.fromarray(temple())
        for id_, magnitude in zip(ids, magnitudes, strict=True):
            if id_ != NO_OPERATION:
                image = apply_operation(image, id_, float(magnitude))
        made.append(np.asarray(image))
    return made
