"""The titles and the order of methods, networks, data sets and corruptions in tables and figures."""

import re
from collections.abc import Sequence

from fastmagn.corruptions.sets import AT, CIFAR_CBAR, IMAGENET_CBAR, in_order, sets_to_show
from fastmagn.errors import counted
from fastmagn.methods.table import METHODS, base_name, get_method, is_method

NETWORK_TITLES = {
    "resnet18": "ResNet-18",
    "densenet121": "DenseNet-121",
    "densenet121_k12": "DenseNet-121 (k=12)",
    "inception_v3": "Inception-V3",
    "wideresnet40_2": "WideResNet-40-2",
    "wideresnet28_10": "WideResNet-28-10",
    "wideresnet28_4": "WideResNet-28-4",
    "resnext29_32x4d": "ResNeXt-29 (32x4d)",
    "resnext29_4x32d": "ResNeXt-29 (4x32d)",
    "resnet50": "ResNet-50",
    "resnet_small": "ResNet-small",
    "resnet_small_deep": "ResNet-small, deep",
}

DATA_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "Digits"}

# ImageNet-C's four kinds, each with its "extra" corruption at the end.
CORRUPTION_KINDS = {
    "Noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "Blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "Weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "Digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
    "C-bar": tuple(dict.fromkeys(CIFAR_CBAR + IMAGENET_CBAR)),
}


def method_title(name: str) -> str:
    return get_method(name).title if is_method(name) else name


def method_order(name: str) -> tuple[int, str]:
    """The sort key of a method; NAME+magn follows NAME."""
    return order(METHODS, base_name(name))[0], name


def network_title(name: str) -> str:
    return NETWORK_TITLES.get(name, name)


def data_title(name: str) -> str:
    return DATA_TITLES.get(name, name)


def corruption_title(name: str) -> str:
    """`jpeg_compression` as "JPEG compression"."""
    return name.replace("_", " ").capitalize().replace("Jpeg", "JPEG")


def order(names: Sequence[str] | dict[str, str], name: str) -> tuple[int, str]:
    """A sort key: the place in `names`. Unknown names come last, in alphabetical order."""
    known = tuple(names)
    return (known.index(name) if name in known else len(known), name)


def by_kind(names: Sequence[str]) -> dict[str, list[str]]:
    """Those of these corruptions that are of each kind; those that are not fastmagn's own are of the kind Other."""
    known = {name for members in CORRUPTION_KINDS.values() for name in members}
    kinds = CORRUPTION_KINDS | {"Other": [name for name in names if name not in known]}
    return {kind: [name for name in members if name in names] for kind, members in kinds.items()}


def measured_title(corruption_set: str) -> str:
    """The title of the set that a calibration error was measured on: its name, or its corruptions joined by +."""
    title, *severities = corruption_set.split(AT)
    return AT.join([set_title(title.split("+")) if "+" in title else title, *severities])


def set_title(names: Sequence[str]) -> str:
    """The shortest exact name of a set of corruptions: "c18", "c18 without frost", "fog + snow", "7 corruptions"."""
    chosen = set(names)
    if not chosen:
        return "no corruption"
    sets = sets_to_show(chosen)
    whole = {title: set(members) for title, members in sets.items() if set(members) <= chosen}
    for title, members in whole.items():
        if chosen == members:
            return title
    for title, members in whole.items():
        if "cbar" in whole and chosen == members | whole["cbar"]:
            return f"{title}+cbar"
    for title, ordered in sets.items():
        missing = set(ordered) - chosen
        if chosen < set(ordered) and len(missing) <= 2:
            return f"{title} without {' and '.join(name for name in ordered if name in missing)}"
    if len(chosen) <= 3:
        return " + ".join(in_order(chosen))
    return counted(len(chosen), "corruption")


def file_name(*parts: str) -> str:
    """A name of lower-case letters, digits and underscores, for any file system and for LaTeX labels."""
    return re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower()).strip("_")
