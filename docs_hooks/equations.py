"""Equations as MathML, which every current browser draws without a script, a font or the network.

pymdownx.arithmatex finds `$...$` and `$$...$$` in a page; latex2mathml translates them here.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# latex2mathml leaves out the space between a function and an argument without brackets.
_FUNCTION = re.compile(r"(<m[io]>(?:log|exp|sin|cos)</m[io]>)(?!<mo stretchy=\"false\">&#x00028;|<mrow><mo)")
_THIN_SPACE = '<mspace width="0.167em" />'


def to_mathml(latex: str, display: str) -> str:
    """An equation in LaTeX as a `math` element.

    Args:
        latex: Without its dollars.
        display: inline, or block for an equation on its own line.

    Raises:
        ValueError: A command is unknown, which latex2mathml would show as it is.
    """
    mathml = convert(latex, display=display)
    if unknown := re.search(r">(\\[a-zA-Z]+|&|\\)<", mathml):
        raise ValueError(f"{unknown[1]!r} is not translated to MathML: {latex}")
    return _FUNCTION.sub(rf"\1{_THIN_SPACE}", mathml)


def on_page_content(page_html: str, /, **_: Any) -> str:
    """Called by MkDocs with the HTML of each page."""

    def replaced(match: re.Match[str]) -> str:
        tag, bracket, latex = match.groups()
        display = "block" if bracket == "[" else "inline"
        return f'<{tag} class="equation">{to_mathml(html.unescape(latex.strip()), display)}</{tag}>'

    return _EQUATION.sub(replaced, page_html)
