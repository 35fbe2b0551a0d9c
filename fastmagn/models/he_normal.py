"""He's initialisation."""

from torch import nn


def he_normal(network: nn.Module) -> None:
    """Draw the weights of every convolution of `network` from N(0, 2 / fan_out), in place.

    Weights without values, on the meta device, stay so: PyTorch would import its compiler, which takes seconds.

    Source: K. He et al., "Delving deep into rectifiers", ICCV 2015, equation (14).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
