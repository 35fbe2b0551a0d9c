"""The section `prime` of a run's configuration; see schema.py."""

from dataclasses import dataclass

from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class PrimeConfig:
    """The primitives of prime and prime_no_jsd; augment.mixture_width and augment.mixture_depth say how they are mixed.

    Args:
        color_frequencies: A colour curve is a sum of sines; the number of its frequencies is uniform in
            1..color_frequencies, 1..500. Its authors use 100 for CIFAR.
        color_variance: The variance of the sines' coefficients is uniform in [0, color_variance], 0..1. They use 0.01
            for CIFAR and 0.05 for photographs.
        displacement_cut: Highest frequency of a displacement, 3..500: its bound is uniform in 3..displacement_cut. They
            use 100 for CIFAR and 500 for photographs.
        filter_std: The standard deviation of the weights of the 3x3 filters is uniform in [0, filter_std], 0..100.
        official: The form of the published code, only to reproduce a published number: a batch shares its displacements
            and the strengths of the others, so views depend on the batch; and a filter moves the image by a pixel.
    """

    color_frequencies: int = 100
    color_variance: float = 0.01
    displacement_cut: int = 100
    filter_std: float = 4.0
    official: bool = False

    def __post_init__(self) -> None:
        check(1 <= self.color_frequencies <= 500, "prime.color_frequencies", self.color_frequencies, "1..500")
        check(0 <= self.color_variance <= 1, "prime.color_variance", self.color_variance, "0..1")
        check(3 <= self.displacement_cut <= 500, "prime.displacement_cut", self.displacement_cut, "3..500")
        check(0 <= self.filter_std <= 100, "prime.filter_std", self.filter_std, "0..100")
