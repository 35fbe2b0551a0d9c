"""fastmagn: corruption-robust image classifiers (MAGN, AugMix) trained at the speed of the model.

For other people's code: `AugMix`, `TrivialAugment`, `RandAugment`, `AutoAugment`, `MAGNLoss` and `jensen_shannon` in a
training loop; `corrupt` and `evaluate_robustness` to measure any classifier; `load` to use a trained one, and
`list_models` for the names of those that come with the package.
"""

from typing import TYPE_CHECKING

from fastmagn.registry import lazy_attributes
from fastmagn.version import __version__ as __version__

__all__ = [
    *("AugMix", "AutoAugment", "MAGNLoss", "RandAugment", "TrivialAugment"),
    *("corrupt", "evaluate_robustness", "jensen_shannon", "list_models", "load"),
]

if TYPE_CHECKING:
    from fastmagn.augment.augmix import AugMix as AugMix
    from fastmagn.augment.policies.transforms import AutoAugment as AutoAugment
    from fastmagn.augment.policies.transforms import RandAugment as RandAugment
    from fastmagn.augment.policies.transforms import TrivialAugment as TrivialAugment
    from fastmagn.corruptions.corrupting import corrupt as corrupt
    from fastmagn.evaluation.robustness import evaluate_robustness as evaluate_robustness
    from fastmagn.exporting.classifier import load as load
    from fastmagn.losses import MAGNLoss as MAGNLoss
    from fastmagn.losses import jensen_shannon as jensen_shannon
    from fastmagn.models.published import list_models as list_models

# Imported when used: a command such as `python -m fastmagn.report` must not pay for the others.
_PUBLIC = {
    "AugMix": "fastmagn.augment.augmix:AugMix",
    "AutoAugment": "fastmagn.augment.policies.transforms:AutoAugment",
    "MAGNLoss": "fastmagn.losses:MAGNLoss",
    "RandAugment": "fastmagn.augment.policies.transforms:RandAugment",
    "TrivialAugment": "fastmagn.augment.policies.transforms:TrivialAugment",
    "corrupt": "fastmagn.corruptions:corrupt",
    "evaluate_robustness": "fastmagn.evaluation.robustness:evaluate_robustness",
    "jensen_shannon": "fastmagn.losses:jensen_shannon",
    "list_models": "fastmagn.models.published:list_models",
    "load": "fastmagn.exporting.classifier:load",
}
__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
