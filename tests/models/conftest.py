"""A network of each name, behind the same normalisation."""

from collections.abc import Callable

import pytest
from torch import nn

from fastmagn.models import build_model


@pytest.fixture(scope="session")
def build() -> Callable[..., nn.Module]:
    """build_model with 10 classes and CIFAR-10's normalisation unless told otherwise."""

    def build(name: str, num_classes: int = 10, **options) -> nn.Module:
        return build_model(name, num_classes=num_classes, mean=(0.49, 0.48, 0.44), std=(0.25, 0.24, 0.26), **options)

    return build
