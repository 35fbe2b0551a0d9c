"""PTX text -> functions, variables and statements. The PTX is what NVVM (numba-cuda) or NVRTC (CUDA C++) writes.

Names in an inner scope `{ ... }` (calls, inline assembly) get a name of their own, so that a function has one table.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TYPE_BYTES = {"pred": 4, "f16x2": 4, "bf16": 2, "bf16x2": 4}
_IDENTIFIER = re.compile(r"(?<![\w$.%])[%$A-Za-z_][\w$]*")
_LABEL = re.compile(r"\s*([$%A-Za-z_][\w$]*)\s*:(?!:)")
_ARRAY = re.compile(r"(\S+?)((?:\[\d*\])*)$")
_SPACES = ("shared", "global", "const", "local", "param")


class UnknownPtxError(Exception):
    """The PTX has something that this instrument does not know; the message names it and its line."""


@dataclass
class Variable:
    """A variable of a state space. `size` in bytes is None if it is dynamic shared memory."""

    name: str
    space: str
    align: int
    size: int | None
    initial: bytes = b""


@dataclass
class Statement:
    """One instruction. `guard` is its predicate, with a leading `!` if negated; `source` what `.loc` says of it."""

    line: int
    text: str
    guard: str
    mnemonic: str
    operands: list[str]
    source: str = ""


@dataclass
class Function:
    """A kernel (`.entry`) or a device function (`.func`)."""

    name: str
    is_kernel: bool
    parameters: list[Variable]
    results: list[Variable]
    registers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Module:
    """All of one PTX file."""

    target: str
    variables: dict[str, Variable]
    functions: dict[str, Function]

    @property
    def kernels(self) -> list[Function]:
        """The functions that can be launched."""
        return [function for function in self.functions.values() if function.is_kernel]


def type_bytes(name: str) -> int:
    """Return the bytes of a PTX type such as `u8`; of a predicate, those of a warp's 32 bits."""
    return _TYPE_BYTES.get(name) or int(re.sub(r"\D", "", name)) // 8


def parse(ptx: str) -> Module:
    """Parse a PTX file."""
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), ptx, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", "", text)
    module = Module(re.search(r"^\.target\s+(\w+)", text, re.MULTILINE)[1], {}, {})
    files = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]+)"', text, re.MULTILINE))
    text = re.sub(r"^[ \t]*\.(version|target|address_size|file)\b[^\n]*", "", text, flags=re.MULTILINE)
    position = 0
    while position < len(text):
        start = position
        header, end = _until(text, start, ";{")
        if re.search(r"\.(entry|func)\b", header) and text[end] == "{":
            close = _closing(text, end)
            first_line = text.count("\n", 0, end + 1) + 1
            function = _function(header)
            _parse_body(function, text[end + 1 : close], first_line, files)
            module.functions[function.name] = function
            position = close + 1
        elif ".section" in header:
            position = _closing(text, end) + 1
        else:
            position = text.find(";", end) + 1 or len(text)
            declaration = text[start : position - 1].strip()
            if re.match(r"(\.\w+\s+)*\.(shared|global|const)\b", declaration):
                variable = _variable(declaration)
                module.variables[variable.name] = variable
    return module


def _until(text: str, position: int, stops: str) -> tuple[str, int]:
    end = min((found for stop in stops if (found := text.find(stop, position)) >= 0), default=len(text))
    return text[position:end], end


def _closing(text: str, opening: int) -> int:
    depth = 0
    for found in re.finditer(r"[{}]", text[opening:]):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return opening + found.start()
    raise UnknownPtxError("a brace is not closed")


def _variable(declaration: str, space: str | None = None) -> Variable:
    """Parse such as `.visible .shared .align 4 .b8 name[20]` or `.global .b8 table[2] = {1, 2}`."""
    declared, _, initial = declaration.partition("=")
    words = declared.split()
    name, dimensions = _ARRAY.match(words[-1]).groups()
    modifiers = [word.removeprefix(".") for word in words if word.startswith(".")]
    kind = next(word for word in modifiers if re.fullmatch(r"[busf]\d+|bf?\d+x2|f16x2|pred", word))
    align = int(words[words.index(".align") + 1]) if ".align" in words else type_bytes(kind)
    size: int | None = type_bytes(kind)
    for length in re.findall(r"\[(\d*)\]", dimensions):
        size = size * int(length) if length and size is not None else None
    where = space or next(word for word in modifiers if word in _SPACES)
    return Variable(name, where, align, size, _initial_bytes(initial, kind, name))


