"""The operations of policies by torchvision's own functions on one of Pillow's images: the reference."""

import math

from PIL import Image

from fastmagn.augment.policies.definitions import FACTORS

_ENHANCERS = {"brightness": "brightness", "color": "saturation", "contrast": "contrast", "sharpness": "sharpness"}


def apply_operation(
    image: Image.Image, operation: str, value: float, *, bilinear: bool, fill: tuple[int, int, int]
) -> Image.Image:
    """Apply one of `policies.definitions.OPERATIONS` with torchvision's functions, as its policies do."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    mode = InterpolationMode.BILINEAR if bilinear else InterpolationMode.NEAREST
    options = {"interpolation": mode, "fill": list(fill)}
    still = {"angle": 0.0, "scale": 1.0, "translate": [0, 0], "shear": [0.0, 0.0]}
    if operation in ("shear_x", "shear_y"):
        degrees = math.degrees(math.atan(value))
        shear = [degrees, 0.0] if operation == "shear_x" else [0.0, degrees]
        return functional.affine(image, **{**still, "shear": shear}, center=[0, 0], **options)
    if operation in ("translate_x", "translate_y"):
        shift = [int(value), 0] if operation == "translate_x" else [0, int(value)]
        return functional.affine(image, **{**still, "translate": shift}, **options)
    if operation == "rotate":
        return functional.rotate(image, value, **options)
    if operation in FACTORS:
        return getattr(functional, f"adjust_{_ENHANCERS[operation]}")(image, value)
    if operation == "posterize":
        return functional.posterize(image, int(value))
    if operation == "solarize":
        return functional.solarize(image, value)
    return image if operation == "identity" else getattr(functional, operation)(image)
