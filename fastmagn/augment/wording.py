"""The drawn parameters of views in words: which operations, factors and sigma made each of them."""

from fastmagn.augment.operations import OPERATIONS
from fastmagn.augment.params import JITTER_PARTS, ViewParams, jitter_steps
from fastmagn.errors import counted
from fastmagn_kernels.random import draws, policies

_UNITS = {"deg": "°", "threshold": "", "px per px": "", "px": " px", "factor": ""}
_POLICY_NAMES = {
    **{policies.COPY: "identity", policies.SHIFT: "translate", policies.SHIFT_ROWS: "shear"},
    **{policies.NEAREST: "affine map", policies.SHEAR_X: "shear x", policies.SHEAR_Y: "shear y"},
    **{policies.AFFINE: "rotate", policies.AUTOCONTRAST: "autocontrast", policies.EQUALIZE: "equalize"},
    **{policies.INVERT: "invert", policies.POSTERIZE: "posterize", policies.SOLARIZE: "solarize"},
    **{policies.COLOR: "color", policies.CONTRAST: "contrast", policies.BRIGHTNESS: "brightness"},
    policies.SHARPNESS: "sharpness",
}


def clean_views(params: ViewParams) -> list[str]:
    """Crop, flip, colour jitter, rotation, and the steps of a policy of each image's clean view, in their order."""
    base, settings = params.base, params.settings
    parts, factors = jitter_steps(base)
    texts = []
    for i in range(params.batch_size):
        right = int(base.crop_x_px[i]) - settings.padding_px
        down = int(base.crop_y_px[i]) - settings.padding_px
        steps = [f"crop moved by {right:+d}, {down:+d} px"] if settings.padding_px else []
        steps += ["flipped"] if base.flip[i] else []
        if settings.color_jitter:
            jitter = zip(parts[i], factors[i], strict=True)
            steps += [f"{JITTER_PARTS[part]} × {factor:.2f}" for part, factor in jitter]
        angle = base.angle[i] / draws.ANGLE_UNITS_PER_DEGREE
        steps += [f"rotate {angle:+.1f}°"] if settings.max_angle else []
        texts.append(" → ".join([*steps, *_recipe_steps(params, i)]) or "unchanged")
    return texts


def augmix_views(params: ViewParams, view: int) -> list[str]:
    """The chains of each image's AugMix view, each with its share of the pixels; the rest is the clean view."""
    augmix = params.augmix
    texts = []
    for i in range(params.batch_size):
        mix, terms = float(augmix.mix_weight[view, i]), []
        for chain, weight in enumerate(augmix.chain_weights[view, i]):
            ids, magnitudes = augmix.ops[view, i, chain], augmix.magnitudes[view, i, chain]
            drawn = zip(ids, magnitudes, strict=True)
            steps = [_operation(id_, value) for id_, value in drawn if id_ != draws.NO_OPERATION]
            terms.append(f"{100 * mix * float(weight):.0f}\N{NO-BREAK SPACE}% {' → '.join(steps)}")
        texts.append("; ".join([*terms, f"{100 * (1 - mix):.0f}\N{NO-BREAK SPACE}% clean"]))
    return texts


def noisy_views(params: ViewParams, view: int) -> list[str]:
    """The standard deviation of each image's noise; pixels are in [0, 1]."""
    return [f"sigma {float(sigma):.3f}" for sigma in params.sigma[view]]


def _operation(id_: int, magnitude: float) -> str:
    operation = OPERATIONS[id_]
    name = operation.name.replace("_", " ")
    if operation.unit == "none":
        return name
    sign = "+z" if operation.signed else ""
    if operation.unit == "bits":
        return f"{name} {counted(int(magnitude), 'bit')}"
    is_whole = operation.unit in ("deg", "threshold", "px")
    return f"{name} {magnitude:{sign}{'.0f' if is_whole else '.2f'}}{_UNITS[operation.unit]}"


def _recipe_steps(params: ViewParams, image: int) -> list[str]:
    """The policy's operations, the erased area and the noise patch."""
    recipe = params.recipe
    if recipe is None:
        return []
    steps = []
    for row in recipe.params.rows[image]:
        if row != policies.NO_ROW:
            kind = int(recipe.table.kinds[row])
            has_number = policies.POSTERIZE <= kind <= policies.SHARPNESS
            number = f" {recipe.table.parameters[row, 0]:.3g}" if has_number else ""
            steps.append(_POLICY_NAMES[kind] + number)
    for what, (left, top, width, height) in (
        ("erased", recipe.params.erased[image]),
        (f"{policies.NOISES[recipe.params.noise[image]]} noise {recipe.params.strength[image]:.2f}",
         recipe.params.patched[image]),
    ):  # fmt: skip
        if width:
            steps.append(f"{what} in {width} x {height} px at {left}, {top}")
    return steps
