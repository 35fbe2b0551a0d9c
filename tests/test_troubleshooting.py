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


def pattern(node: ast.expr) -> str:
    """What a string of the source can be, as a regular expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern(part) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.IfExp):
        return f"(?:{pattern(node.value.body)}|{pattern(node.value.orelse)})"
    return ".*?"


def texts(tree: ast.AST) -> Iterator[str]:
    """The strings of a module, and what `check(holds, field, got, expected)` says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check" and len(node.args) == 4:
            yield f"{pattern(node.args[1])}: got .*?; expected {pattern(node.args[3])}\\."
        elif isinstance(node, ast.JoinedStr | ast.Constant):
            yield pattern(node).removesuffix(re.escape("\n"))


def test_each_message_is_still_in_the_source():
    known = {
        text
        for path in sorted((ROOT / "fastmagn").rglob("*.py"))
        for text in texts(ast.parse(path.read_text()))
        if len(re.sub(r"\.\*\?|\W", "", text)) >= MIN_CONSTANT
    }
    assert 15 <= len(QUOTED) <= 45
    for message in set(QUOTED) - set(TYPED.values()):
        whole = [text for text in known if re.fullmatch(f"(?:{text})(?: Did you mean .*)?", message.strip(), re.DOTALL)]
        assert whole, message


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
