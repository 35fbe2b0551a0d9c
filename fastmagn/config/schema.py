"""The schema of a run's configuration: frozen, keyword-only dataclasses.

config/command_line.py makes the command line from them and reads the YAML. The defaults are those of
configs/digits_quickstart.yaml. A field's docstring is its help text, with unit and range. `__post_init__` checks the
range; its message names the field as the user wrote it.
"""

import math
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from fastmagn.config.afa_schema import AfaConfig
from fastmagn.config.augment_schema import AugmentConfig
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.noisymix_schema import NoisyMixConfig
from fastmagn.config.prime_schema import PrimeConfig
from fastmagn.config.spectra_schema import SpectraConfig
from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images to train and test on.

    Args:
        name: Image set: cifar10, cifar100, digits (scikit-learn's, which needs no folder); your own images: folder,
            webdataset (tar shards), hf (parquet or arrow files) or npz (NumPy arrays); or torchvision:NAME, such as
            torchvision:SVHN.
        dir: Folder of the image set in its published layout, DIR/cifar-10-batches-py or DIR/cifar-100-python. For your
            own images: DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE; DIR/train-*.tar and DIR/val-*.tar; for hf
            DIR/data/train-*.parquet and so on, or the name of a data set on the hub; for npz FILE.npz or its folder.
        download: Download a missing CIFAR set into dir, or a data set of the hub. If off, the network is never used.
        num_validation_images: Number of training images to hold out. The model is measured on them after each epoch;
            use them to choose between runs. 0 holds out none.
        image_size: For image files (folder, webdataset, hf, and torchvision's): side of the square images that the
            network is given, 8..4096 px.
        eval_resize_px: For image files: a test image is resized so that its shorter side has this length,
            then its central square is cut out. image_size..4096 px; 0 means image_size * 256 / 224, as torchvision
            does for 224.
        min_crop_area: For image files: smallest share of a training image's area that a random crop keeps, in
            (0, 1].
        source: For image files: decoder of the training images: dali (NVIDIA DALI; on the GPU if there is one),
            pillow (Pillow on worker threads; torchvision is its older name), or auto (dali if it is installed).
        num_workers: For image files: decoding threads of each process, 0..256; 0 means one per core.
        train_shards: For data.name webdataset and hf: the training images' files below dir, such as
            train-{000..146}.tar or train/*.parquet. If none, they are found by their names. For a name on the hub: the
            split.
        test_shards: For data.name webdataset and hf: the test images' files, likewise.
        image_column: For data.name hf: the column of the images. If none, it is found by the features.
        label_column: For data.name hf: the column of the labels; for webdataset: the field of KEY.json. If none, it is
            found by the features; for webdataset it is label.
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
    train_shards: str | None = None
    test_shards: str | None = None
    image_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        check(self.num_validation_images >= 0, "data.num_validation_images", self.num_validation_images, "0 or more")
        size, resize = self.image_size, self.eval_resize_px
        check(8 <= size <= 4096, "data.image_size", size, "8..4096 px")
        resize_ok = resize == 0 or size <= resize <= 4096
        check(resize_ok, "data.eval_resize_px", resize, f"0 (image_size * 256 / 224) or {size}..4096 px")
        check(0 < self.min_crop_area <= 1, "data.min_crop_area", self.min_crop_area, "a share of the area in (0, 1]")
        check(0 <= self.num_workers <= 256, "data.num_workers", self.num_workers, "0 (one per core) or 1..256")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. It normalises its images itself, by the data set's mean and standard deviation.

    Args:
        name: Name of the network. For 32x32 images: resnet18, densenet121, densenet121_k12, inception_v3,
            wideresnet28_10, wideresnet28_4, wideresnet40_2, resnext29_32x4d, resnext29_4x32d (as in AugMix),
            resnet_small, resnet_small_deep (for CPUs). For photographs: resnet50. Also torchvision:NAME for any network
            of torchvision, and timm:NAME for any network of timm (needs the extra timm).
        bn_views: Batch normalisation over all views together (joint, as AugMix does), or over each view by itself
            (per_view, as in separate forward passes). A network without batch normalisation is the same with both.
        sync_bn: With several processes, compute the batch statistics over the images of all processes. The result then
            does not depend on the number of processes, except with methods that mix images of one process.
        weights: File of initial weights, .safetensors or .pt/.pth: a run's checkpoints/last.pt, or weights of timm,
            of torchvision or published for CIFAR; or the name of a model of fastmagn.list_models(). If none, train.seed
            draws them. If the number of classes differs, the last layer is initialised anew. The normalisation stays
            the data set's. A resumed run does not read the file again.
    """

    name: str = "resnet_small"
    bn_views: Literal["joint", "per_view"] = "joint"
    sync_bn: bool = False
    weights: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train.

    Args:
        epochs: Number of passes over the training images, 1 or more.
        clean_epochs: Number of first epochs that train by cross-entropy on the clean views only; the method starts
            after them. 0 or more, below epochs. Such an epoch costs a fraction of the others.
        batch_size: Images per step, each in all its views, 1 or more. The last incomplete batch of an epoch is dropped.
        seed: Seed of the weights and of all other random draws, 0..2^64 - 1.
        max_steps: Stop training after this many steps, then evaluate; 0 means no limit.
        accumulation_steps: Number of forward and backward passes per step, to save memory. Its product with the number
            of processes must divide batch_size.
        amp: Precision of the forward pass: bf16 or fp16 (autocast; fp16 uses a loss scaler), float32 (without
            TensorFloat-32), or auto (bf16 if the hardware has it; a resumed run keeps what its checkpoint has).
        compile: Whether to torch.compile model and loss. auto compiles on CUDA, and on a CPU if the remaining steps
            save more time than compiling takes; a resumed run on a CPU keeps what its checkpoint was trained with.
        compile_mode: Mode of torch.compile; reduce-overhead and max-autotune use CUDA graphs, which allow one
            accumulation step only.
        channels_last: Store weights and activations with channels last.
        deterministic: Use only operations that give the same result in every run on a GPU. This is slower.
        ema_decay: Decay of a moving average of the weights, updated after every step, 0 <= ema_decay < 1; 0 keeps no
            average. `eval.weights ema` measures the average.
        swa_fraction: Share of the epochs, at the run's end, after each of which the weights enter an average of equal
            weights, 0 <= swa_fraction < 1 (stochastic weight averaging); 0 keeps none. A last pass over the training
            views then measures its batch statistics. `eval.weights ema` measures this average, or the last weights if
            max_steps ends the run before there is one.
        checkpoint_every_steps: Number of steps between checkpoints within an epoch, 0 or more; 0 means only at the end
            of each epoch.
        keep_checkpoints: Number of checkpoints kept in RUN/checkpoints, 1 or more: last.pt and those before it.
        profile: Number of steps to trace with torch.profiler into RUN/profile, after a few warm-up steps; 0 means none.
        wandb_project: Project of Weights & Biases that the run's rows and results are sent to (needs the extra wandb).
            If none, nothing is sent.
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
    swa_fraction: float = 0.0
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
        check(0 <= self.swa_fraction < 1, "train.swa_fraction", self.swa_fraction, "0 (no average) <= swa_fraction < 1")
        one = self.ema_decay == 0 or self.swa_fraction == 0
        check(one, "train.swa_fraction", self.swa_fraction, "0 with a train.ema_decay above 0: there is one average")
        check(self.profile >= 0, "train.profile", self.profile, "0 (none) or more")
        check(self.keep_checkpoints >= 1, "train.keep_checkpoints", self.keep_checkpoints, "1 or more")
        steps = self.checkpoint_every_steps
        check(steps >= 0, "train.checkpoint_every_steps", steps, "0 (at epoch ends) or more")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser and its learning-rate schedule.

    Args:
        name: sgd (with Nesterov momentum), muon (orthogonal updates of filters, whose norm is fixed in each layer; sgd
            for all other parameters), or adamw (for transformers and ConvNeXts).
        lr: Learning rate, above 0: the first one of the step schedule, the peak of the other schedules. adamw needs far
            less than the default, such as 1e-4 to fine-tune.
        momentum: Nesterov momentum of sgd and muon, 0 <= momentum < 1; 0 is plain SGD.
        beta1: For adamw: decay of the mean of the gradients, 0 <= beta1 < 1.
        beta2: For adamw: decay of the mean of their squares, 0 <= beta2 < 1.
        weight_decay: L2 penalty, 0 or more: with sgd on all parameters, with muon on all but the filters. With adamw,
            each step takes lr * weight_decay of the weights, but not of biases and scales (parameters of one
            dimension); 0.05 is usual.
        schedule: step (the rate is multiplied by step_factor every step_epochs epochs, or at step_at), one_cycle
            (cosine: up over 30 % of the steps, then down), triangular (linear: up over 20 % of the steps, then down to
            0), or cosine_restarts (cosine: down to 0 in restart_epochs epochs, then again from lr, each time longer).
        step_epochs: For the step schedule: epochs between two steps, 1 or more.
        step_at: For the step schedule: the numbers of epochs after which the rate is multiplied, in place of
            step_epochs: rising, with commas, such as 60,120,160,190. If none, step_epochs decides.
        step_factor: For the step schedule: factor of each step, in (0, 1].
        restart_epochs: For the cosine_restarts schedule: epochs of the first cosine, 1 or more.
        restart_factor: For the cosine_restarts schedule: each cosine is this many times as long as the one before, 1
            or more.
        swa_lr_ratio: With train.swa_fraction: within 5 epochs the learning rate becomes swa_lr_ratio * lr, 0..1; 0
            keeps the schedule.
        filter_lr_ratio: For muon: the filters' learning rate divided by lr, above 0.
        clip_norm: Largest L2 norm of a step's gradient, of all parameters together: a longer one is scaled down to it.
            0 or more; 0 does not clip. With muon, clipping does not shorten the filters' updates: it changes how much a
            step counts in their momentum.
    """

    name: Literal["sgd", "muon", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 5e-4
    schedule: Literal["step", "one_cycle", "triangular", "cosine_restarts"] = "one_cycle"
    step_epochs: int = 50
    step_at: str | int | None = None
    step_factor: float = 0.1
    restart_epochs: int = 20
    restart_factor: int = 2
    swa_lr_ratio: float = 0.0
    filter_lr_ratio: float = 1.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        above_0 = "a number above 0, and finite"
        check(0 < self.lr < math.inf, "optim.lr", self.lr, above_0)
        check(0 <= self.momentum < 1, "optim.momentum", self.momentum, "0 <= momentum < 1")
        check(0 <= self.beta1 < 1, "optim.beta1", self.beta1, "0 <= beta1 < 1")
        check(0 <= self.beta2 < 1, "optim.beta2", self.beta2, "0 <= beta2 < 1")
        check(0 <= self.weight_decay < math.inf, "optim.weight_decay", self.weight_decay, "0 or more, and finite")
        check(self.step_epochs >= 1, "optim.step_epochs", self.step_epochs, "1 or more")
        steps = "1" if self.step_at is None else str(self.step_at)
        numbers = [int(number) for number in steps.split(",")] if re.fullmatch(r"\d{1,6}(,\d{1,6})*", steps) else [0]
        rising = all(first < second for first, second in pairwise([0, *numbers]))
        check(rising, "optim.step_at", self.step_at, "rising numbers of epochs with commas, such as 60,120,160,190")
        if self.step_at is not None:
            object.__setattr__(self, "step_at", steps)  # YAML's 60 is a number; checkpoints compare one form
        check(0 < self.step_factor <= 1, "optim.step_factor", self.step_factor, "a number in (0, 1]")
        check(self.restart_epochs >= 1, "optim.restart_epochs", self.restart_epochs, "1 or more")
        check(self.restart_factor >= 1, "optim.restart_factor", self.restart_factor, "1 or more")
        check(0 <= self.swa_lr_ratio <= 1, "optim.swa_lr_ratio", self.swa_lr_ratio, "0..1")
        check(0 < self.filter_lr_ratio < math.inf, "optim.filter_lr_ratio", self.filter_lr_ratio, above_0)
        check(0 <= self.clip_norm < math.inf, "optim.clip_norm", self.clip_norm, "0 (no clipping) or more, and finite")


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """The rivals that cover or mix images: cutout, mixup, cutmix.

    Args:
        cutout_px: Side of cutout's square, 2..256 px, even. Its authors use 16 for CIFAR-10 and 8 for CIFAR-100.
        mixup_alpha: mixup draws an image's share from Beta(mixup_alpha, mixup_alpha); above 0, up to 100.
        cutmix_alpha: CutMix draws the share of an image outside the box from Beta(cutmix_alpha, cutmix_alpha); above 0,
            up to 100.
        cutmix_probability: Probability that CutMix pastes a box into an image, 0..1.
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
    """The l_inf attack of at and trades.

    Args:
        epsilon: Largest change of a pixel value, for pixels in [0, 1], 0..1. The paper uses 8/255.
        steps: Number of steps of projected gradient descent, 1 or more.
        step_scale: Size of a step, above 0: it changes a pixel value by step_scale * epsilon / steps.
        random_start: For at: start at a uniformly random point within epsilon (Madry et al.) instead of the image.
            trades always starts at the image plus normal noise of standard deviation 0.001.
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
    """The weights of the losses: the paper's equation (6), TRADES' equation (3), DiGN's loss.

    Args:
        consistency_weight: lambda_1: weight of MAGN's misclassification-aware Gaussian consistency (also in NAME+magn),
            and of the Jensen-Shannon divergence of dign's noisy views, 0 or more.
        jsd_weight: lambda_2: weight of the Jensen-Shannon divergence of the AugMix or PRIME views, and of afa_jsd's
            views, 0 or more.
        trades_weight: lambda of equation (3): weight of the divergence of TRADES' adversarial view, 0 or more.
        label_smoothing: Share of the target of every cross-entropy that is spread over all classes, at least 0 and
            below 1.
        detach_weight: Stop the gradient through the confidence p_y that weights the consistency.
        detach_target: Stop the gradient through p(x), the target of the consistency.
    """

    consistency_weight: float = 3.0
    jsd_weight: float = 12.0
    trades_weight: float = 3.0
    label_smoothing: float = 0.0
    detach_weight: bool = False
    detach_target: bool = False

    def __post_init__(self) -> None:
        check(
            0 <= self.consistency_weight < math.inf,
            "loss.consistency_weight",
            self.consistency_weight,
            "0 or more, and finite",
        )
        check(0 <= self.jsd_weight < math.inf, "loss.jsd_weight", self.jsd_weight, "0 or more, and finite")
        check(0 <= self.trades_weight < math.inf, "loss.trades_weight", self.trades_weight, "0 or more, and finite")
        smoothing = self.label_smoothing
        check(0 <= smoothing < 1, "loss.label_smoothing", smoothing, "0 <= label_smoothing < 1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run.

    Args:
        method: Training method, by its name.
        run_dir: Folder of the run. If none, runs/DATA-METHOD-MODEL-seedSEED.
        resume: With auto, a run whose folder has a checkpoint resumes from it. With never, such a folder is an error.
        device: auto (CUDA if there is a GPU), cpu or cuda.
        imports: Python file with your own data sets, networks, methods or corruptions, which is run first. Only
            --import on the command line runs it; in a file this field is a record.
    """

    method: str = "magn_augmix"
    run_dir: Path | None = None
    resume: Literal["auto", "never"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    imports: Path | None = None
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    prime: PrimeConfig = field(default_factory=PrimeConfig)
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    afa: AfaConfig = field(default_factory=AfaConfig)
    noisymix: NoisyMixConfig = field(default_factory=NoisyMixConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        one_number_of_views = self.train.clean_epochs == 0 or self.model.bn_views == "joint"
        check(one_number_of_views, "train.clean_epochs", self.train.clean_epochs, "0 with model.bn_views per_view")
        has_average = self.eval.weights == "last" or self.train.ema_decay > 0 or self.train.swa_fraction > 0
        allowed = "last, or a train.ema_decay or train.swa_fraction above 0"
        check(has_average, "eval.weights", self.eval.weights, allowed)

    @property
    def run_folder(self) -> Path:
        """`run_dir` of a run, which has one: `train` names the folder where none was given."""
        assert self.run_dir is not None
        return self.run_dir
