"""The table of methods: the rows of the paper and their rivals. Reports keep its order."""

from typing import TYPE_CHECKING, Any

from fastmagn.registry import resolve

if TYPE_CHECKING:
    from fastmagn.methods.method import Method

METHODS: dict[str, Any] = {
    "standard": "fastmagn.methods.standard:STANDARD",
    "cutout": "fastmagn.methods.mixing:CUTOUT",
    "mixup": "fastmagn.methods.mixing:MIXUP",
    "cutmix": "fastmagn.methods.mixing:CUTMIX",
    "autoaugment": "fastmagn.methods.policies:AUTOAUGMENT",
    "trivialaugment": "fastmagn.methods.policies:TRIVIALAUGMENT",
    "randaugment": "fastmagn.methods.policies:RANDAUGMENT",
    "ta_noise": "fastmagn.methods.policies:TA_NOISE",
    "at": "fastmagn.methods.adversarial:AT",
    "trades": "fastmagn.methods.adversarial:TRADES",
    "rse": "fastmagn.methods.rse:RSE",
    "dign": "fastmagn.methods.dign:DIGN",
    "augmix": "fastmagn.methods.augmix:AUGMIX",
    "magn": "fastmagn.methods.magn:MAGN",
    "magn_augmix": "fastmagn.methods.magn:MAGN_AUGMIX",
}


def get_method(name: str) -> "Method":
    """The method with this name.

    Raises:
        InputError: There is none; the message names `method`, all methods and the nearest.
    """
    return resolve(METHODS, name, "method")
