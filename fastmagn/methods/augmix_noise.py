"""One AugMix view of each image, half of them with Gaussian noise, each of its own standard deviation; no divergence.

The noise is that of the sample's first noisy view in MAGN: its standard deviation is uniform up to `augment.sigma_max`.

Random stream:

    STREAM_NOISY_HALF
        slot 0        words: whether the view has noise

AugMix: D. Hendrycks et al., "AugMix: A simple data processing method to improve robustness and uncertainty", ICLR 2020.
Noise on half of the images: E. Rusak et al., "A simple way to make neural networks robust against diverse image
corruptions", ECCV 2020.
"""

import torch
from torch import Tensor

from fastmagn.methods.context import StepContext, on_device
from fastmagn.methods.method import Layout, Method
from fastmagn.methods.standard import standard_loss
from fastmagn_kernels.random.rng import STREAM_NOISY_HALF

_HALF = 1 << 31  # of the values of a random word


def add_noise_to_half(views: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """The AugMix views, half of them with the noise of the noisy views.

    Args:
        views: The clean, the AugMix and the noisy views, float [3B, C, H, W].
        labels: int64 [B].
        context: The step.

    Returns:
        float [B, C, H, W] in [0, 1], and the labels.
    """
    clean, augmix, noisy = views.chunk(3)
    with_noise = on_device(context.words(0, STREAM_NOISY_HALF)[:, 0] < _HALF, views.device)
    disturbed = (augmix + (noisy - clean)).clamp_(0, 1)
    return torch.where(with_noise[:, None, None, None], disturbed, augmix), labels


AUGMIX_NOISE = Method(
    title="AugMix with noise",
    loss=standard_loss,
    num_augmix_views=1,
    takes_noise=True,
    prepare=add_noise_to_half,
    forwarded=Layout(),
    drops_clean=True,
)
