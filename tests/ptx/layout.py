"""Where registers, constants and variables lie: in a warp's registers, in shared memory, in a thread's own memory."""

import ctypes
import re
import struct

from tests.ptx.parsing import Function, Module, UnknownPtxError, Variable, type_bytes

LANES = 32
CONSTANT = 1 << 31
NO_SLOT = 0xFFFFFFFF
SHARED_BYTES = 256 * 2**10  # more than a block can have, for the red zones
RED_ZONE = 64  # bytes between variables that belong to none
# Filled for each block; machine.cpp knows their order.
SPECIAL = {
    **{f"%{name}.{axis}": 4 for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"},
    **{"%laneid": 4, "%warpid": 4, "%nwarpid": 4, "%dynamic_smem_size": 4, "%total_smem_size": 4},
    **{f"%lanemask_{kind}": 4 for kind in ("eq", "lt", "le", "gt", "ge")},
    **{"%clock": 4, "%clock64": 8, "%globaltimer": 8, "%smid": 4, "%nsmid": 4, "%gridid": 8},
    "%own_memory": 8,  # the address of the thread's own memory: local variables, and parameters of device functions
}


class Layout:
    """The memory of one kernel. Addresses of shared memory count from its window's start; others are this process's.

    A variable lies as badly aligned as its declaration allows, so that an access which needs more is found.
    """

    def __init__(self, module: Module) -> None:
        self._shared_memory = ctypes.create_string_buffer(SHARED_BYTES + 1024)
        self.shared_window = ctypes.addressof(self._shared_memory)
        self.shared_window += -self.shared_window % 1024
        self.registers_bytes = 0
        self.special = {name: self.new_register(size) for name, size in SPECIAL.items()}
        self.registers: dict[tuple[str, str], tuple[int, int]] = {}  # (function, name) -> slot, bytes
        self.constants = bytearray()
        self.constant_slots: dict[tuple[int, bytes], int] = {}
        self.shared_bytes = 0
        self.shared: list[tuple[Variable, int]] = []
        self.dynamic_begin = -1
        self.own_bytes = 16
        self.own: dict[tuple[str, str], int] = {}
        self.own_variables: list[tuple[int, int]] = []  # begin, bytes
        self.globals: dict[str, ctypes.Array] = {}
        self.global_variables: list[Variable] = []
        dynamic = [variable for variable in module.variables.values() if variable.size is None]
        for variable in module.variables.values():
            if variable.space == "shared" and variable.size is not None:
                self._place_shared(variable)
            elif variable.space in ("global", "const") and variable.size is not None:
                self._place_global(variable)
        for function in module.functions.values():
            self._place_function(function)
        for variable in dynamic:  # all of them are the same memory, behind everything else
            self._place_dynamic(variable, max(other.align for other in dynamic))

    def new_register(self, size: int) -> int:
        """Return the slot of a new register of `size` bytes."""
        slot = self.registers_bytes
        self.registers_bytes += size * LANES if size else 4 * LANES
        return slot

    def constant(self, value: bytes) -> int:
        """Return the slot of a constant: the same for all lanes."""
        key = (len(value), value)
        if key not in self.constant_slots:
            self.constants += b"\0" * (-len(self.constants) % 8)
            self.constant_slots[key] = len(self.constants) | CONSTANT
            self.constants += value * LANES
        return self.constant_slots[key]

    def constant_predicate(self, value: bool) -> int:
        """Return the slot of a constant predicate."""
        return self.constant(struct.pack("<I", 0xFFFFFFFF if value else 0))

    def address_of(self, name: str, function: str) -> int | None:
        """Return the address of a variable of the module or of shared memory; None if it has none such."""
        for key in (f"{function}/{name}", name):
            for variable, begin in self.shared:
                if variable.name == key:
                    return begin
        return ctypes.addressof(self.globals[name]) if name in self.globals else None

    def shared_place(self, offset: int) -> tuple[str, int]:
        """Return the variable in or before which an offset of shared memory lies, and the offset in it."""
        before = [(begin, variable.name) for variable, begin in self.shared if begin <= offset]
        begin, name = max(before, default=(0, "shared memory"))
        return name, offset - begin

    def _place_function(self, function: Function) -> None:
        for name, kind in function.registers.items():
            size = 0 if kind == "pred" else type_bytes(kind)
            self.registers[function.name, name] = (self.new_register(size), size)
        for variable in function.variables.values():
            if variable.space == "shared":
                self._place_shared(
                    Variable(f"{function.name}/{variable.name}", "shared", variable.align, variable.size)
                )
        own = [variable for variable in function.variables.values() if variable.space in ("local", "param")]
        if not function.is_kernel:
            own += function.parameters + function.results
        for variable in own:
            if variable.size is None:
                raise UnknownPtxError(f"{variable.name} has no size")
            self.own_bytes = _badly_aligned(self.own_bytes, variable.align)
            self.own[function.name, variable.name] = self.own_bytes
            self.own_variables.append((self.own_bytes, variable.size))
            self.own_bytes += variable.size + RED_ZONE

    def _place_shared(self, variable: Variable) -> None:
        begin = _badly_aligned(self.shared_bytes, variable.align)
        self.shared.append((variable, begin))
        self.shared_bytes = begin + variable.size + RED_ZONE

    def _place_dynamic(self, variable: Variable, align: int) -> None:
        if self.dynamic_begin < 0:
            self.dynamic_begin = _badly_aligned(self.shared_bytes, align)
        self.shared.append((variable, self.dynamic_begin))

    def _place_global(self, variable: Variable) -> None:
        data = variable.initial.ljust(variable.size, b"\0")
        buffer = (ctypes.c_uint8 * (variable.size + 2 * variable.align))()
        begin = _badly_aligned(ctypes.addressof(buffer), variable.align) - ctypes.addressof(buffer)
        view = (ctypes.c_uint8 * variable.size).from_buffer(buffer, begin)
        view[:] = data
        self.globals[variable.name] = view
        self.global_variables.append(variable)


def _badly_aligned(address: int, align: int) -> int:
    """The next address that is a multiple of `align` and of nothing more."""
    address += -address % align
    return address if address % (2 * align) else address + align


def immediate(text: str, size: int) -> bytes | None:
    """Return a literal's bytes, `size` of them; None if it is none."""
    if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", text):
        return int(text[2:], 16).to_bytes(4, "little")
    if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", text):
        return int(text[2:], 16).to_bytes(8, "little")
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?", text):
        return (int(text.rstrip("U"), 0) % 2 ** (8 * size)).to_bytes(size, "little")
    return None
