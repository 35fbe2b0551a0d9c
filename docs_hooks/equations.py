"""Equations as MathML, which every current browser draws without a script, a font or the network.

pymdownx.arithmatex finds `$...$` and `$$...$$` in a page; latex2mathml translates them here.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>([.,;:)]*)', re.DOTALL)
# latex2mathml leaves out the space between a function and an argument without brackets, takes a minus after an equals
# sign for a difference, and names a space by a word that browsers no longer know.
_FUNCTION = re.compile(r"(<m[io]>(?:log|exp|sin|cos)</m[io]>)(?!<mo stretchy=\"false\">&#x00028;|<mrow><mo)")
_MINUS = re.compile(r"(<mo>&#x0003D;</mo>)<mo>(?=&#x02212;)")
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
    mathml = mathml.replace('<mspace width="thinmathspace" />', _THIN_SPACE)
    return _FUNCTION.sub(rf"\1{_THIN_SPACE}", _MINUS.sub(r'\1<mo form="prefix">', mathml))


def on_page_content(page_html: str, /, **_: Any) -> str:
    """Called by MkDocs with the HTML of each page."""

    def replaced(match: re.Match[str]) -> str:
        tag, bracket, latex, after = match.groups()  # punctuation stays on the equation's line
        mathml = to_mathml(html.unescape(latex.strip()), "block" if bracket == "[" else "inline")
        return f'<{tag} class="equation">{mathml}{after}</{tag}>'

    return _EQUATION.sub(replaced, page_html)
