"""A kernel's PTX run on the CPU: arguments in, faults and counts out."""

import ctypes
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.ptx.building import Builder
from tests.ptx.operations import FAULTS
from tests.ptx.parsing import Statement
from tests.ptx.translating import operations_of, parameter_offsets, translate

MOST_FAULTS = 64
_SHARED, _OWN, _NOWHERE = 2**32 - 1, 2**32 - 2, 2**32 - 3
_NOBODY = 2**32 - 1


class Region(ctypes.Structure):
    """As in memory.hpp."""

    _fields_ = (
        *(("begin", ctypes.c_uint64), ("end", ctypes.c_uint64)),
        *((name, ctypes.c_uint8) for name in ("writable", "once", "initialised")),
    )


class _Fault(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_uint32) for n in ("kind", "statement", "other_statement", "thread", "other_thread", "region")),
        *((name, ctypes.c_uint64) for name in ("block", "offset", "count")),
    )


class _Setup(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_void_p) for n in ("operations", "targets", "constants", "window", "special", "shared", "own")),
        *((n, ctypes.c_uint64) for n in ("num_shared", "num_own", "shared_bytes", "own_bytes", "registers_bytes")),
        ("num_statements", ctypes.c_uint64),
        *(("entry", ctypes.c_uint32), ("end", ctypes.c_uint32)),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        *(("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3)),
        *((name, ctypes.c_uint32) for name in ("dynamic_bytes", "order", "check")),
        ("most_operations", ctypes.c_uint64),
        *(("parameters", ctypes.c_void_p), ("parameters_bytes", ctypes.c_uint64)),
        *(("regions", ctypes.c_void_p), ("num_regions", ctypes.c_uint64)),
        *(("blocks", ctypes.c_void_p), ("num_blocks", ctypes.c_uint64)),
        *((name, ctypes.c_void_p) for name in ("warp_counts", "thread_counts", "barriers", "faults")),
    )


@dataclass(frozen=True)
class Memory:
    """An array that a kernel may touch, and what it may do to it.

    Args:
        array: The array, contiguous. It is used where it lies, so that addresses in other arrays stay right.
        writable: Whether the kernel may write to it.
        once: Whether it may write each byte once only.
        initialised: Whether its bytes may be read before the kernel writes them.
        name: Its name in faults.
    """

    array: np.ndarray
    writable: bool = False
    once: bool = False
    initialised: bool = True
    name: str = ""


def output(array: np.ndarray, name: str = "") -> Memory:
    """An array whose bytes the kernel writes once and does not read before."""
    return Memory(array, writable=True, once=True, initialised=False, name=name)


def scratch(array: np.ndarray, name: str = "") -> Memory:
    """An array that the kernel writes and reads, in this order."""
    return Memory(array, writable=True, initialised=False, name=name)


def in_out(array: np.ndarray, name: str = "") -> Memory:
    """An array that the kernel may read and write."""
    return Memory(array, writable=True, name=name)


@dataclass(frozen=True)
class Fault:
    """What a kernel did wrong, first where; `count` is how often this instruction did it."""

    kind: str
    statement: Statement
    block: int
    thread: int
    where: str
    offset: int
    count: int
    other_thread: int | None = None
    other: Statement | None = None

    def __str__(self) -> str:
        what = f"{self.kind}: block {self.block}, thread {self.thread}, {_place(self.statement)}"
        what += f"; {self.where} + {self.offset}" if self.where else ""
        if self.other is not None or self.other_thread is not None:
            who = "another block" if self.other_thread is None else f"thread {self.other_thread}"
            what += f"; against {who}" + (f", {_place(self.other)}" if self.other else "")
        return what + (f" ({self.count} times)" if self.count > 1 else "")


def _place(statement: Statement) -> str:
    source = f" ({statement.source})" if statement.source else ""
    return f"PTX line {statement.line}{source}: {statement.text[:160]}"


@dataclass
class Report:
    """What a launch did.

    Args:
        faults: Its faults, the first of each instruction and kind.
        warp_counts: How often a warp executed each statement of the PTX, int64.
        thread_counts: The threads that took part, int64.
        kinds: The class of each statement.
        barriers: The barriers that were passed.
    """

    faults: list[Fault]
    warp_counts: np.ndarray
    thread_counts: np.ndarray
    kinds: list[str]
    barriers: int
    lines: list[int] = field(default_factory=list)

    def by_class(self) -> dict[str, int]:
        """Return the instructions that warps executed, by class."""
        counted: dict[str, int] = {}
        for kind, count in zip(self.kinds, self.warp_counts, strict=True):
            counted[kind] = counted.get(kind, 0) + int(count)
        return dict(sorted(counted.items(), key=lambda item: -item[1]))

    def by_line(self) -> dict[int, int]:
        """Return how often warps executed the instruction on each line of the PTX."""
        return {line: int(count) for line, count in zip(self.lines, self.warp_counts, strict=True) if count}


class Kernel:
    """A kernel's PTX, translated, for any number of launches."""

    def __init__(self, ptx: str, builder: Builder, name: str | None = None) -> None:
        self.ptx = ptx
        self.program = translate(ptx, name)
        self._library = builder.machine
        layout = self.program.layout
        self._operations, targets = operations_of(self.program, builder.handlers(self.program.handlers))
        constants = (ctypes.c_uint8 * (len(layout.constants) + 64)).from_buffer_copy(layout.constants + bytes(64))
        special = (ctypes.c_uint32 * len(layout.special))(*layout.special.values())
        shared = _regions((begin, variable.size or 0) for variable, begin in layout.shared)
        own = _regions((begin, size) for begin, size in layout.own_variables)
        self.offsets, self.parameters_bytes = parameter_offsets(self.program.kernel)
        setup = _Setup(
            *map(ctypes.addressof, (self._operations, targets, constants)),
            layout.shared_window,
            *map(ctypes.addressof, (special, shared, own)),
            *(len(layout.shared), len(layout.own_variables), layout.shared_bytes, layout.own_bytes),
            *(layout.registers_bytes, len(self.program.statements)),
            *(self.program.begins[self.program.kernel.name], self.program.ends[self.program.kernel.name]),
        )
        self._kept = (targets, constants, special, shared, own)
        self._machine = ctypes.c_void_p(self._library.machine_new(ctypes.byref(setup)))

    def __del__(self) -> None:
        if hasattr(self, "_machine"):
            self._library.machine_free(self._machine)

    def launch(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        parameters: Sequence[bytes],
        memory: Sequence[Memory],
        *,
        shared_bytes: int = 0,
        order: int = 0,
        blocks: Iterable[int] | None = None,
        check: bool = True,
        most_operations: int = 2**32,
    ) -> Report:
        """Run the kernel.

        Args:
            grid: Its blocks, one to three numbers.
            block: The threads of a block, likewise.
            parameters: The bytes of each parameter.
            memory: All arrays that it may touch.
            shared_bytes: Bytes of dynamic shared memory.
            order: The order of blocks and warps: 0 forward, 1 backward, from 2 on warps at random. What was never
                written differs with it too.
            blocks: The numbers of the blocks to run; all by default.
            check: Whether races and uninitialised reads are looked for; it costs half the time.
            most_operations: More of one warp between two barriers are a loop without end.
        """
        statements = self.program.statements
        packed = self._packed(parameters)
        known = [*memory, *self._module_memory()]
        regions = _regions_of(known)
        dimensions = [_three(grid), _three(block)]
        numbers = (
            np.arange(np.prod(dimensions[0]), dtype=np.uint64) if blocks is None else np.array([*blocks], np.uint64)
        )
        counts = np.zeros((2, len(statements)), np.int64)
        barriers, faults = ctypes.c_uint64(0), (_Fault * MOST_FAULTS)()
        launch = _Launch(
            *((ctypes.c_uint32 * 3)(*dimension) for dimension in dimensions),
            *(shared_bytes, order, int(check), most_operations, ctypes.addressof(packed), self.parameters_bytes),
            *(ctypes.addressof(regions), len(known), numbers.ctypes.data, len(numbers)),
            *(counts[0].ctypes.data, counts[1].ctypes.data, ctypes.addressof(barriers), ctypes.addressof(faults)),
        )
        found = self._library.machine_run(self._machine, ctypes.byref(launch))
        named = [self._named(fault, known) for fault in faults[:found]]
        return Report(named, *counts, self.program.kinds, barriers.value, [statement.line for statement in statements])

    def _packed(self, parameters: Sequence[bytes]) -> Any:
        declared = self.program.kernel.parameters
        sizes = [len(value) for value in parameters]
        if sizes != [parameter.size for parameter in declared]:
            expected = [parameter.size for parameter in declared]
            raise ValueError(f"the kernel takes parameters of {expected} bytes, and was given {sizes}")
        packed = (ctypes.c_uint8 * (self.parameters_bytes + 16))()
        for parameter, value in zip(declared, parameters, strict=True):
            ctypes.memmove(ctypes.addressof(packed) + self.offsets[parameter.name], value, len(value))
        return packed

    def _module_memory(self) -> list[Memory]:
        layout = self.program.layout
        return [
            Memory(np.ctypeslib.as_array(layout.globals[variable.name]), variable.space == "global", name=variable.name)
            for variable in layout.global_variables
        ]

    def _named(self, fault: _Fault, memory: Sequence[Memory]) -> Fault:
        statements = self.program.statements
        where = {_SHARED: "shared memory", _OWN: "local memory", _NOWHERE: ""}.get(fault.region)
        offset = fault.offset
        if where is None:
            where = memory[fault.region].name or f"argument {fault.region}"
        elif where == "shared memory":
            where, offset = self.program.layout.shared_place(offset)
        return Fault(
            kind=FAULTS[fault.kind],
            statement=statements[fault.statement],
            block=fault.block,
            thread=fault.thread,
            where=where,
            offset=offset,
            count=fault.count,
            other_thread=None if fault.other_thread == _NOBODY else fault.other_thread,
            other=None if fault.other_statement == _NOBODY else statements[fault.other_statement],
        )


def _three(dimension: int | Sequence[int]) -> tuple[int, int, int]:
    given = (dimension,) if isinstance(dimension, int) else tuple(dimension)
    return (*given, 1, 1)[:3]


def _regions(places: Iterable[tuple[int, int]]) -> Any:
    made = [Region(begin, begin + size, 1, 0, 0) for begin, size in places]
    return (Region * max(1, len(made)))(*made)


def _regions_of(memory: Sequence[Memory]) -> Any:
    made = []
    for place in memory:
        if not place.array.flags.c_contiguous:
            raise ValueError(f"{place.name or 'an array'} is not contiguous")
        begin = place.array.ctypes.data
        made.append(Region(begin, begin + place.array.nbytes, place.writable, place.once, place.initialised))
    return (Region * max(1, len(made)))(*made)


def pointer(array: np.ndarray) -> bytes:
    """Return an array's address as a parameter's bytes."""
    return struct.pack("<Q", array.ctypes.data)
