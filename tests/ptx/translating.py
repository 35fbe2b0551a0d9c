"""PTX -> operations of `machine.cpp`: control flow and registers here, what computes by `table.py`."""

import ctypes
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.ptx import carrying, memory_access, warp_wide
from tests.ptx.control_flow import execution_ranks
from tests.ptx.layout import NO_SLOT, SPECIAL, Layout, immediate
from tests.ptx.operations import KINDS, Operation
from tests.ptx.parsing import Function, Module, Statement, UnknownPtxError, parse
from tests.ptx.table import MOVE, is_approximate, is_signed, meaning, size_of

_NO_EFFECT = re.compile(r"(membar|fence|nanosleep|prefetch\w*|discard|pmevent)\b.*")
_ENDS = ("jump", "jump_by_table", "leave", "exit_thread", "trap")
CONTROL = "control"


@dataclass
class Draft:
    """An operation whose targets are still labels. `handler` is the mnemonic of table.py that computes it."""

    kind: str
    statement: int
    slots: Sequence[int] = ()
    handler: str = ""
    labels: Sequence[str] = ()
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass
class Program:
    """A kernel as operations. `statements` and their classes, `kinds`, are those of the PTX, for faults and counts."""

    module: Module
    layout: Layout
    statements: list[Statement]
    kinds: list[str]
    drafts: list[Draft]
    begins: dict[str, int]  # each function's first operation
    ends: dict[str, int]  # and its last one, where it returns
    kernel: Function

    @property
    def handlers(self) -> set[str]:
        """The mnemonics that must be computed."""
        return {draft.handler for draft in self.drafts if draft.handler}

    @property
    def approximate(self) -> set[str]:
        """The instructions whose last bits are the hardware's secret."""
        return {statement.mnemonic for statement in self.statements if is_approximate(statement.mnemonic)}


def translate(ptx: str, name: str | None = None) -> Program:
    """Translate a kernel, with the device functions that it calls; `name` chooses one of several kernels."""
    module = parse(ptx)
    kernels = {kernel.name: kernel for kernel in module.kernels}
    if len(kernels) != 1 and name not in kernels:
        raise UnknownPtxError(f"name one of the kernels {sorted(kernels)}")
    kernel = kernels[name] if name else module.kernels[0]
    used = [function for function in module.functions.values() if function is kernel or not function.is_kernel]
    module.functions = {function.name: function for function in used}
    program = Program(module, Layout(module), [], [], [], {}, {}, kernel)
    for function in used:
        _Translator(program, function).translate()
    return program


