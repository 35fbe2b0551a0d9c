"""A policy's table on the device, and what is drawn from it.

Rows are translated once, on the host, to operations of the CUDA engine: AugMix's where they are the same, so that each
is in a kernel once. An operation has an id and a value; the value of those that take a matrix, a shift or a colour is
the number of their row.

Shape letters: S sub-policies, D steps, R rows.
"""

from typing import NamedTuple

import numpy as np
from numba import cuda, types

from fastmagn_kernels.random import draws, policies
from fastmagn_kernels.random.policies import draw_row, draw_sub_policy

# Operations beside AugMix's, whose ids are 0..12. The value of the first three is the number of a row.
SHIFT, NEAREST, AFFINE, INVERT = 32, 33, 34, 35
MAX_STEPS = 64  # of a policy

_OPERATIONS = {
    policies.COPY: draws.NO_OPERATION,
    policies.SHIFT: SHIFT,
    policies.SHIFT_ROWS: NEAREST,
    policies.NEAREST: NEAREST,
    policies.SHEAR_X: draws.SHEAR_X,
    policies.SHEAR_Y: draws.SHEAR_Y,
    policies.AFFINE: AFFINE,
    policies.AUTOCONTRAST: draws.AUTOCONTRAST,
    policies.EQUALIZE: draws.EQUALIZE,
    policies.INVERT: INVERT,
    policies.POSTERIZE: draws.POSTERIZE,
    policies.SOLARIZE: draws.SOLARIZE,
    policies.COLOR: draws.COLOR,
    policies.CONTRAST: draws.CONTRAST,
    policies.BRIGHTNESS: draws.BRIGHTNESS,
    policies.SHARPNESS: draws.SHARPNESS,
}
_AMOUNT = {policies.SHEAR_X: 1, policies.SHEAR_Y: 3}  # where a shear's matrix has it


class Table(NamedTuple):
    """A policy for images of one size, on the device.

    Args:
        operations: What each row does, int32 [R]: an id of AugMix's, one of the above, or NO_OPERATION.
        values: Its value, float64 [R].
        parameters: The parameters of `policies.Table`, float64 [R 6].
        thresholds: Its thresholds, uint64 [R].
        steps: Its steps, int64 [S D 2].
        num_sub_policies: S.
        num_steps: D, at most MAX_STEPS.
        fill: The colour of what comes from outside the image, packed as `geometry.colour_of` says.
    """

    operations: np.ndarray
    values: np.ndarray
    parameters: np.ndarray
    thresholds: np.ndarray
    steps: np.ndarray
    num_sub_policies: int
    num_steps: int
    fill: int


TABLE = types.NamedTuple(
    [
        types.int32[::1],
        types.float64[::1],
        types.float64[::1],
        types.uint64[::1],
        types.int64[::1],
        types.int32,
        types.int32,
        types.uint32,
    ],
    Table,
)


def packed(colour: np.ndarray) -> int:
    """Pack a colour, uint8 [3], into 24 bits, red lowest."""
    red, green, blue = colour.tolist()
    return red | green << 8 | blue << 16


def translated(table: policies.Table) -> Table:
    """Return the table as the kernels take it, with arrays on the host."""
    num_sub_policies, num_steps, _ = table.steps.shape
    fill = packed(table.fill)
    rows = [
        _operation(row, kind, parameters.tolist(), fill)
        for row, (kind, parameters) in enumerate(zip(table.kinds.tolist(), table.parameters, strict=True))
    ]
    return Table(
        operations=np.array([operation for operation, _ in rows], np.int32),
        values=np.array([value for _, value in rows], np.float64),
        parameters=table.parameters.reshape(-1),
        thresholds=table.thresholds,
        steps=table.steps.reshape(-1),
        num_sub_policies=num_sub_policies,
        num_steps=num_steps,
        fill=fill,
    )


def _operation(row: int, kind: int, parameters: list[float], fill: int) -> tuple[int, float]:
    """Return the operation of a row and its value."""
    operation, value = _OPERATIONS[kind], parameters[_AMOUNT.get(kind, 0)]
    if kind in _AMOUNT and fill != 0:
        operation = AFFINE  # AugMix's shears know only black as the outside
    if operation == draws.SOLARIZE and value < 1:
        operation = INVERT  # no value is below the threshold
    return operation, float(row) if operation in (SHIFT, NEAREST, AFFINE) else value


@cuda.jit(device=True)
def draw_steps(index, s, table, depth, operations, values):
    """Draw the operations of a sample and their values after the first `depth` ones; return their number with these.

    One thread calls it.
    """
    sub_policy = draw_sub_policy(index, s.epoch, s.key_0, s.key_1, table.num_sub_policies)
    for step in range(table.num_steps):
        place = np.uint64(2 * (sub_policy * table.num_steps + step))
        first, count = table.steps[place], table.steps[place + np.uint64(1)]
        row = draw_row(step, index, s.epoch, s.key_0, s.key_1, first, count, table.thresholds)
        if row != policies.NO_ROW and table.operations[np.uint64(row)] != draws.NO_OPERATION:
            operations[np.uint32(depth)] = table.operations[np.uint64(row)]
            values[np.uint32(depth)] = table.values[np.uint64(row)]
            depth = np.int32(depth + 1)
    return depth
