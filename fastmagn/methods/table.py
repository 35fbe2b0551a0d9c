"""The table of methods: the rows of the paper and their rivals. Reports keep its order.

NAME+magn is the method NAME with MAGN's consistency added.
"""

from typing import TYPE_CHECKING, Any

from fastmagn.errors import check
from fastmagn.registry import resolve

if TYPE_CHECKING:
    from fastmagn.methods.method import Method

METHODS: dict[str, Any] = {
    "standard": "fastmagn.methods.standard:STANDARD",
    "cutout": "fastmagn.methods.mixing:CUTOUT",
    "mixup": "fastmagn.methods.mixing:MIXUP",
    "cutmix": "fastmagn.methods.mixing:CUTMIX",
    "apr": "fastmagn.methods.apr:APR",
    "hybridaugment": "fastmagn.methods.hybridaugment:HYBRIDAUGMENT",
    "autoaugment": "fastmagn.methods.policies:AUTOAUGMENT",
    "trivialaugment": "fastmagn.methods.policies:TRIVIALAUGMENT",
    "randaugment": "fastmagn.methods.policies:RANDAUGMENT",
    "ta_noise": "fastmagn.methods.policies:TA_NOISE",
    "at": "fastmagn.methods.adversarial:AT",
    "trades": "fastmagn.methods.adversarial:TRADES",
    "rse": "fastmagn.methods.rse:RSE",
    "gaussian_noise": "fastmagn.methods.gaussian_noise:GAUSSIAN_NOISE",
    "dign": "fastmagn.methods.dign:DIGN",
    "augmix_no_jsd": "fastmagn.methods.augmix:AUGMIX_NO_JSD",
    "augmix_noise": "fastmagn.methods.augmix_noise:AUGMIX_NOISE",
    "prime_no_jsd": "fastmagn.methods.prime:PRIME_NO_JSD",
    "augmix": "fastmagn.methods.augmix:AUGMIX",
    "prime": "fastmagn.methods.prime:PRIME",
    "afa": "fastmagn.methods.afa:AFA",
    "afa_jsd": "fastmagn.methods.afa:AFA_JSD",
    "afa_augmix": "fastmagn.methods.afa:AFA_AUGMIX",
    "noisymix": "fastmagn.methods.noisymix:NOISYMIX",
    "magn": "fastmagn.methods.magn:MAGN",
    "magn_augmix": "fastmagn.methods.magn:MAGN_AUGMIX",
}


_WITH_MAGN = "+magn"


def base_name(name: str) -> str:
    """The method's name without an addition."""
    return name.removesuffix(_WITH_MAGN)


def is_method(name: str) -> bool:
    """Whether a method, or a method with an addition, could have this name."""
    return base_name(name) in METHODS


def get_method(name: str) -> "Method":
    """The method with this name; for NAME+magn, the method NAME with MAGN's consistency.

    Raises:
        InputError: There is none; the message names `method`, all methods and the nearest.
    """
    base = base_name(name) if isinstance(name, str) else name
    method = resolve(METHODS, base, "method", also=f", or NAME{_WITH_MAGN}")
    if base == name:
        return method
    from fastmagn.methods.magn import with_magn
    from fastmagn.methods.method import Layout

    views = method.forwarded or Layout()
    has_noise = method.uses_noise or method.takes_noise or views.noisy
    has_clean_view = views.clean == 1 and not (has_noise or views.adversarial)
    check(has_clean_view, "method", name, f"a method before {_WITH_MAGN} that has no noisy or adversarial views itself")
    return with_magn(method)
