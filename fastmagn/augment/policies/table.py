"""A policy for images of one size -> the table that the kernels draw from: every number that libm could change.

Matrices are computed in torchvision's and Pillow's order of operations, so all engines have the same ones.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastmagn.augment.policies.definitions import Definition, Step
from fastmagn.errors import InputError
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.policies import Table

Matrix = tuple[float, ...]

_ONE = 1 << 16  # in Pillow's fixed point
_FIXED_LIMIT_PX = 32768  # beyond it Pillow computes in another way
_VALUE_KINDS = {
    "autocontrast": policies.AUTOCONTRAST,
    "equalize": policies.EQUALIZE,
    "invert": policies.INVERT,
    "posterize": policies.POSTERIZE,
    "solarize": policies.SOLARIZE,
    "color": policies.COLOR,
    "contrast": policies.CONTRAST,
    "brightness": policies.BRIGHTNESS,
    "sharpness": policies.SHARPNESS,
}


@dataclass(frozen=True)
class Policy:
    """A policy with what its geometric operations need.

    Args:
        definition: Which operations are drawn.
        bilinear: Whether they interpolate, rather than taking the nearest pixel.
        fill: The colour of what comes from outside the image, 0..255 each.
    """

    definition: Definition
    bilinear: bool = False
    fill: tuple[int, int, int] = (0, 0, 0)


class Rows(NamedTuple):
    """The rows of a policy's table before their numbers are computed.

    Args:
        choices: Operation, value and probability of each row.
        steps: The first row of each step and the number of its rows: int64 [S, D, 2].
    """

    choices: list[tuple[str, float, float]]
    steps: np.ndarray


@functools.lru_cache(maxsize=16)
def make_table(policy: Policy, height: int, width: int) -> Table:
    """The table of a policy for images of `height` x `width` px.

    Raises:
        InputError: An image is too large for a transform to the nearest pixel.
    """
    choices, steps = list_rows(policy.definition, height, width)
    parameters, kinds = np.zeros((len(choices), 6)), np.zeros(len(choices), np.int8)
    of_choice: dict[tuple[str, float], tuple[int, Matrix]] = {}
    for row, (operation, value, _) in enumerate(choices):
        if (operation, value) not in of_choice:
            of_choice[operation, value] = concrete(operation, value, height, width, policy.bilinear)
        kinds[row], numbers = of_choice[operation, value]
        parameters[row, : len(numbers)] = numbers
    return Table(
        kinds=kinds,
        parameters=parameters,
        thresholds=np.array([gate(probability) for _, _, probability in choices], np.uint64),
        steps=steps,
        fill=np.array(policy.fill, np.uint8),
    )


@functools.lru_cache(maxsize=16)
def list_rows(definition: Definition, height: int, width: int) -> Rows:
    """The rows of a policy for images of `height` x `width` px. Steps that are the same share theirs."""
    choices: list[tuple[str, float, float]] = []
    known: dict[Step, tuple[int, int]] = {}
    sub_policies = definition.sub_policies(height, width)
    steps = np.zeros((len(sub_policies), max(map(len, sub_policies)), 2), np.int64)
    for s, sub_policy in enumerate(sub_policies):
        for d, step in enumerate(sub_policy):
            if step not in known:
                rows = _rows_of(step)
                known[step] = len(choices), len(rows)
                choices.extend(rows)
            steps[s, d] = known[step]
    return Rows(choices, steps)


def _rows_of(step: Step) -> list[tuple[str, float, float]]:
    """The rows of a step: each choice has as many as the others, so that one row is drawn uniformly."""
    per_choice = math.lcm(*(len(choice.values) for choice in step))
    return [
        (choice.operation, value, choice.probability)
        for choice in step
        for value in choice.values
        for _ in range(per_choice // len(choice.values))
    ]


def gate(probability: float) -> int:
    """The threshold of a word, 0..2^32, below which something of this probability happens."""
    return round(probability * 2**32)


def concrete(operation: str, value: float, height: int, width: int, bilinear: bool) -> tuple[int, Matrix]:
    """The kind and the parameters of torchvision's operation at one value, for images of one size."""
    if operation in ("shear_x", "shear_y"):
        return _shear(operation, value, height, width, bilinear)
    if operation in ("translate_x", "translate_y"):
        pixels = float(-int(value))
        return policies.SHIFT, (pixels, 0.0) if operation == "translate_x" else (0.0, pixels)
    if operation == "rotate":
        return _rotation(value, height, width, bilinear)
    if operation == "identity":
        return policies.COPY, ()
    # Solarize compares whole values with a threshold: rounding it up changes nothing.
    return _VALUE_KINDS[operation], (float(math.ceil(value)) if operation == "solarize" else value,)


