"""The paper's own numbers (Tables 1 to 5), for comparison with runs."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

# The hyperparameters of equation (6): field -> name in the paper's Table 4.
WEIGHTS = {
    "loss.consistency_weight": "lambda_1",
    "loss.jsd_weight": "lambda_2",
    "augment.sigma_max": "sigma_max",
}

_ATTACK = {"attack.epsilon": 8 / 255, "attack.steps": 7, "attack.step_scale": 2.5}

# The paper's settings for its Tables 1, 2, 3 and 5. A run with another value is another experiment.
PAPER_SETTINGS: dict[str, dict[str, float]] = {
    "standard": {},
    "at": _ATTACK,
    "trades": _ATTACK,
    "rse": {"augment.rse_sigma": 0.1},
    "augmix": {"loss.jsd_weight": 12},
    "magn": {"loss.consistency_weight": 3, "augment.sigma_max": 0.2},
    "magn_augmix": {"loss.consistency_weight": 3, "loss.jsd_weight": 12, "augment.sigma_max": 0.2},
}

_CORRUPTION_TABLES = {"cifar10": "table_1_cifar10_c", "cifar100": "table_5_cifar100_c"}


@cache
def _tables() -> dict[str, Any]:
    """All tables, in per cent, as printed."""
    return json.loads((resources.files(__package__) / "paper_results.json").read_text(encoding="utf-8"))


def has_paper_settings(method: str, config: Mapping[str, Any]) -> bool:
    """Whether a flat config (dotted names) has the paper's value of each hyperparameter of the method."""
    wanted = PAPER_SETTINGS.get(method)
    return wanted is not None and all(config.get(field) == value for field, value in wanted.items())


def paper_counterpart(data: str, network: str, *, cifar10: str, cifar100: str) -> str:
    """A text such as " (the paper's Table 1)" for the network of its detailed tables and figures; else empty."""
    names = {"cifar10": cifar10, "cifar100": cifar100}
    is_there = data in names and network == _tables()["architecture_of_tables_1_4_5"]
    return f" (the paper's {names[data]})" if is_there else ""


def paper_value(data: str, network: str, method: str, config: Mapping[str, Any], measure: str) -> float | None:
    """The paper's number for a run, a fraction in 0..1; None if the paper has none.

    Args:
        data: cifar10 or cifar100; other sets have no numbers.
        network: resnet18, densenet121 or inception_v3.
        method: A key of PAPER_SETTINGS.
        config: The flat config of the run (dotted names).
        measure: clean, a corruption, mca (over c18), rms_clean or rms_corrupt.
    """
    if has_paper_settings(method, config):
        value = _main_value(data, network, method, measure)
    elif (data, network, method) == ("cifar10", "resnet18", "magn_augmix"):
        value = _sensitivity_value(config, measure)
    else:
        value = None
    return None if value is None else value / 100


def _main_value(data: str, network: str, method: str, measure: str) -> float | None:
    if measure.startswith("rms_"):
        table = _tables()["table_3_rms_calibration_error"].get(network, {}).get(data, {})
        return table.get(method, {}).get(measure.removeprefix("rms_"))
    if network == _tables()["architecture_of_tables_1_4_5"] and data in _CORRUPTION_TABLES:
        table = _tables()[_CORRUPTION_TABLES[data]]
    else:
        table = _tables()["table_2_accuracy"].get(network, {}).get(data, {})
    return table.get(method, {}).get(measure)


def _sensitivity_value(config: Mapping[str, Any], measure: str) -> float | None:
    """The number of Table 4 for this run's lambdas and sigma_max."""
    for row in _tables()["table_4_sensitivity_cifar10_resnet18"]:
        if all(config.get(field) == row[name] for field, name in WEIGHTS.items()):
            return row.get(measure)
    return None
