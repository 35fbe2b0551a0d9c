"""The section `eval` of a run's configuration; the others are in `schema`, whose rules hold here too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastmagn.config.corruption_sets import ALL_SEVERITIES, set_parts, severity_numbers
from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured after training.

    Args:
        corruption_set: Corruptions to measure on: c19 (all of CIFAR-10-C or ImageNet-C), c18 (the paper's, without
            gaussian_noise), c15 (those of the usual benchmark), cbar (C-bar's ten: CIFAR-10-C-bar's for images below
            64 px, else ImageNet-C-bar's); a single one, such as fog; or several of these joined by +, such as
            c15+cbar. Of a stored set, those that it holds; and, unless only single ones are named, those that are in
            none of these sets, or all that it holds if it holds none of them.
        severities: Severities to measure, with commas, such as 1,3,5. Fewer than all five give no mCA of a set: the
            results then have the mean over what was measured.
        num_images: Number of test images to measure on; 0 means all. Of CIFAR, digits and torchvision's arrays the
            first ones; of others they are drawn evenly over the classes by corruption_seed, as the results say.
        corrupted_dir: Folder of a -C set, published, your own or made by fastmagn.corrupt: NAME.npy and labels.npy,
            or NAME/SEVERITY/CLASS/IMAGE. If none, the images are corrupted during the evaluation.
        corruption_seed: Seed of the corruptions that are made during the evaluation, and of the images that are drawn
            by class, 0..2^64 - 1.
        corruption_jpeg: Pass corrupted images of 64 px and more through JPEG of quality 85, as the published
            Tiny-ImageNet-C and ImageNet-C are stored. Smaller ones, as CIFAR-10-C's, never are.
        cache_dir: Folder to store these corrupted images in, for later evaluations of the same images (2.9 GB for
            10,000 CIFAR images); a stored set that holds more corruptions is used too. With fewer than five severities
            none is made. If none, each evaluation makes them anew.
        batch_size: Images per forward pass, 1 or more.
        test_time_flip: Average the logits of an image and of its mirror image.
        weights: Weights to measure: those of the last step (last), or their average (ema; needs train.ema_decay or
            train.swa_fraction above 0).
        num_bins: Number of bins of the RMS calibration error, 1 or more.
        binning: Bins of equal width (width), or of equal numbers of predictions (adaptive).
        pooling: Calibration error of all corrupt predictions together (pooled), or the mean of the corruptions' errors
            (per_corruption).
        save_logits: Store all logits in RUN/logits (38 MB for 10,000 images of 10 classes, 19 GB for ImageNet's 50,000
            of 1,000). fastmagn.evaluate --logits measures from them without the model.
        rse_draws: Number of noisy copies of a test image over whose probabilities rse averages, 1 or more.
        ood: Images of other classes that the model should tell from the test images: names of data sets in data.dir
            (cifar10, digits, torchvision:SVHN ...) or folders of images, separated by commas. If none, this is not
            measured.
        temperature_images: Held-out images that temperature scaling is fitted on; calibration is then measured with
            and without it. They are the run's own data.num_validation_images (validation), the test images that
            eval.num_images leaves out (test), or those of a folder, CLASS/IMAGE in it. If none, nothing is fitted.
        perturbations: Also measure the flip probability on the ten sequences of CIFAR-10-P. Images of 32x32 px only.
        perturbed_dir: Folder of a -P set, such as the published CIFAR-10-P. If none, the sequences are made during the
            evaluation, from corruption_seed.
        fourier: Also measure the Fourier heat map: the error under a perturbation along each Fourier basis image.
        fourier_images: Number of test images of the heat map, drawn evenly over the classes by corruption_seed, 1 or
            more. If there are fewer, all are measured.
        fourier_norm: l2 norm of the heat map's perturbation in each channel, for pixels in [0, 1], above 0. Its authors
            use 4 for CIFAR-10 and 15.7 for ImageNet.
        batch_norm: Statistics of batch normalisation in testing: those of training (trained); or measure a second time
            with those of each test batch (adapt). The results hold the second measurement apart.
        forward: Forward passes of the network as it was trained (exact), or of a copy whose batch normalisations are
            folded into its convolutions (fast), whose logits differ by rounding. What batch_norm adapt measures is
            always exact.
    """

    corruption_set: str = "c19"
    severities: str | int = ALL_SEVERITIES
    num_images: int = 0
    corrupted_dir: Path | None = None
    corruption_seed: int = 0
    corruption_jpeg: bool = True
    cache_dir: Path | None = None
    batch_size: int = 1000
    test_time_flip: bool = False
    weights: Literal["last", "ema"] = "last"
    num_bins: int = 15
    binning: Literal["width", "adaptive"] = "width"
    pooling: Literal["pooled", "per_corruption"] = "pooled"
    save_logits: bool = False
    rse_draws: int = 10
    ood: str | None = None
    temperature_images: str | None = None
    perturbations: bool = False
    perturbed_dir: Path | None = None
    fourier: bool = False
    fourier_images: int = 500
    fourier_norm: float = 4.0
    batch_norm: Literal["trained", "adapt"] = "trained"
    forward: Literal["exact", "fast"] = "exact"

    def __post_init__(self) -> None:
        set_parts("eval.corruption_set", self.corruption_set)
        severity_numbers("eval.severities", self.severities)
        object.__setattr__(self, "severities", str(self.severities))  # YAML's 3 is a number; runs compare one form
        check(self.num_images >= 0, "eval.num_images", self.num_images, "0 (all) or more")
        check(0 <= self.corruption_seed < 2**64, "eval.corruption_seed", self.corruption_seed, "0..2^64 - 1")
        check(self.batch_size >= 1, "eval.batch_size", self.batch_size, "1 or more")
        check(self.num_bins >= 1, "eval.num_bins", self.num_bins, "1 or more")
        check(self.rse_draws >= 1, "eval.rse_draws", self.rse_draws, "1 or more")
        is_used = self.perturbed_dir is None or self.perturbations
        check(is_used, "eval.perturbed_dir", str(self.perturbed_dir), "none without eval.perturbations")
        check(self.fourier_images >= 1, "eval.fourier_images", self.fourier_images, "1 or more")
        norm_ok = 0 < self.fourier_norm < float("inf")
        check(norm_ok, "eval.fourier_norm", self.fourier_norm, "a number above 0")
