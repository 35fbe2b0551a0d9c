"""python -m benchmarks.policy_pictures: a picture of each operation of the policies at five strengths.

python -m benchmarks.policy_pictures --out docs/images/policy_operations.jpg [--data_dir DIR]
"""

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.corrupt import load_test_images
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import FACTORS, OPERATIONS, Choice, TrivialAugmentPolicy
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.own import OwnPolicy
from fastmagn.augment.policies.table import Policy
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.schema import AugmentConfig
from fastmagn.machine.command import run_command

STRENGTHS = 5
_SIZE_PX = 96
_DPI = 100
_TILE_INCHES = 0.96  # one pixel of the image is one of the picture
_SIGNS = {"px per px": "{:.2g}", "px": "{:.0f} px", "degrees": "{:.5g}°", "bits": "{:.0f} bits"}


def main(arguments: list[str]) -> int:
    """Write the picture."""
    options = _parse(arguments)
    image = load_test_images(options.data_dir, 1, _SIZE_PX)[0] if options.data_dir else scene()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with io.BytesIO() as file:
        draw(image).savefig(file, dpi=_DPI, format="png")
        page = Image.open(file).convert("RGB")
    page.save(options.out, quality=80, optimize=True)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OwnOptions("python -m benchmarks.policy_pictures", __doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JPEG or PNG file to write")
    parser.add_argument(
        "--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use a drawn landscape)"
    )
    return parser.parse_args(arguments)


def draw(image: np.ndarray) -> Figure:
    """Return a page with a row for each operation that has strengths, and one row for the others."""
    graded = [name for name, unit in OPERATIONS.items() if unit != "none"]
    rows = [(name, [(label(name, value), changed(image, name, value)) for value in values_of(name)]) for name in graded]
    others = [name for name, unit in OPERATIONS.items() if unit == "none"]
    rows.append(("no strength", [(name, changed(image, name, 0.0)) for name in others]))
    size = ((_TILE_INCHES + 0.06) * STRENGTHS + 0.95, (_TILE_INCHES + 0.2) * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), STRENGTHS)
    for row, (name, tiles) in zip(axes, rows, strict=True):
        for axis in row:
            axis.set_axis_off()
        row[0].text(-0.08, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
        for axis, (title, tile) in zip(row, tiles, strict=False):
            axis.imshow(tile, interpolation="nearest")
            axis.set_title(title, fontsize=8, pad=2)
    return figure


def scene() -> np.ndarray:
    """Return a landscape with a house, drawn from shapes and grain, uint8 [H, W, 3]: no symmetry, and every colour."""
    size = 4 * _SIZE_PX
    rng = np.random.default_rng(0)
    height = np.linspace(0, 1, size)[:, None, None]
    sky = np.array([70, 130, 205]) * (1 - height) + np.array([235, 205, 170]) * height
    picture = Image.fromarray(np.broadcast_to(sky, (size, size, 3)).astype(np.uint8))
    pen = ImageDraw.Draw(picture)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * size, y * size) for x, y in points]

    pen.ellipse(at((0.72, 0.08), (0.9, 0.26)), fill=(255, 225, 120))
    pen.polygon(at((0, 0.62), (0.22, 0.3), (0.4, 0.55), (0.6, 0.38), (1, 0.64), (1, 1), (0, 1)), fill=(95, 110, 135))
    pen.polygon(at((0, 0.68), (0.35, 0.58), (0.7, 0.66), (1, 0.6), (1, 1), (0, 1)), fill=(85, 135, 60))
    pen.polygon(at((0.42, 1), (0.56, 0.8), (0.6, 0.8), (0.66, 1)), fill=(190, 160, 115))
    pen.rectangle(at((0.46, 0.55), (0.72, 0.8)), fill=(215, 200, 175))
    pen.polygon(at((0.42, 0.56), (0.59, 0.4), (0.76, 0.56)), fill=(165, 55, 45))
    pen.rectangle(at((0.55, 0.65), (0.62, 0.8)), fill=(90, 60, 40))
    pen.rectangle(at((0.64, 0.6), (0.69, 0.67)), fill=(60, 85, 110))
    pen.rectangle(at((0.16, 0.6), (0.2, 0.84)), fill=(85, 60, 40))
    pen.ellipse(at((0.06, 0.4), (0.3, 0.68)), fill=(45, 95, 45))
    small = picture.filter(ImageFilter.GaussianBlur(1)).resize((_SIZE_PX, _SIZE_PX), Image.Resampling.LANCZOS)
    grain = rng.normal(0, 1, (_SIZE_PX, _SIZE_PX, 1)) * np.linspace(0.5, 3, _SIZE_PX)[:, None, None]
    shade = np.linspace(1.05, 0.8, _SIZE_PX)[None, :, None]
    return np.clip(np.asarray(small) * shade + grain, 12, 243).astype(np.uint8)


def values_of(name: str) -> list[float]:
    """Return five values of an operation from TrivialAugment's wide space, rising; one if it takes none."""
    ((step,),) = TrivialAugmentPolicy(STRENGTHS).sub_policies(_SIZE_PX, _SIZE_PX)
    values = next((choice.values for choice in step if choice.operation == name), (0.0,))
    if name in FACTORS:
        return sorted(set(values))[::2]
    return [value for value in dict.fromkeys(values) if value >= 0]


def label(name: str, value: float) -> str:
    """Return a value with its unit."""
    return _SIGNS.get(OPERATIONS[name], "{:.3g}").format(value)


def changed(image: np.ndarray, name: str, value: float) -> np.ndarray:
    """Return an image uint8 [H, W, 3] after one operation."""
    policy = Policy(OwnPolicy((((Choice(name, (value,)),),),)), bilinear=True)
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    params = sample_view_params(0, 0, np.arange(1), spec, AugmentConfig(), image.shape[:2])
    made = apply_policy(torch.from_numpy(image)[None].permute(0, 3, 1, 2), params, policy, "auto")
    return made[0].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    run_command(main)
