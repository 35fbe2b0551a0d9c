"""The one schema: frozen, keyword-only dataclasses. cli.py makes the command line of them and reads the YAML.

The defaults are configs/digits_quickstart.yaml. A field's docstring is its help text, with its unit and range;
`__post_init__` checks the range and names the field as the user wrote it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images to train and test on.

    Args:
        name: Image set: cifar10, cifar100, digits (scikit-learn's, embedded, needs no folder), or folder (your own).
        dir: Folder that holds the published layout: DIR/cifar-10-batches-py or DIR/cifar-100-python; for folder,
            DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE.
        download: Fetch a CIFAR set that is absent into dir; off means no network access at all.
        num_validation_images: Training images held out and measured after each epoch, 0 for none; use these to select.
        image_size: For name folder: side of the square that the network sees, 8..4096 px.
        eval_resize_px: For name folder: the length to which the shorter side of a validation image is resized before
            its central square is cut out, image_size..4096 px; 0 means image_size * 256 / 224, as torchvision does for
            224 (the option resize_px of fastmagn.corrupt has another default).
        min_crop_area: For name folder: a random resized crop keeps at least this share of a training image's area, in
            (0, 1].
        source: For name folder: what decodes the training images: dali (NVIDIA DALI; on the GPU where there is one),
            pillow (Pillow on worker threads; torchvision is its older name), or auto (dali where it is installed).
        num_workers: For name folder: threads that decode images for a process, 0..256; 0 means one for each of its
            cores.
    """

    name: str = "digits"
    dir: Path = Path("data")
    download: bool = False
    num_validation_images: int = 0
    image_size: int = 224
    eval_resize_px: int = 0
    min_crop_area: float = 0.08
    source: Literal["auto", "dali", "pillow", "torchvision"] = "auto"
    num_workers: int = 0

    def __post_init__(self) -> None:
        check(self.num_validation_images >= 0, "data.num_validation_images", self.num_validation_images, "0 or more")
        size, resize = self.image_size, self.eval_resize_px
        check(8 <= size <= 4096, "data.image_size", size, "8..4096 px")
        resize_ok = resize == 0 or size <= resize <= 4096
        check(resize_ok, "data.eval_resize_px", resize, f"0 (image_size * 256 / 224) or {size}..4096 px")
        check(0 < self.min_crop_area <= 1, "data.min_crop_area", self.min_crop_area, "a share of the area in (0, 1]")
        check(0 <= self.num_workers <= 256, "data.num_workers", self.num_workers, "0 (one a core) or 1..256")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network; it normalises its images itself, with the data set's mean and standard deviation.

    Args:
        name: Network for 32x32 images: resnet18, densenet121, densenet121_k12, inception_v3, wideresnet28_10,
            wideresnet40_2, resnext29_32x4d, resnext29_4x32d (AugMix's), resnet_small (for CPUs); for photographs:
            resnet50; or any network of torchvision, torchvision:NAME, or of timm, timm:NAME (needs the extra timm).
        bn_views: Batch normalisation over all views together (joint, AugMix's) or each view by itself (per_view,
            what separate forward passes would compute; no difference in a network without any).
        sync_bn: With several processes, normalise over the images of all of them, not of each by itself. The numbers
            then do not depend on how many processes there are.
        weights: File that the first weights come from, .safetensors or .pt/.pth: of a run's checkpoints/last.pt, of
            timm or torchvision; none draws them from train.seed. A classifier of other classes stays new; images are
            normalised as always. A run that goes on from its checkpoint does not read it again.
    """

    name: str = "resnet_small"
    bn_views: Literal["joint", "per_view"] = "joint"
    sync_bn: bool = False
    weights: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train.

    Args:
        epochs: Passes over the training images, 1 or more.
        clean_epochs: First epochs that train on the clean views only, by cross-entropy, before the method's own; 0 or
            more, below epochs. They cost a fraction of the others.
        batch_size: Images a step (each in all its views), 1 or more; the last incomplete batch is dropped.
        seed: Seed of the weights and of the whole random stream, 0..2^64 - 1.
        max_steps: Stop after this many steps, then evaluate; 0 means all of them.
        accumulation_steps: Forward and backward passes that a step is cut into, for less memory; with the number of
            processes it divides batch_size.
        amp: Precision of the forward pass: bf16 or fp16 (autocast; fp16 with a loss scaler), float32, or auto (bf16
            where the hardware has it).
        compile: torch.compile model and loss; auto means on CUDA only.
        compile_mode: torch.compile's mode; reduce-overhead and max-autotune use CUDA graphs.
        channels_last: Keep weights and activations channels last.
        deterministic: Use only operations whose results do not vary from run to run on a GPU; slower.
        ema_decay: Decay of a moving average of the weights, updated every step, 0 <= ema_decay < 1; 0 keeps none.
            `eval.weights ema` measures it.
        checkpoint_every_steps: Also save a checkpoint every so many steps, 0 or more; 0 means at epoch ends only.
        keep_checkpoints: Checkpoints that RUN/checkpoints holds, 1 or more: last.pt and the ones before it.
        profile: Trace so many steps with torch.profiler into RUN/profile, after a few to warm up; 0 means none.
        wandb_project: Project of Weights & Biases that gets the run's rows and results (the extra wandb); none sends
            nothing.
    """

    epochs: int = 30
    clean_epochs: int = 0
    batch_size: int = 64
    seed: int = 0
    max_steps: int = 0
    accumulation_steps: int = 1
    amp: Literal["auto", "bf16", "fp16", "float32"] = "auto"
    compile: Literal["auto"] | bool = "auto"
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    channels_last: bool = True
    deterministic: bool = False
    ema_decay: float = 0.0
    checkpoint_every_steps: int = 0
    keep_checkpoints: int = 2
    profile: int = 0
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "train.epochs", self.epochs, "1 or more")
        check(0 <= self.clean_epochs < self.epochs, "train.clean_epochs", self.clean_epochs, f"0..{self.epochs - 1}")
        check(self.batch_size >= 1, "train.batch_size", self.batch_size, "1 or more")
        check(0 <= self.seed < 2**64, "train.seed", self.seed, "0..2^64 - 1")
        check(self.max_steps >= 0, "train.max_steps", self.max_steps, "0 (all) or more")
        pieces = self.accumulation_steps
        divides = pieces >= 1 and self.batch_size % pieces == 0
        check(divides, "train.accumulation_steps", pieces, f"a divisor of train.batch_size {self.batch_size}")
        check(0 <= self.ema_decay < 1, "train.ema_decay", self.ema_decay, "0 (no average) <= ema_decay < 1")
        check(self.profile >= 0, "train.profile", self.profile, "0 (none) or more")
        check(self.keep_checkpoints >= 1, "train.keep_checkpoints", self.keep_checkpoints, "1 or more")
        steps = self.checkpoint_every_steps
        check(steps >= 0, "train.checkpoint_every_steps", steps, "0 (at epoch ends) or more")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser and its learning-rate schedule.

    Args:
        name: sgd (with Nesterov momentum), or muon (orthogonal updates of filters, and sgd for all else).
        lr: Learning rate: the first one of the step schedule, the peak of one_cycle; above 0.
        momentum: Nesterov momentum, 0 <= momentum < 1; 0 is plain SGD.
        weight_decay: L2 penalty on all parameters, 0 or more.
        schedule: step (lr * step_factor every step_epochs), one_cycle (cosine up over 30 % of the steps, then down), or
            triangular (straight up over 20 %, then straight down to 0).
        step_epochs: Epochs between two steps of the step schedule, 1 or more.
        step_factor: Factor of each step of the step schedule, in (0, 1].
        filter_lr_ratio: With muon, the filters' learning rate over lr, above 0.
    """

    name: Literal["sgd", "muon"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["step", "one_cycle", "triangular"] = "one_cycle"
    step_epochs: int = 50
    step_factor: float = 0.1
    filter_lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        check(self.lr > 0, "optim.lr", self.lr, "a number above 0")
        check(0 <= self.momentum < 1, "optim.momentum", self.momentum, "0 <= momentum < 1")
        check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        check(self.step_epochs >= 1, "optim.step_epochs", self.step_epochs, "1 or more")
        check(0 < self.step_factor <= 1, "optim.step_factor", self.step_factor, "a number in (0, 1]")
        check(self.filter_lr_ratio > 0, "optim.filter_lr_ratio", self.filter_lr_ratio, "a number above 0")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How views are made: the base transform of the clean view, AugMix, Gaussian noise.

    Args:
        backend: Engine that makes the views: auto (the fastest exact one for the device), numba, kornia, dali, pil.
        aug_severity: AugMix's strength, 1..10: an operation's level is uniform in [0.1, aug_severity].
        random_aug_severity: Draw the strength uniformly from 1..aug_severity for each image and view.
        mixture_width: Number of chains that an AugMix view mixes, 1..8.
        mixture_depth: Operations in a chain, 1..8; -1 draws it uniformly from 1, 2, 3 for each chain.
        all_operations: Add colour, contrast, brightness and sharpness to AugMix's nine operations; these overlap
            the test corruptions.
        num_noise_samples: Noisy views of each image for magn, magn_augmix and dign, 1..8; MAGN averages their
            divergences.
        sigma_max: Largest standard deviation of the Gaussian noise, pixels in [0, 1]; one sigma an image and draw.
        rse_sigma: Standard deviation of the noise of rse, pixels in [0, 1], at training and at test time, 0..10.
        crop_padding_px: Black border from which the random crop is taken, 0..64 px; 0 turns the crop off.
        horizontal_flip: Flip an image left to right with probability 1/2.
        color_jitter: Brightness, contrast and saturation factors are uniform in [1 - color_jitter, 1 + color_jitter],
            0..1.
        rotation_deg: The clean view is rotated uniformly within +-rotation_deg, 0..30 degrees.
    """

    backend: Literal["auto", "numba", "kornia", "dali", "pil"] = "auto"
    aug_severity: int = 3
    random_aug_severity: bool = False
    mixture_width: int = 3
    mixture_depth: int = -1
    all_operations: bool = False
    num_noise_samples: int = 1
    sigma_max: float = 0.2
    rse_sigma: float = 0.1
    crop_padding_px: int = 4
    horizontal_flip: bool = False
    color_jitter: float = 0.0
    rotation_deg: float = 2.0

    def __post_init__(self) -> None:
        check(1 <= self.aug_severity <= 10, "augment.aug_severity", self.aug_severity, "1..10")
        check(1 <= self.mixture_width <= 8, "augment.mixture_width", self.mixture_width, "1..8")
        depth_ok = self.mixture_depth == -1 or 1 <= self.mixture_depth <= 8
        check(depth_ok, "augment.mixture_depth", self.mixture_depth, "-1 (drawn from 1, 2, 3) or 1..8")
        check(1 <= self.num_noise_samples <= 8, "augment.num_noise_samples", self.num_noise_samples, "1..8")
        check(0 <= self.sigma_max <= 10, "augment.sigma_max", self.sigma_max, "0..10")
        check(0 <= self.rse_sigma <= 10, "augment.rse_sigma", self.rse_sigma, "0..10")
        check(0 <= self.crop_padding_px <= 64, "augment.crop_padding_px", self.crop_padding_px, "0..64")
        check(0 <= self.color_jitter <= 1, "augment.color_jitter", self.color_jitter, "0..1")
        check(0 <= self.rotation_deg <= 30, "augment.rotation_deg", self.rotation_deg, "0..30")


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """The rivals that cover or mix images: cutout, mixup, cutmix.

    Args:
        cutout_px: Side of cutout's square, 2..256 px and even; its authors take 16 on CIFAR-10, 8 on CIFAR-100.
        mixup_alpha: mixup's share of an image is from Beta(mixup_alpha, mixup_alpha); above 0, to 100.
        cutmix_alpha: CutMix's box leaves a share of the image from Beta(cutmix_alpha, cutmix_alpha); above 0, to 100.
        cutmix_probability: Probability that an image gets a box, 0..1.
    """

    cutout_px: int = 16
    mixup_alpha: float = 1.0
    cutmix_alpha: float = 1.0
    cutmix_probability: float = 0.5

    def __post_init__(self) -> None:
        side_ok = 2 <= self.cutout_px <= 256 and self.cutout_px % 2 == 0
        check(side_ok, "mixing.cutout_px", self.cutout_px, "an even number in 2..256")
        alpha = "a number above 0, up to 100"
        check(0 < self.mixup_alpha <= 100, "mixing.mixup_alpha", self.mixup_alpha, alpha)
        check(0 < self.cutmix_alpha <= 100, "mixing.cutmix_alpha", self.cutmix_alpha, alpha)
        check(0 <= self.cutmix_probability <= 1, "mixing.cutmix_probability", self.cutmix_probability, "0..1")


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """The l_inf attack inside at and trades.

    Args:
        epsilon: Largest change of a pixel value, pixels in [0, 1], 0..1; the paper's is 8/255.
        steps: Steps of projected gradient descent, 1 or more.
        step_scale: A step changes a pixel value by step_scale * epsilon / steps, above 0.
        random_start: at starts at a uniformly random point within epsilon (Madry et al.), not at the image itself;
            trades always starts at normals of standard deviation 0.001.
    """

    epsilon: float = 8 / 255
    steps: int = 7
    step_scale: float = 2.5
    random_start: bool = True

    def __post_init__(self) -> None:
        check(0 <= self.epsilon <= 1, "attack.epsilon", self.epsilon, "0..1")
        check(self.steps >= 1, "attack.steps", self.steps, "1 or more")
        check(0 < self.step_scale < float("inf"), "attack.step_scale", self.step_scale, "a number above 0")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of equation (6), of TRADES' (3), of DiGN.

    Args:
        consistency_weight: lambda_1, weight of the misclassification-aware Gaussian consistency, and of dign's
            Jensen-Shannon divergence of the noisy views, 0 or more.
        jsd_weight: lambda_2, weight of the Jensen-Shannon divergence of the AugMix views, 0 or more.
        trades_weight: lambda of equation (3), weight of TRADES' divergence of the adversarial view, 0 or more.
        label_smoothing: Share of the clean view's target that is spread over all classes, 0 <= label_smoothing < 1.
        detach_weight: Stop the gradient through the confidence p_y that weighs the consistency.
        detach_target: Stop the gradient through p(x) as the consistency's target.
    """

    consistency_weight: float = 3.0
    jsd_weight: float = 12.0
    trades_weight: float = 3.0
    label_smoothing: float = 0.0
    detach_weight: bool = False
    detach_target: bool = False

    def __post_init__(self) -> None:
        check(self.consistency_weight >= 0, "loss.consistency_weight", self.consistency_weight, "0 or more")
        check(self.jsd_weight >= 0, "loss.jsd_weight", self.jsd_weight, "0 or more")
        check(self.trades_weight >= 0, "loss.trades_weight", self.trades_weight, "0 or more")
        smoothing = self.label_smoothing
        check(0 <= smoothing < 1, "loss.label_smoothing", smoothing, "0 <= label_smoothing < 1")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured after training.

    Args:
        corruption_set: c19 (all), c18 (without gaussian_noise, the paper's), c15 (the usual benchmark's).
        num_images: First so many test images, 0 for all.
        corrupted_dir: Folder of a published or made -C set; none means the corruptions are made on the fly.
        corruption_seed: Seed of the corruptions made on the fly, 0..2^64 - 1.
        cache_dir: Folder that keeps the corruptions made here, for later evaluations of the same images to read (2.9 GB
            for 10,000 CIFAR images); none makes them anew each time.
        batch_size: Images a forward pass, 1 or more.
        test_time_flip: Measure the mean of the logits of an image and of its mirror image.
        weights: The last step's weights (last), or their moving average (ema, where train.ema_decay keeps one).
        num_bins: Bins of the RMS calibration error, 1 or more.
        binning: Bins of equal width (width) or of equal numbers of predictions (adaptive).
        pooling: All corrupt predictions pooled (pooled), or the mean of each corruption's error (per_corruption).
        save_logits: Keep all logits in RUN/logits, from which evaluate --logits measures again without the model.
        rse_draws: Noisy copies of a test image whose probabilities rse averages, 1 or more.
    """

    corruption_set: Literal["c15", "c18", "c19"] = "c19"
    num_images: int = 0
    corrupted_dir: Path | None = None
    corruption_seed: int = 0
    cache_dir: Path | None = None
    batch_size: int = 1000
    test_time_flip: bool = False
    weights: Literal["last", "ema"] = "last"
    num_bins: int = 15
    binning: Literal["width", "adaptive"] = "width"
    pooling: Literal["pooled", "per_corruption"] = "pooled"
    save_logits: bool = False
    rse_draws: int = 10

    def __post_init__(self) -> None:
        check(self.num_images >= 0, "eval.num_images", self.num_images, "0 (all) or more")
        check(0 <= self.corruption_seed < 2**64, "eval.corruption_seed", self.corruption_seed, "0..2^64 - 1")
        check(self.batch_size >= 1, "eval.batch_size", self.batch_size, "1 or more")
        check(self.num_bins >= 1, "eval.num_bins", self.num_bins, "1 or more")
        check(self.rse_draws >= 1, "eval.rse_draws", self.rse_draws, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run.

    Args:
        method: Name of the training method; the end of this help lists them.
        run_dir: The run's folder; none means runs/DATA-METHOD-MODEL-seedSEED.
        resume: auto goes on from the run folder's last checkpoint if it has one; never refuses a folder with one.
        device: auto (CUDA where there is one), cpu or cuda.
    """

    method: str = "magn_augmix"
    run_dir: Path | None = None
    resume: Literal["auto", "never"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        one_number_of_views = self.train.clean_epochs == 0 or self.model.bn_views == "joint"
        check(one_number_of_views, "train.clean_epochs", self.train.clean_epochs, "0 with model.bn_views per_view")
        has_average = self.eval.weights == "last" or self.train.ema_decay > 0
        check(has_average, "eval.weights", self.eval.weights, "last, or a train.ema_decay above 0")
