"""Networks, by name. Every network takes images in [0, 1] and normalises them itself."""

from typing import Any

from fastmagn.registry import lazy_attributes

# name -> "module:function"; a function takes the number of classes and returns a network with new weights.
MODELS: dict[str, Any] = {
    "resnet18": "fastmagn.models.resnet:resnet18",
    "resnet50": "fastmagn.models.resnet:resnet50",
    "resnet_small": "fastmagn.models.resnet:resnet_small",
    "resnet_small_deep": "fastmagn.models.resnet:resnet_small_deep",
    "densenet121": "fastmagn.models.densenet:densenet121",
    "densenet121_k12": "fastmagn.models.densenet:densenet121_k12",
    "inception_v3": "fastmagn.models.inception:inception_v3",
    "wideresnet28_10": "fastmagn.models.wide_resnet:wideresnet28_10",
    "wideresnet28_4": "fastmagn.models.wide_resnet:wideresnet28_4",
    "wideresnet40_2": "fastmagn.models.wide_resnet:wideresnet40_2",
    "resnext29_32x4d": "fastmagn.models.resnext:resnext29_32x4d",
    "resnext29_4x32d": "fastmagn.models.resnext:resnext29_4x32d",
}
# Prefix of a name, as in torchvision:resnet18 -> "module:function"; a function takes the rest of the name, the number
# of classes and the image size (H, W).
LIBRARIES = {
    "torchvision:": "fastmagn.models.torchvision_networks:torchvision_network",
    "timm:": "fastmagn.models.timm_networks:timm_network",
}

# Imported when used: the tables above must not need torch.
_PUBLIC = {
    "Normalised": "fastmagn.models.building:Normalised",
    "build_model": "fastmagn.models.building:build_model",
    "evaluation_mode": "fastmagn.models.building:evaluation_mode",
    "image_format": "fastmagn.models.building:image_format",
}
__all__ = ["LIBRARIES", "MODELS", *_PUBLIC]
__getattr__ = lazy_attributes(__name__, _PUBLIC)
