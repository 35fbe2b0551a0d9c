"""What `python -m fastmagn.theory` measures. Kept apart from its code so that `--help` need not import PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastmagn.errors import check

MAX_DRAWS = 1 << 16  # of noise or probes; the random stream has no more (theory/probes.py)


@dataclass(frozen=True, kw_only=True)
class TheoryConfig:
    """Which images to measure on, and where to write the report.

    Args:
        out: Folder of the report: geometry.json, geometry.md, geometry.png, geometry.svg.
        num_images: Number of test images to measure: the first ones; of your own images, some that the seed draws
            evenly over the classes. 0 means all.
        data_dir: Folder of the image set; none means data.dir of the first run.
        device: auto (CUDA if there is a device), cpu or cuda.
    """

    out: Path
    num_images: int = 256
    data_dir: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check(self.num_images >= 0, "num_images", self.num_images, "0 (all) or more")
        check(not self.out.is_file(), "out", str(self.out), "a folder, new or not")


@dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """What is measured near each image, and how precisely.

    Args:
        seed: Seed of the noise and of the estimators' directions, 0..2^64 - 1; with num_images, also of the choice of
            your own images. Each image has its own noise and directions, the same for every model.
        noise_sigma: Standard deviation of the noise whose loss deviation is measured, pixels in [0, 1]; above 0.
        sigma_max: Largest standard deviation of the regulariser's noise (equation 9), pixels in [0, 1]; above 0.
        num_noise: Draws of each of the two noises, 2..65536.
        num_probes: Probes of a trace estimate, 2..65536.
        num_iterations: Products with the matrix in a power iteration, 1 or more.
        fisher: Compute trace and largest eigenvalue of G by one backward pass per class (exact), or by probes and power
            iteration (estimate), which is cheaper for many classes.
        batch_size: Images at a time, 1 or more. It changes the memory that is used, not the result.
    """

    seed: int = 0
    noise_sigma: float = 0.1
    sigma_max: float = 0.2
    num_noise: int = 16
    num_probes: int = 16
    num_iterations: int = 20
    fisher: Literal["exact", "estimate"] = "exact"
    batch_size: int = 64

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**64, "seed", self.seed, "0..2^64 - 1")
        check(self.noise_sigma > 0, "noise_sigma", self.noise_sigma, "a number above 0")
        check(self.sigma_max > 0, "sigma_max", self.sigma_max, "a number above 0")
        check(2 <= self.num_noise <= MAX_DRAWS, "num_noise", self.num_noise, f"2..{MAX_DRAWS}")
        check(2 <= self.num_probes <= MAX_DRAWS, "num_probes", self.num_probes, f"2..{MAX_DRAWS}")
        check(self.num_iterations >= 1, "num_iterations", self.num_iterations, "1 or more")
        check(self.fisher in ("exact", "estimate"), "fisher", self.fisher, "exact or estimate")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
