"""fastmagn: corruption-robust image classifiers (MAGN, AugMix) trained at the speed of the model.

For other people's code: `AugMix`, `MAGNLoss` and `jensen_shannon` in a training loop; `corrupt` and
`evaluate_robustness` to measure any classifier; `load` to use a trained one.
"""

from fastmagn.registry import lazy_attributes
from fastmagn.version import __version__ as __version__

__all__ = ["AugMix", "MAGNLoss", "corrupt", "evaluate_robustness", "jensen_shannon", "load"]

# Imported when used: a command such as `python -m fastmagn.report` must not pay for the others.
_PUBLIC = {
    "AugMix": "fastmagn.augment.augmix:AugMix",
    "MAGNLoss": "fastmagn.losses:MAGNLoss",
    "corrupt": "fastmagn.corruptions:corrupt",
    "evaluate_robustness": "fastmagn.evaluation.robustness:evaluate_robustness",
    "jensen_shannon": "fastmagn.losses:jensen_shannon",
    "load": "fastmagn.exporting.classifier:load",
}
__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