def _initial_bytes(text: str, kind: str, name: str) -> bytes:
    values = [value.strip() for value in text.replace("{", " ").replace("}", " ").split(",") if value.strip()]
    data = b""
    for value in values:
        if value[:2] in ("0f", "0F", "0d", "0D"):
            data += int(value[2:], 16).to_bytes(type_bytes(kind), "little")
        elif re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", value):
            number = int(value.rstrip("U"), 0)
            data += (number % 2 ** (8 * type_bytes(kind))).to_bytes(type_bytes(kind), "little")
        else:
            raise UnknownPtxError(f"the initial value {value!r} of {name}")
    return data


def _function(header: str) -> Function:
    is_kernel = ".entry" in header
    found = re.search(r"\.(?:entry|func)\s*(?:\(([^)]*)\)\s*)?([$\w]+)\s*(?:\(([^)]*)\))?", header)
    results, name, parameters = found.groups()
    made = [_parameters(text) for text in (parameters, results)]
    return Function(name, is_kernel, *made)


def _parameters(text: str | None) -> list[Variable]:
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    return [_variable(re.sub(r"\.ptr\b(\s*\.(global|shared|const|local))?(\s*\.align\s+\d+)?", "", p)) for p in parts]


def _pieces(body: str, first_line: int) -> Iterator[tuple[int, str]]:
    """Each label, brace of a scope, `.loc` and statement of a body, with its line."""
    position, line = 0, first_line
    while position < len(body):
        skipped = re.compile(r"\s*").match(body, position).end()
        line += body.count("\n", position, skipped)
        position = skipped
        if position == len(body):
            return
        label = _LABEL.match(body, position)
        if body[position] in "{}":
            end, piece = position + 1, body[position]
        elif re.compile(r"\.loc\s").match(body, position):
            end = body.find("\n", position)
            piece = body[position:end]
        elif label:
            end, piece = label.end(), f"{label[1]}:"
        else:
            end = body.find(";", position) + 1
            piece = body[position : end - 1]
        yield line, " ".join(piece.split())
        line += body.count("\n", position, end)
        position = end


def _parse_body(function: Function, body: str, first_line: int, files: dict[str, str]) -> None:
    scopes: list[dict[str, str]] = []
    made, source = 0, ""
    for line, piece in _pieces(body, first_line):
        if piece == "{":
            made += 1
            scopes.append({"": str(made)})
        elif piece == "}":
            scopes.pop()
        elif piece.startswith(".loc "):
            number, row = piece.split()[1:3]
            source = f"{files.get(number, number)}:{row}"
        elif piece.endswith(":"):
            function.labels[piece[:-1]] = len(function.statements)
        elif piece.startswith(".branchtargets"):
            targets = [target.strip() for target in piece.removeprefix(".branchtargets").split(",")]
            function.tables[list(function.labels)[-1]] = targets
        elif piece.startswith(".reg"):
            _declare_registers(function, piece, scopes)
        elif re.match(r"\.(local|shared|param)\b", piece):
            variable = _variable(_renamed(piece, _declare(scopes, [_ARRAY.match(piece.split()[-1])[1]])))
            function.variables[variable.name] = variable
        elif not piece.startswith("."):
            function.statements.append(_statement(line, _renamed(piece, scopes), source))
        elif not piece.startswith(".pragma"):
            raise UnknownPtxError(f"line {line}: {piece}")


def _declare(scopes: list[dict[str, str]], names: list[str]) -> list[dict[str, str]]:
    if scopes:
        scopes[-1].update({name: f"{name}__scope{scopes[-1]['']}" for name in names})
    return scopes


def _renamed(text: str, scopes: list[dict[str, str]]) -> str:
    for scope in reversed(scopes):
        text = _IDENTIFIER.sub(lambda found, scope=scope: scope.get(found[0], found[0]), text)
    return text


def _declare_registers(function: Function, piece: str, scopes: list[dict[str, str]]) -> None:
    _, kind, names = piece.split(maxsplit=2)
    for name in (name.strip() for name in names.split(",")):
        many = re.fullmatch(r"(\S+)<(\d+)>", name)
        declared = [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]
        for register in declared:
            function.registers[_renamed(register, _declare(scopes, [register]))] = kind.removeprefix(".")


def _statement(line: int, text: str, source: str) -> Statement:
    guard, mnemonic, operands = re.fullmatch(r"(?:@(!?\s*[%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", text).groups()
    return Statement(line, text, (guard or "").replace(" ", ""), mnemonic, _split(operands), source)


def _split(text: str) -> list[str]:
    """Split operands at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
