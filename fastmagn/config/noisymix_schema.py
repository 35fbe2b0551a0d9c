"""The section `noisymix` of a run's configuration; see schema.py."""

from dataclasses import dataclass

from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class NoisyMixConfig:
    """What noisymix does to images and feature maps.

    Args:
        alpha: An image's share in its mixture is drawn from Beta(alpha, alpha); above 0, up to 100.
        additive_noise: Strength of the additive normal noise of the clean view, 0..10; the AugMix views have two and
            three times as much. Each view of each image draws its own share of it, from Beta(2, 5).
        multiplicative_noise: Strength of the multiplicative noise, 0..10: factors are uniform in
            1 +- multiplicative_noise times a share that is drawn likewise.
        noise_sparsity: Share of the values that keep their value, 0 <= noise_sparsity < 1, for each noise by itself.
        official: Draw the layer, the share and the noises' strengths once for a forward pass, as the authors' code
            does, not for each image.
    """

    alpha: float = 1.0
    additive_noise: float = 0.5
    multiplicative_noise: float = 0.5
    noise_sparsity: float = 0.65
    official: bool = False

    def __post_init__(self) -> None:
        check(0 < self.alpha <= 100, "noisymix.alpha", self.alpha, "a number above 0, up to 100")
        check(0 <= self.additive_noise <= 10, "noisymix.additive_noise", self.additive_noise, "0..10")
        check(0 <= self.multiplicative_noise <= 10, "noisymix.multiplicative_noise", self.multiplicative_noise, "0..10")
        sparsity = self.noise_sparsity
        check(0 <= sparsity < 1, "noisymix.noise_sparsity", sparsity, "0 <= noise_sparsity < 1")
