"""The policies by name: which operations, of which strengths, how likely.

Sources: S. G. Müller and F. Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", ICCV 2021;
E. D. Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2020; E. D. Cubuk
et al., "AutoAugment: Learning augmentation strategies from data", CVPR 2019. Operations and strengths are those of
torchvision.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from fastmagn.augment.operations import NUM_AUGMIX_OPERATIONS
from fastmagn.augment.operations import OPERATIONS as AUGMIX_OPERATIONS

# Operation -> what its value is; none if it has no value. The operations are torchvision's on Pillow's images.
OPERATIONS = {
    "identity": "none",
    "shear_x": "px per px",
    "shear_y": "px per px",
    "translate_x": "px",
    "translate_y": "px",
    "rotate": "degrees",
    "brightness": "factor",
    "color": "factor",
    "contrast": "factor",
    "sharpness": "factor",
    "posterize": "bits",
    "solarize": "threshold",
    "autocontrast": "none",
    "equalize": "none",
    "invert": "none",
}
FACTORS = ("brightness", "color", "contrast", "sharpness")
LOWEST_LEVEL = 0.1  # of AugMix's operations
AutoAugmentName = Literal["cifar10", "imagenet", "svhn"]
AUTOAUGMENT_NAMES: tuple[AutoAugmentName, ...] = ("cifar10", "imagenet", "svhn")


@dataclass(frozen=True)
class Choice:
    """An operation that a step can draw.

    Args:
        operation: A name in OPERATIONS.
        values: What it is given, in the operation's unit, each as likely as the others; one value if it takes none.
        probability: That it is applied once it is drawn, 0..1.
    """

    operation: str
    values: tuple[float, ...] = (0.0,)
    probability: float = 1.0


# One choice of a step is drawn uniformly; the steps of a sub-policy follow each other.
Step = tuple[Choice, ...]
SubPolicy = tuple[Step, ...]


class Definition(Protocol):
    """A policy without its interpolation and its fill: hashable, since tables are cached by it."""

    def __hash__(self) -> int: ...

    def sub_policies(self, height: int, width: int) -> tuple[SubPolicy, ...]:
        """The sub-policies for images of one size, of which one is drawn uniformly for each image."""
        ...


@dataclass(frozen=True)
class TrivialAugmentPolicy:
    """TrivialAugment's wide space: one operation of one of `num_bins` strengths."""

    num_bins: int = 31

    def sub_policies(self, height: int, width: int) -> tuple[SubPolicy, ...]:
        space = _space(self.num_bins, shear=0.99, shift=(32.0, 32.0), degrees=135.0, factor=0.99, lost_bits=6)
        return (((*(Choice(name, signed(name, values)) for name, values in space.items()),),),)


@dataclass(frozen=True)
class RandAugmentPolicy:
    """RandAugment: `num_ops` operations, each at strength `magnitude` of `num_bins`."""

    num_ops: int = 2
    magnitude: int = 9
    num_bins: int = 31

    def sub_policies(self, height: int, width: int) -> tuple[SubPolicy, ...]:
        space = {"identity": [0.0]} | _learned_space(self.num_bins, height, width)
        step = tuple(
            Choice(name, signed(name, values[self.magnitude : self.magnitude + 1] if len(values) > 1 else values))
            for name, values in space.items()
        )
        return ((step,) * self.num_ops,)


@dataclass(frozen=True)
class AutoAugmentPolicy:
    """A learned policy of AutoAugment: 25 sub-policies of two operations with probabilities."""

    name: AutoAugmentName = "imagenet"

    def sub_policies(self, height: int, width: int) -> tuple[SubPolicy, ...]:
        space = _learned_space(10, height, width) | {"invert": [0.0]}

        def step(text: str) -> Step:
            operation, probability, *level = text.split()
            values = [space[operation][int(level[0])]] if level else [0.0]
            return (Choice(operation, signed(operation, values), float(probability)),)

        rows = _LEARNED[self.name].strip().splitlines()
        return tuple(tuple(step(text) for text in row.split(",")) for row in rows)


@dataclass(frozen=True)
class AugMixOperation:
    """One of AugMix's operations at one of `num_levels` levels, equally spaced in [0.1, aug_severity].

    It is step `step` of a policy without other steps, and so drawn apart from every policy with fewer steps.
    """

    step: int
    aug_severity: int = 3
    all_operations: bool = False
    num_levels: int = 128

    def sub_policies(self, height: int, width: int) -> tuple[SubPolicy, ...]:
        extent = self.aug_severity - LOWEST_LEVEL
        levels = [LOWEST_LEVEL + extent * (k + 0.5) / self.num_levels for k in range(self.num_levels)]
        choices = []
        for operation in AUGMIX_OPERATIONS if self.all_operations else AUGMIX_OPERATIONS[:NUM_AUGMIX_OPERATIONS]:
            values = [float(operation.magnitude(level, height, width)) for level in levels]
            values = [0.0] if operation.unit == "none" else values
            signs = (1.0, -1.0) if operation.signed else (1.0,)
            choices.append(Choice(operation.name, tuple(sign * value for value in values for sign in signs)))
        return ((*((),) * self.step, tuple(choices)),)


def signed(name: str, values: list[float]) -> tuple[float, ...]:
    """The values of an operation: each strength with either sign, where the operation has signs; factors around 1."""
    if OPERATIONS[name] in ("px per px", "px", "degrees"):
        return tuple(sign * value for value in values for sign in (1.0, -1.0))
    if name in FACTORS:
        return tuple(1.0 + sign * value for value in values for sign in (1.0, -1.0))
    return tuple(values)