class _Translator:
    """Appends one function to a program."""

    def __init__(self, program: Program, function: Function) -> None:
        self.program, self.function, self.layout = program, function, program.layout
        self.statement: Statement
        self.labels: dict[str, int] = {}
        self.kind = MOVE
        self.guard: dict[str, int] = {}

    def translate(self) -> None:
        program, function = self.program, self.function
        begin = program.begins[function.name] = len(program.drafts)
        labels_at: dict[int, list[str]] = {}
        for label, position in function.labels.items():
            labels_at.setdefault(position, []).append(label)
        for position, statement in enumerate(function.statements):
            for label in labels_at.get(position, []):
                self.labels[label] = len(program.drafts)
            self._translate_statement(statement)
        for label in labels_at.get(len(function.statements), []):
            self.labels[label] = len(program.drafts)
        program.ends[function.name] = len(program.drafts)
        self.emit("nothing")
        self._settle(begin)

    def _translate_statement(self, statement: Statement) -> None:
        self.statement, self.kind = statement, CONTROL
        first = len(self.program.drafts)
        self.program.statements.append(statement)
        self.guard = {}
        if statement.guard:
            slot, _ = self.register(statement.guard.lstrip("!"))
            self.guard = {"guard": slot, "guard_negated": int(statement.guard.startswith("!"))}
        try:
            self._dispatch(statement.mnemonic, statement.operands)
        except (KeyError, ValueError, IndexError, AttributeError, TypeError, UnknownPtxError) as error:
            where = f"line {statement.line}: {statement.text[:200]}"
            raise UnknownPtxError(f"{where}: {error if isinstance(error, UnknownPtxError) else repr(error)}") from error
        self.program.drafts[first].numbers["counted"] = 1
        self.program.kinds.append(self.kind)

    def _dispatch(self, mnemonic: str, operands: list[str]) -> None:
        base = mnemonic.split(".")[0]
        if base in _CONTROL:
            _CONTROL[base](self, operands)
        elif base in memory_access.FAMILIES:
            memory_access.FAMILIES[base](self, mnemonic, operands)
        elif base in carrying.FAMILIES or ".cc." in mnemonic:
            carrying.emit(self, mnemonic, operands)
        elif base in warp_wide.FAMILIES:
            warp_wide.FAMILIES[base](self, mnemonic, operands)
        elif _NO_EFFECT.fullmatch(mnemonic):
            self.emit("nothing")
        elif base == "mov" and (operands[0].startswith("{") or operands[1].startswith("{")):
            self._move_parts(mnemonic, operands)
        elif base == "mov" and self.own_offset(operands[1]) is not None:
            own = self.layout.constant(struct.pack("<q", self.own_offset(operands[1])))
            self.compute("add.u64", operands[0], [self.layout.special["%own_memory"], own], MOVE)
        elif base == "setp":
            self._compare(mnemonic, operands)
        else:
            self.compute(mnemonic, operands[0], operands[1:])

    # ---- what others call ----

    def emit(
        self, kind: str, slots: Sequence[int] = (), labels: Sequence[str] = (), handler: str = "", **numbers: int
    ) -> None:
        """Append an operation of the current statement, with its guard."""
        statement = len(self.program.statements) - 1
        self.program.drafts.append(Draft(kind, statement, slots, handler, labels, {**self.guard, **numbers}))

    def register(self, name: str) -> tuple[int, int]:
        """Return a register's slot and bytes; a predicate has 0."""
        if name in self.layout.special:
            return self.layout.special[name], SPECIAL[name]
        return self.layout.registers[self.function.name, name]

    def destination(self, name: str, size: int) -> tuple[int, int]:
        """Return the slot and bytes of a register to write; of the sink `_`, a register that nobody reads."""
        return (self.layout.new_register(size), size) if name == "_" else self.register(name)

    def source(self, operand: str | int, c_type: str) -> int:
        """Return the slot of an operand as a value of `c_type`; a slot stays as it is."""
        if isinstance(operand, int):
            return operand
        size = size_of(c_type)
        if size == 0:
            return self._predicate(operand)
        literal = immediate(operand, size)
        if literal is not None:
            return self.layout.constant(literal.ljust(size, b"\0"))
        if (self.function.name, operand) in self.layout.registers or operand in self.layout.special:
            slot, bytes_ = self.register(operand)
            return slot if bytes_ == size else self._resized(slot, bytes_, size, signed=False)
        return self.layout.constant(struct.pack("<q", self._symbol(operand))[:size])

    def compute(self, mnemonic: str, result: str | int, operands: Sequence[str | int], kind: str | None = None) -> None:
        """Append what computes an instruction of the table; the class of the statement is the table's, or `kind`."""
        known = meaning(mnemonic)
        self.kind = kind or known.kind
        if len(operands) != len(known.operands):
            raise UnknownPtxError(f"{mnemonic} with {len(operands)} operands")
        sources = [self.source(operand, c_type) for operand, c_type in zip(operands, known.operands, strict=True)]
        size = size_of(known.result)
        slot, bytes_ = (result, size) if isinstance(result, int) else self.destination(result, size)
        if bytes_ == size:
            self.emit("compute", [slot, *sources], handler=mnemonic)
            return
        narrow = self.layout.new_register(size)
        self.emit("compute", [narrow, *sources], handler=mnemonic)
        self._resized(narrow, size, bytes_, is_signed(known.result), slot)

    def own_offset(self, name: str) -> int | None:
        """Return where a variable of the thread's own memory begins; None if the name is not one."""
        return self.layout.own.get((self.function.name, name))

    def address(self, operand: str) -> tuple[int, int, int, bool]:
        """Parse `[base+offset]`: the base's slot, its bytes, the offset, and whether it is the thread's own memory."""
        base, sign, offset = re.fullmatch(r"\[\s*([^\s+\]-][^\s+\]]*?)\s*(?:([+-])\s*(-?\w+))?\s*\]", operand).groups()
        number = int(offset or "0", 0) * (-1 if sign == "-" else 1)
        if self.own_offset(base) is not None:
            return self.layout.special["%own_memory"], 8, number + self.own_offset(base), True
        if (self.function.name, base) in self.layout.registers:
            return *self.register(base), number, False
        literal = immediate(base, 8)
        return self.layout.constant(literal or struct.pack("<q", self._symbol(base))), 8, number, False

    # ---- the rest ----

    def _predicate(self, operand: str) -> int:
        if operand.startswith("!"):
            slot = self.layout.new_register(0)
            self.emit("compute", [slot, self._predicate(operand[1:])], handler="not.pred")
            return slot
        literal = immediate(operand, 8)
        if literal is not None:
            return self.layout.constant_predicate(any(literal))
        return self.register(operand)[0]

    def _resized(self, slot: int, from_bytes: int, to_bytes: int, signed: bool, result: int | None = None) -> int:
        result = self.layout.new_register(to_bytes) if result is None else result
        letter = "s" if signed else "u"
        self.emit("compute", [result, slot], handler=f"cvt.{letter}{8 * to_bytes}.{letter}{8 * from_bytes}")
        return result

    def _symbol(self, text: str) -> int:
        name, _, offset = text.partition("+")
        address = self.layout.address_of(name, self.function.name)
        if address is None:
            address = self._parameter_offset(name)
        return address + int(offset or "0", 0)

    def _parameter_offset(self, name: str) -> int:
        offsets, _ = parameter_offsets(self.program.kernel)
        if name not in offsets:
            raise UnknownPtxError(f"the operand {name!r}")
        return offsets[name]

    def _move_parts(self, mnemonic: str, operands: list[str]) -> None:
        kind = "b" + mnemonic.rsplit(".", 1)[1][1:]
        vector = operands[0] if operands[0].startswith("{") else operands[1]
        parts = [part.strip() for part in vector.strip("{}").split(",")]
        if operands[1] is vector:
            self.compute(f"pack{len(parts)}.{kind}", operands[0], parts)
            return
        for i, part in enumerate(parts):
            if part != "_":
                number = self.layout.constant(struct.pack("<I", i))
                self.compute(f"part{len(parts)}.{kind}", part, [operands[1], number])
        if not any(part != "_" for part in parts):
            self.emit("nothing")

    def _compare(self, mnemonic: str, operands: list[str]) -> None:
        results = operands[0].split("|")
        self.compute(
            mnemonic, results[0] if len(results) == 1 else (first := self.layout.new_register(0)), operands[1:]
        )
        if len(results) == 2:
            self.compute(mnemonic.replace("setp", "setp_not", 1), results[1], operands[1:])
            self.compute("mov.pred", results[0], [first])
        self.kind = meaning(mnemonic).kind

    def _branch(self, operands: list[str]) -> None:
        self.emit("branch" if self.guard else "jump", labels=[operands[0]])

    def _branch_by_table(self, operands: list[str]) -> None:
        table = self.function.tables[operands[1]]
        self.emit("jump_by_table", [self.source(operands[0], "u32")], table)

    def _return(self, operands: list[str]) -> None:
        self.emit("leave")

    def _exit(self, operands: list[str]) -> None:
        self.emit("exit_thread")

    def _trap(self, operands: list[str]) -> None:
        self.emit("trap")

    def _call(self, operands: list[str]) -> None:
        results, rest = ([], operands) if not operands[0].startswith("(") else (_names(operands[0]), operands[1:])
        callee = self.program.module.functions[rest[0]]
        given = _names(rest[1]) if len(rest) > 1 else []
        for name, parameter in zip(given, callee.parameters, strict=True):
            self._copy_own((self.function.name, name), (callee.name, parameter.name), parameter.size)
        self.emit("call", labels=[callee.name])
        for name, result in zip(results, callee.results, strict=True):
            self._copy_own((callee.name, result.name), (self.function.name, name), result.size)

    def _copy_own(self, source: tuple[str, str], target: tuple[str, str], size: int) -> None:
        own = self.layout.own
        self.emit("copy_own", [size, own[target]], offset=own[source])

    def _settle(self, begin: int) -> None:
        """Find the function's blocks and their order, and the operations that labels stand for."""
        drafts = self.program.drafts[begin:]
        leaders = {0, len(drafts) - 1} | {position - begin for position in self.labels.values()}
        leaders |= {i + 1 for i, draft in enumerate(drafts) if draft.kind in (*_ENDS, "branch")}
        starts = sorted(leader for leader in leaders if leader < len(drafts))
        block_of = {start: number for number, start in enumerate(starts)}
        blocks = [drafts[start:stop] for start, stop in zip(starts, [*starts[1:], len(drafts)], strict=True)]
        following = []
        for number, block in enumerate(blocks):
            last = block[-1]
            targets = [block_of[self.labels[label] - begin] for label in last.labels] if last.kind != "call" else []
            if last.kind in ("leave", "exit_thread", "trap"):
                targets = [len(blocks) - 1]
                last.numbers["target"] = begin + len(drafts) - 1
            if (last.kind not in _ENDS or "guard" in last.numbers) and number + 1 < len(blocks):
                targets.append(number + 1)
            following.append(targets)
        for block, rank in zip(blocks, execution_ranks(following), strict=True):
            block[0].numbers["leads"] = 1
            for draft in block:
                draft.numbers["rank"] = rank
        for draft in drafts:
            if draft.labels and draft.kind != "call":
                draft.labels = [str(self.labels[label]) for label in draft.labels]


