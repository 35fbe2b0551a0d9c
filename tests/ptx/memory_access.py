"""Loads, stores and atomic operations, and conversions between the spaces of addresses."""

import re
import struct
from typing import Any

from tests.ptx.operations import ATOMICS, SPACES, TYPES
from tests.ptx.parsing import UnknownPtxError, type_bytes
from tests.ptx.table import MOVE

ATOMIC = "atomic"
_SPACES = {
    "global": "global_memory",
    "shared": "shared",
    "local": "local",
    "const": "constant_memory",
    "param": "param",
}
_IGNORED = re.compile(
    r"volatile|relaxed|acquire|release|acq_rel|weak|cta|cluster|gpu|sys|c[agsv]|lu|wb|wt|nc|noftz"
    r"|L1::\w+|L2::\w+|level::\w+|unified|v[248]|b128|[busf]\d+|f16x2|bf16x2|bf16"
)


def _parts(mnemonic: str) -> tuple[str, str, list[str]]:
    """The space, the type and the other words of such as `ld.global.nc.v4.u32`."""
    words = [word.replace("::cta", "") for word in mnemonic.split(".")[1:]]
    space = next((word for word in words if word in _SPACES), "generic")
    others = [word for word in words if word not in _SPACES]
    return _SPACES.get(space, space), words[-1], others


def _move(to: Any, mnemonic: str, operands: list[str], kind: str) -> None:
    """A load or a store; `operands` are the data, one or several, and the address."""
    space, type_name, others = _parts(mnemonic)
    unknown = [word for word in others if not _IGNORED.fullmatch(word)]
    if unknown or type_name == "b128" or type_name not in others:
        raise UnknownPtxError(f"{mnemonic} is not known")
    data, address = operands
    names = [name.strip() for name in data.strip("{}").split(",")]
    slot, address_bytes, offset, is_own = to.address(address)
    if is_own and space == "param":
        space = "own"
    if "nc" in others:
        space = "read_only"
    size = type_bytes(type_name)
    if kind == "load":
        registers = [to.destination(name, max(size, 2)) for name in names]
    else:
        registers = [_stored(to, name, size) for name in names]
    to.kind = {"global_memory": "global", "read_only": "global", "own": "param", "constant_memory": "const"}.get(
        space, space
    )
    to.emit(
        kind,
        [slot, *(register for register, _ in registers)],
        offset=offset,
        space=SPACES.index(space),
        bytes=size,
        elements=len(names),
        register_bytes=registers[0][1],
        address_bytes=address_bytes,
        is_signed=int(type_name[0] == "s"),
    )


def _stored(to: Any, name: str, size: int) -> tuple[int, int]:
    if (to.function.name, name) in to.layout.registers or name in to.layout.special:
        return to.register(name)
    return to.source(name, f"u{8 * size}"), size


def _load(to: Any, mnemonic: str, operands: list[str]) -> None:
    _move(to, mnemonic, operands[:2], "load")


def _store(to: Any, mnemonic: str, operands: list[str]) -> None:
    _move(to, mnemonic, [operands[1], operands[0]], "store")


def _atomic(to: Any, mnemonic: str, operands: list[str]) -> None:
    """`atom.shared.add.u32 d, [a], b{, c}`, and `red.global.add.f32 [a], b`."""
    space, type_name, others = _parts(mnemonic)
    action = next(word for word in others if word in [name.rstrip("_") for name in ATOMICS])
    unknown = [word for word in others if word != action and not _IGNORED.fullmatch(word)]
    if unknown or type_name in ("f16", "bf16", "f16x2", "bf16x2", "b128", "b16"):
        raise UnknownPtxError(f"{mnemonic} is not known")
    if mnemonic.startswith("red"):
        operands = ["_", *operands]
    size = type_bytes(type_name)
    slot, address_bytes, offset, _ = to.address(operands[1])
    sources = [to.source(operand, f"u{8 * size}") for operand in operands[2:4]]
    kind = {"f": "float_number", "s": "signed_number"}.get(type_name[0], "unsigned_number")
    to.kind = ATOMIC
    to.emit(
        "atomic",
        [slot, to.destination(operands[0], size)[0], *sources],
        offset=offset,
        space=SPACES.index(space),
        bytes=size,
        address_bytes=address_bytes,
        action=[name.rstrip("_") for name in ATOMICS].index(action),
        type=TYPES.index(kind),
    )


def _convert_address(to: Any, mnemonic: str, operands: list[str]) -> None:
    """`cvta.to.global.u64 d, a`, `cvta.shared.u64 d, a`. Shared memory has a window of its own."""
    if ".shared" in mnemonic:
        window = to.layout.constant(struct.pack("<Q", to.layout.shared_window))
        to.compute("sub.u64" if ".to." in mnemonic else "add.u64", operands[0], [operands[1], window], MOVE)
    elif to.own_offset(operands[1]) is not None:
        own = to.layout.constant(struct.pack("<q", to.own_offset(operands[1])))
        to.compute("add.u64", operands[0], [to.layout.special["%own_memory"], own], MOVE)
    else:
        to.compute("mov.u64", operands[0], [operands[1]], MOVE)


FAMILIES = {"ld": _load, "ldu": _load, "st": _store, "atom": _atomic, "red": _atomic, "cvta": _convert_address}