def _space(
    bins: int, *, shear: float, shift: tuple[float, float], degrees: float, factor: float, lost_bits: int
) -> dict[str, list[float]]:
    """The strengths of torchvision's operations, rising from nothing: float32, as torchvision has them."""
    import torch  # here, since the draws of views without a policy need no PyTorch

    def evenly(first: float, last: float) -> list[float]:
        return torch.linspace(first, last, bins, dtype=torch.float32, device="cpu").tolist()

    def upwards(last: float) -> list[float]:
        return evenly(0.0, last)

    kept = 8 - torch.arange(bins, dtype=torch.float32, device="cpu") / ((bins - 1) / lost_bits)
    thresholds = [255.0 * share for share in evenly(1.0, 0.0)]
    return {
        "identity": [0.0],
        "shear_x": upwards(shear),
        "shear_y": upwards(shear),
        "translate_x": upwards(shift[0]),
        "translate_y": upwards(shift[1]),
        "rotate": upwards(degrees),
        **{name: upwards(factor) for name in FACTORS},
        "posterize": [float(bits) for bits in kept.round().int().tolist()],
        "solarize": thresholds,
        "autocontrast": [0.0],
        "equalize": [0.0],
    }


def _learned_space(bins: int, height: int, width: int) -> dict[str, list[float]]:
    """The strengths of AutoAugment and RandAugment."""
    shift = (150.0 / 331.0 * width, 150.0 / 331.0 * height)
    space = _space(bins, shear=0.3, shift=shift, degrees=30.0, factor=0.9, lost_bits=4)
    del space["identity"]
    return space


# A line for each sub-policy: operation, probability, strength 0..9.
_LEARNED = {
    "imagenet": """
posterize 0.4 8, rotate 0.6 9
solarize 0.6 5, autocontrast 0.6
equalize 0.8, equalize 0.6
posterize 0.6 7, posterize 0.6 6
equalize 0.4, solarize 0.2 4
equalize 0.4, rotate 0.8 8
solarize 0.6 3, equalize 0.6
posterize 0.8 5, equalize 1.0
rotate 0.2 3, solarize 0.6 8
equalize 0.6, posterize 0.4 6
rotate 0.8 8, color 0.4 0
rotate 0.4 9, equalize 0.6
equalize 0.0, equalize 0.8
invert 0.6, equalize 1.0
color 0.6 4, contrast 1.0 8
rotate 0.8 8, color 1.0 2
color 0.8 8, solarize 0.8 7
sharpness 0.4 7, invert 0.6
shear_x 0.6 5, equalize 1.0
color 0.4 0, equalize 0.6
equalize 0.4, solarize 0.2 4
solarize 0.6 5, autocontrast 0.6
invert 0.6, equalize 1.0
color 0.6 4, contrast 1.0 8
equalize 0.8, equalize 0.6
""",
    "cifar10": """
invert 0.1, contrast 0.2 6
rotate 0.7 2, translate_x 0.3 9
sharpness 0.8 1, sharpness 0.9 3
shear_y 0.5 8, translate_y 0.7 9
autocontrast 0.5, equalize 0.9
shear_y 0.2 7, posterize 0.3 7
color 0.4 3, brightness 0.6 7
sharpness 0.3 9, brightness 0.7 9
equalize 0.6, equalize 0.5
contrast 0.6 7, sharpness 0.6 5
color 0.7 7, translate_x 0.5 8
equalize 0.3, autocontrast 0.4
translate_y 0.4 3, sharpness 0.2 6
brightness 0.9 6, color 0.2 8
solarize 0.5 2, invert 0.0
equalize 0.2, autocontrast 0.6
equalize 0.2, equalize 0.6
color 0.9 9, equalize 0.6
autocontrast 0.8, solarize 0.2 8
brightness 0.1 3, color 0.7 0
solarize 0.4 5, autocontrast 0.9
translate_y 0.9 9, translate_y 0.7 9
autocontrast 0.9, solarize 0.8 3
equalize 0.8, invert 0.1
translate_y 0.7 9, autocontrast 0.9
""",
    "svhn": """
shear_x 0.9 4, invert 0.2
shear_y 0.9 8, invert 0.7
equalize 0.6, solarize 0.6 6
invert 0.9, equalize 0.6
equalize 0.6, rotate 0.9 3
shear_x 0.9 4, autocontrast 0.8
shear_y 0.9 8, invert 0.4
shear_y 0.9 5, solarize 0.2 6
invert 0.9, autocontrast 0.8
equalize 0.6, rotate 0.9 3
shear_x 0.9 4, solarize 0.3 3
shear_y 0.8 8, invert 0.7
equalize 0.9, translate_y 0.6 6
invert 0.9, equalize 0.6
contrast 0.3 3, rotate 0.8 4
invert 0.8, translate_y 0.0 2
shear_y 0.7 6, solarize 0.4 8
invert 0.6, rotate 0.8 4
shear_y 0.3 7, translate_x 0.9 3
shear_x 0.1 6, invert 0.6
solarize 0.7 2, translate_y 0.6 7
shear_y 0.8 4, invert 0.8
shear_x 0.7 9, translate_y 0.8 3
shear_y 0.8 5, autocontrast 0.7
shear_x 0.7 2, invert 0.1
""",
}