_CONTROL = {
    "bra": _Translator._branch,
    "brx": _Translator._branch_by_table,
    "ret": _Translator._return,
    "exit": _Translator._exit,
    "trap": _Translator._trap,
    "call": _Translator._call,
}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.strip("()").split(",") if name.strip()]


def parameter_offsets(function: Function) -> tuple[dict[str, int], int]:
    """Return where each parameter of a kernel begins among its parameters' bytes, and how many bytes all are."""
    offsets, position = {}, 0
    for parameter in function.parameters:
        position += -position % parameter.align
        offsets[parameter.name] = position
        position += parameter.size
    return offsets, position


def operations_of(program: Program, handlers: dict[str, int]) -> tuple[Any, Any]:
    """Return the program's operations, with the handlers' addresses, and the targets of its jump tables, as arrays."""
    operations, targets = (Operation * len(program.drafts))(), []
    for operation, draft in zip(operations, program.drafts, strict=True):
        operation.kind = KINDS.index(draft.kind)
        operation.statement = max(draft.statement, 0)
        operation.guard = NO_SLOT
        for i, slot in enumerate(draft.slots):
            operation.slots[i] = slot
        for name, value in draft.numbers.items():
            setattr(operation, name, value)
        if draft.handler:
            operation.compute = handlers[draft.handler]
        if draft.kind == "call":
            callee = draft.labels[0]
            operation.target, operation.end = program.begins[callee], program.ends[callee]
        elif draft.kind == "jump_by_table":
            operation.table_begin, operation.table_size = len(targets), len(draft.labels)
            targets += [int(label) for label in draft.labels]
        elif draft.labels:
            operation.target = int(draft.labels[0])
    return operations, (ctypes.c_uint32 * max(1, len(targets)))(*targets)
