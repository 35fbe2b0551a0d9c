"""Reads CIFAR's pickles as data: nothing that a file names is imported, and no code in it is run.

The standard library's disassembler decodes the opcodes (pickletools.genops only parses), and the small machine below
executes those that a dictionary of numbers, strings and arrays needs. The globals that numpy's pickles name are symbols
here and never looked up. Any other global is refused, and so is any opcode that creates an object. There is no
Unpickler whose find_class could be circumvented.

Source for the meaning of the opcodes: CPython's Lib/pickletools.py.
"""

import math
import pickletools
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.errors import InputError, one_line

# CIFAR-100's largest file has 302,000 opcodes. One byte of a file can make an empty list, which takes 64 bytes.
_MAX_OPCODES = 2_000_000


class _Symbol(Enum):
    ENCODE = "_codecs.encode"
    RECONSTRUCT = "_reconstruct"
    FROM_BUFFER = "_frombuffer"
    NDARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"


# numpy 1 writes numpy.core and numpy 2 writes numpy._core; protocol 2 writes Python 3's bytes with _codecs.encode.
_SYMBOLS = {
    "_codecs encode": _Symbol.ENCODE,
    "numpy.core.multiarray _reconstruct": _Symbol.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Symbol.RECONSTRUCT,
    "numpy.core.numeric _frombuffer": _Symbol.FROM_BUFFER,
    "numpy._core.numeric _frombuffer": _Symbol.FROM_BUFFER,
    "numpy ndarray": _Symbol.NDARRAY,
    "numpy dtype": _Symbol.DTYPE,
}
_DTYPES = {"u1": np.dtype(np.uint8), "i8": np.dtype("<i8")}

