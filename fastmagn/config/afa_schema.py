"""The section `afa` of a run's configuration; see schema.py."""

from dataclasses import dataclass

from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class AfaConfig:
    """The plane waves of afa, afa_jsd and afa_augmix.

    Args:
        mean_strength: Mean of a wave's strength, above 0, up to 1000. The strength is exponential. It is the wave's l_2
            norm in an image of 32 x 32 px, for pixels in [0, 1]; in larger images a pixel changes as much.
        min_strength: Smallest strength, which is added to the exponential one, 0..1000.
        max_frequency: Largest frequency, 1..4096 cycles per image side; 0 means the image's side in pixels.
            A frequency is uniform in 1..max_frequency.
    """

    mean_strength: float = 10.0
    min_strength: float = 0.0
    max_frequency: int = 0

    def __post_init__(self) -> None:
        check(0 < self.mean_strength <= 1000, "afa.mean_strength", self.mean_strength, "a number above 0, up to 1000")
        check(0 <= self.min_strength <= 1000, "afa.min_strength", self.min_strength, "0..1000")
        frequency = self.max_frequency
        check(0 <= frequency <= 4096, "afa.max_frequency", frequency, "0 (the image's side in pixels) or 1..4096")