def _shear(operation: str, value: float, height: int, width: int, bilinear: bool) -> tuple[int, Matrix]:
    degrees = math.degrees(math.atan(value))
    matrix = shear_matrix(degrees, 0.0) if operation == "shear_x" else shear_matrix(0.0, degrees)
    if matrix[1] == 0 and matrix[3] == 0:
        return policies.COPY, ()
    if bilinear:
        return policies.SHEAR_X if operation == "shear_x" else policies.SHEAR_Y, matrix
    kind = policies.SHIFT_ROWS if operation == "shear_x" else policies.NEAREST
    return kind, fixed_point(matrix, height, width)


def shear_matrix(x_degrees: float, y_degrees: float) -> Matrix:
    """torchvision's inverse matrix of a shear by angles around the upper left corner."""
    x, y = math.radians(x_degrees), math.radians(y_degrees)
    a = math.cos(-y) / math.cos(y)
    b = -math.cos(-y) * math.tan(x) / math.cos(y) - math.sin(0.0)
    c = math.sin(-y) / math.cos(y)
    d = -math.sin(-y) * math.tan(x) / math.cos(y) + math.cos(0.0)
    return d, -b, 0.0, -c, a, 0.0


def _rotation(degrees: float, height: int, width: int, bilinear: bool) -> tuple[int, Matrix]:
    """Image.rotate: transposes for whole turns, and a matrix that is rounded to 15 places."""
    angle = degrees % 360.0
    if angle == 0:
        return policies.COPY, ()
    if angle == 180 or (angle in (90, 270) and height == width):
        return policies.NEAREST, _turn(angle, height, width)
    radians = -math.radians(angle)
    cosine, sine = round(math.cos(radians), 15), round(math.sin(radians), 15)
    minus_sine = round(-math.sin(radians), 15)
    x, y = width / 2, height / 2
    matrix = (
        *(cosine, sine, cosine * -x + sine * -y + 0.0 + x),
        *(minus_sine, cosine, minus_sine * -x + cosine * -y + 0.0 + y),
    )
    return (policies.AFFINE, matrix) if bilinear else (policies.NEAREST, fixed_point(matrix, height, width))


def _turn(degrees: float, height: int, width: int) -> Matrix:
    """A turn by 90, 180 or 270 degrees counter-clockwise, exact, in fixed point."""
    half, right, bottom = _ONE // 2, (width - 1) * _ONE, (height - 1) * _ONE
    if degrees == 180:
        return -_ONE, 0, right + half, 0, -_ONE, bottom + half
    return (0, -_ONE, right + half, _ONE, 0, half) if degrees == 90 else (0, _ONE, half, -_ONE, 0, bottom + half)


def fixed_point(matrix: Matrix, height: int, width: int) -> Matrix:
    """The matrix in Pillow's 16.16 fixed point, with the positions of pixels' centres.

    Raises:
        InputError: A position does not fit.
    """
    a = matrix
    for x, y in ((0, 0), (width, height), (0, height), (width, 0)):
        reach = max(abs(x * a[0] + y * a[1] + a[2]), abs(x * a[3] + y * a[4] + a[5]))
        if reach >= _FIXED_LIMIT_PX:
            raise InputError(
                f"images: got {height} x {width} pixels; expected sides below about 16,000 px for a policy that takes"
                " the nearest pixel. Resize the images, or use bilinear interpolation."
            )
    centred = (a[0], a[1], a[2] + a[0] * 0.5 + a[1] * 0.5, a[3], a[4], a[5] + a[3] * 0.5 + a[4] * 0.5)
    return tuple(float(math.floor(value * 65536.0 + 0.5)) for value in centred)