_PUSH_ARGUMENT = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"}
    | {"BINBYTES8", "BYTEARRAY8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Refused(ValueError):
    """The file contains something that a dictionary of plain values does not need."""


class _Array:
    """An array under construction: numpy's pickles name it first and fill it later."""

    value: np.ndarray | None = None


def read_plain_pickle(path: Path, max_bytes: int) -> dict[str, Any]:
    """The dictionary in a pickle: keys are str; values are None, bool, int, str, bytes, lists, tuples and arrays.

    Arrays are uint8 or int64 and read-only. A string that Python 2 wrote is returned as str, decoded as Latin-1. Memory
    stays below about six times `max_bytes`, plus 0.3 GB for the opcodes, whatever lengths the file claims.

    Args:
        path: The file.
        max_bytes: Larger files are refused unread.

    Raises:
        InputError: The file is too large, truncated, not a pickle or not such a dictionary, or it names or contains
            anything else.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise InputError(f"{path}: has {size} bytes; expected at most {max_bytes}. Download it again.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        return _Machine(len(data)).run(data)
    except Exception as error:  # pickletools says ValueError of most that it cannot decode, and anything of the rest
        reason = one_line(error)
        raise InputError(
            f"{path}: not a dictionary of plain values and arrays ({reason}). Nothing in it was run. Download it again."
        ) from error


class _Machine:
    """The pickle machine's stack and memo, and the opcodes it knows."""

    def __init__(self, num_bytes: int) -> None:
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []  # one for each open MARK
        self.memo: dict[Any, Any] = {}  # by the slots' numbers
        # Two bytes of a file can encode a remembered string again; honest files encode each string once.
        self.bytes_to_encode = num_bytes
        self.handlers: dict[str, Callable[[], None]] = {
            "MARK": self.mark,
            "TUPLE": self.push_tuple,
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "APPEND": lambda: self.extend([self.pop()]),
            "APPENDS": lambda: self.extend(self.pop_to_mark()),
            "SETITEM": lambda: self.set_items(self.pop_tuple(2)),
            "SETITEMS": lambda: self.set_items(self.pop_to_mark()),
            "REDUCE": self.reduce,
            "BUILD": self.build,
        }

    def run(self, data: bytes) -> dict[str, Any]:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            _require(count < _MAX_OPCODES, "more opcodes than any CIFAR file has")
            name = opcode.name
            if name in _PUSH_ARGUMENT:
                self.stack.append(argument)
            elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                _require(len(self.stack) > 0, f"{name} of nothing at byte {position}")
                self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                _require(argument in self.memo, f"{name} of an empty slot at byte {position}")
                self.stack.append(self.memo[argument])
            elif name in self.handlers:
                self.handlers[name]()
            elif name in _PUSH_CONSTANT:
                self.stack.append(_PUSH_CONSTANT[name])
            elif name in _TUPLE_SIZES:
                self.stack.append(self.pop_tuple(_TUPLE_SIZES[name]))
            elif name in ("GLOBAL", "STACK_GLOBAL"):
                self.push_symbol(argument)
            elif name == "STOP":
                _require(position == len(data) - 1, "bytes after its end")
            else:
                _require(name in ("PROTO", "FRAME"), f"opcode {name} at byte {position}, which a CIFAR file never has")
        return self.result()

    def result(self) -> dict[str, Any]:
        _require(len(self.stack) == 1 and not self.outer_stacks, "values left over")
        top = self.pop()
        _require(isinstance(top, dict), "not a dictionary")
        keys = [key.decode("latin-1") if isinstance(key, bytes) else key for key in top]
        values = [value.value if isinstance(value, _Array) else value for value in top.values()]
        return dict(zip(keys, values, strict=True))

    def mark(self) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop(self) -> Any:
        _require(len(self.stack) > 0, "a value is missing")
        return self.stack.pop()

    def pop_tuple(self, size: int) -> tuple[Any, ...]:
        return tuple(self.pop() for _ in range(size))[::-1]

    def pop_to_mark(self) -> list[Any]:
        _require(len(self.outer_stacks) > 0, "a mark is missing")
        items = self.stack
        self.stack = self.outer_stacks.pop()
        return items

    def push_tuple(self) -> None:
        items = self.pop_to_mark()
        self.stack.append(tuple(items))

    def extend(self, items: list[Any]) -> None:
        _require(len(self.stack) > 0 and isinstance(self.stack[-1], list), "items for something that is not a list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        _require(
            len(self.stack) > 0 and isinstance(self.stack[-1], dict), "items for something that is not a dictionary"
        )
        _require(len(items) % 2 == 0, "a key without a value")
        # Other keys could be tuples nested so deeply that hashing them crashes the process.
        _require(all(type(key) in (str, bytes) for key in items[::2]), "a key that is not a string")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def push_symbol(self, argument: str | None) -> None:
        if argument is None:  # STACK_GLOBAL: module and name are on the stack
            parts = self.pop_tuple(2)
            _require(all(isinstance(part, str) for part in parts), "a global whose name is not a string")
            argument = " ".join(parts)
        _require(argument in _SYMBOLS, f"it names {argument[:80].replace(' ', '.')!r}, which a CIFAR file never does")
        self.stack.append(_SYMBOLS[argument])

    def reduce(self) -> None:
        symbol, arguments = self.pop_tuple(2)
        _require(
            isinstance(symbol, _Symbol) and isinstance(arguments, tuple), "a call of something that is not a symbol"
        )
        if symbol is _Symbol.ENCODE:
            _require(
                len(arguments) == 2 and _is_one_of(arguments[1], "latin1", "latin-1"), "an encoding other than Latin-1"
            )
            self.stack.append(self.encode(arguments[0]))
        elif symbol is _Symbol.RECONSTRUCT:
            _require(len(arguments) == 3 and arguments[0] is _Symbol.NDARRAY, "an object that is not a plain array")
            self.stack.append(_Array())
        elif symbol is _Symbol.DTYPE:
            _require(len(arguments) > 0 and isinstance(arguments[0], str), "a dtype without a name")
            _require(arguments[0] in _DTYPES, f"dtype {arguments[0][:20]!r}; expected 'u1' or 'i8'")
            self.stack.append(_DTYPES[arguments[0]])
        else:
            _require(symbol is _Symbol.FROM_BUFFER and len(arguments) == 4, f"a call of {symbol.value}")
            array = _Array()
            array.value = self.array(arguments[2], arguments[1], _is_one_of(arguments[3], "F"), arguments[0])
            self.stack.append(array)

    def build(self) -> None:
        target, state = self.pop_tuple(2)
        _require(isinstance(state, tuple) and len(state) >= 5, "a state of another form")
        if isinstance(target, np.dtype):
            _require(_is_one_of(state[1], "|", "<", "="), "a byte order that is not little-endian")
        else:
            _require(
                isinstance(target, _Array) and target.value is None and len(state) == 5,
                "a state for something that has none",
            )
            target.value = self.array(*state[1:])
        self.stack.append(target)

    def encode(self, text: Any) -> bytes:
        _require(isinstance(text, str), "bytes that are not a string")
        self.bytes_to_encode -= len(text)
        _require(self.bytes_to_encode >= 0, "the same string encoded again and again")
        return text.encode("latin-1")

    def array(self, shape: Any, dtype: Any, is_fortran: Any, content: Any) -> np.ndarray:
        _require(isinstance(dtype, np.dtype), "an array without a valid dtype")
        is_shape = (
            isinstance(shape, tuple) and len(shape) <= 4 and all(type(side) is int and side >= 0 for side in shape)
        )
        _require(is_shape, "an array without a valid shape")
        content = content if isinstance(content, (bytes, bytearray)) else self.encode(content)
        wanted = math.prod(shape) * dtype.itemsize
        _require(wanted == len(content), f"an array of {wanted} bytes that holds {len(content)}")
        array = np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
        array.flags.writeable = False
        return array


def _is_one_of(value: Any, *texts: str) -> bool:
    return isinstance(value, str) and value in texts


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Refused(otherwise)
