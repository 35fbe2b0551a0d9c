"""The section `spectra` of a run's configuration; see schema.py."""

from dataclasses import dataclass
from typing import Literal

from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class SpectraConfig:
    """The methods that mix the frequencies of images: apr and hybridaugment.

    Args:
        variant: p (each image with a partner from the training set), s (two augmented copies of one image), or ps
            (both, the published form; APR's paper calls it SP).
        pair_probability: For p and ps: probability that an image is mixed with its partners, 0..1. hybridaugment also
            exchanges the amplitude of the low frequencies with this probability.
        single_probability: For s and ps: probability that a second copy is made and mixed with the first, 0..1.
        blur_px: For hybridaugment: side of the Gaussian kernel that leaves an image's low frequencies, odd, 3..15 px.
        blur_sigma_px: For hybridaugment: its standard deviation, px, above 0, up to 10.
        official: Do as the authors' code does where it differs: for p, one draw decides for all images of a forward
            pass, partners come from the same pass, and values leave [0, 1]; for s, values become bytes without
            rounding, and those outside 0..255 wrap around.
    """

    variant: Literal["p", "s", "ps"] = "ps"
    pair_probability: float = 0.6
    single_probability: float = 0.5
    blur_px: int = 3
    blur_sigma_px: float = 0.5
    official: bool = False

    def __post_init__(self) -> None:
        for name in ("pair_probability", "single_probability"):
            check(0 <= getattr(self, name) <= 1, f"spectra.{name}", getattr(self, name), "0..1")
        side_ok = 3 <= self.blur_px <= 15 and self.blur_px % 2 == 1
        check(side_ok, "spectra.blur_px", self.blur_px, "an odd number in 3..15")
        check(0 < self.blur_sigma_px <= 10, "spectra.blur_sigma_px", self.blur_sigma_px, "a number above 0, up to 10")
