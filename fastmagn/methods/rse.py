"""Random self-ensemble (RSE): noise at the input during training, and an ensemble over noises at test time.

Random streams:

    STREAM_NOISE, view 0        the training noise of each sample, the same as in MAGN's first noisy view
    STREAM_ENSEMBLE, view n     index 0, epoch 0: noise n at test time

Source: X. Liu et al., "Towards robust neural networks via random self-ensemble", ECCV 2018; at the input layer only, as
in the paper's equation (4). Shape letters: B batch, K classes, C H W image.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.config.schema import Config, LossConfig
from fastmagn.losses.divergences import log_softmax
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout, LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss
from fastmagn_kernels.random import rng


def add_noise(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Replace the clean view x, float32 [B, C, H, W], with x + delta, delta from N(0, rse_sigma^2); not clipped."""
    noise = context.normals_like(images, rng.STREAM_NOISE)
    return torch.add(images, noise, alpha=context.config.augment.rse_sigma), labels


class NoiseEnsemble(nn.Module):
    """A model averaged over noises: images [B, C, H, W] -> log((1/n) sum_i p(x + delta_i)), float32 [B, K].

    The n noises are drawn once, from the seed of the run, and are the same for every image. So the ensemble is a plain
    function of the image and does not depend on batch size, order or number of processes. It returns log-probabilities
    as logits: their softmax is the mean of the probabilities.

    Args:
        model: Images [B, C, H, W] in [0, 1] -> logits [B, K].
        noises: sigma times standard normals, float32 [n, C, H, W].
    """

    noises: Tensor

    def __init__(self, model: nn.Module, noises: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("noises", noises)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        log_probs = torch.stack([log_softmax(self.model(images + noise)) for noise in self.noises])
        return log_probs.logsumexp(dim=0) - math.log(len(self.noises))


def noise_ensemble(model: nn.Module, config: Config, image_size: tuple[int, int]) -> NoiseEnsemble:
    """The ensemble of `model` over `eval.rse_draws` noises of standard deviation `augment.rse_sigma`, on its device.

    Args:
        model: Images [B, 3, H, W] -> logits [B, K].
        config: The configuration of the run.
        image_size: (H, W), px.
    """
    height, width = image_size
    normals = np.empty((config.eval.rse_draws, height * width * 3), np.float32)
    for draw, row in enumerate(normals):
        rng.standard_normal(row, rng.STREAM_ENSEMBLE, draw, 0, 0, *rng.key_words(config.train.seed))
    noises = torch.from_numpy(config.augment.rse_sigma * normals).view(-1, height, width, 3).permute(0, 3, 1, 2)
    device = next(model.parameters()).device
    return NoiseEnsemble(model, noises.contiguous()).to(device)


def noise_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (4): cross-entropy of the noisy view."""
    return standard_loss(logits._replace(clean=logits.noisy[0]), labels, weights)


RSE = Method(
    title="RSE",
    loss=noise_loss,
    prepare=add_noise,
    forwarded=Layout(clean=0, noisy=1),
    test_time=noise_ensemble,
    reads=frozenset({"augment.rse_sigma", "eval.rse_draws"}),
)
