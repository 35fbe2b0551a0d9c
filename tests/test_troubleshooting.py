"""Every message that the page on troubleshooting quotes is one that the source can print."""

import ast
import re
from collections.abc import Iterator

import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.errors import InputError
from tests.helpers.processes import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = [
    quoted.strip("`").removeprefix("error: ").removeprefix("warning: ")
    for quoted in re.findall(r"^> (`.+`)$", PAGE, re.MULTILINE)
]
# What the parser says of arguments.
TYPED = {
    ("--train.epoch", "3"): "--train.epoch: is not an option of python -m fastmagn.train. Did you mean 'train.epochs'?",
    ("--train.epochs", "abc"): "train.epochs: got 'abc'; expected a whole number.",
}
MIN_CONSTANT = 12  # letters that a text of the source must share with a message


def parts(node: ast.expr) -> list[str]:
    """The constant parts of a string of the source; between each two, anything may stand."""
    found = [""]
    for value in node.values if isinstance(node, ast.JoinedStr) else [node]:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found[-1] += value.value
        else:
            found.append("")
    return found


def texts(tree: ast.AST) -> Iterator[list[str]]:
    """The strings of a module, and what `check(holds, field, got, expected)` says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check" and len(node.args) == 4:
            *before, field = parts(node.args[1])
            *expected, last = parts(node.args[3])
            first, *others = [*expected, f"{last}."]
            yield [*before, f"{field}: got ", f"; expected {first}", *others]
        elif isinstance(node, ast.JoinedStr | ast.Constant):
            yield parts(node)


def fits(message: str, constants: list[str]) -> bool:
    """Whether the message begins and ends with, and has in their order, these parts."""
    *others, last = constants
    if not message.startswith(constants[0]) or not message.endswith(last):
        return False
    place = 0
    for part in others:
        place = message.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return place <= len(message) - len(last)


def test_each_message_is_still_in_the_source():
    known = [
        [*found[:-1], found[-1].rstrip("\n")]
        for path in sorted((ROOT / "fastmagn").rglob("*.py"))
        for found in texts(ast.parse(path.read_text()))
        if sum(map(str.isalpha, "".join(found))) >= MIN_CONSTANT
    ]
    assert 15 <= len(QUOTED) <= 45
    for message in set(QUOTED) - set(TYPED.values()):
        without_hint = message.strip().partition(" Did you mean ")[0]
        assert any(fits(text, constants) for text in (message.strip(), without_hint) for constants in known), message


def test_each_part_says_what_to_do():
    """A heading, a message, and at least one sentence."""
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        title, *rest = [line for line in part.splitlines() if line and not line.startswith("## ")]
        assert any(line.startswith("> ") for line in rest), title
        assert any(line[0] != ">" for line in rest), title


@pytest.mark.parametrize("arguments", TYPED)
def test_the_parser_says_what_the_page_quotes(arguments):
    with pytest.raises(InputError) as caught:
        parse_config(list(arguments), "python -m fastmagn.train", "")
    assert str(caught.value) == TYPED[arguments]
    assert TYPED[arguments] in QUOTED
