"""Methods, by name: the views a method needs, how it changes them, its loss. The paper's rows and their rivals.

Shape letters: V views, B batch, K classes, C H W image. Targets are labels int64 [B], or probabilities float32 [B, K].
"""

from fastmagn.methods.method import Method
from fastmagn.registry import resolve

METHODS = {
    "standard": "fastmagn.methods.standard:STANDARD",
    "at": "fastmagn.methods.adversarial:AT",
    "trades": "fastmagn.methods.adversarial:TRADES",
    "rse": "fastmagn.methods.rse:RSE",
    "augmix": "fastmagn.methods.augmix:AUGMIX",
    "magn": "fastmagn.methods.magn:MAGN",
    "magn_augmix": "fastmagn.methods.magn:MAGN_AUGMIX",
    "cutout": "fastmagn.methods.mixing:CUTOUT",
    "mixup": "fastmagn.methods.mixing:MIXUP",
    "cutmix": "fastmagn.methods.mixing:CUTMIX",
    "autoaugment": "fastmagn.methods.policies:AUTOAUGMENT",
    "trivialaugment": "fastmagn.methods.policies:TRIVIALAUGMENT",
    "dign": "fastmagn.methods.dign:DIGN",
}


def get_method(name: str) -> Method:
    """The method registered as `name`; an InputError that names `method` otherwise."""
    return resolve(METHODS, name, "method")
