"""A table as Markdown, CSV, LaTeX (booktabs) and on the console. Fractions become per cent here and in figures.py."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

import rich.table
from rich.text import Text

from fastmagn.config.text import escape_markdown
from fastmagn.reporting.tables import Cell, Column, Table

DECIMALS = 2  # of our numbers, in per cent
_CSV_DECIMALS = 4
_WIDE = 9  # a LaTeX table with more columns is scaled to the page

_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


class Printed(NamedTuple):
    """A number as text: the value, which may be bold, and the rest, such as "90.61" and " ± 0.12". Empty if absent."""

    value: str
    rest: str = ""
    is_bold: bool = False


class Header(NamedTuple):
    """The header of a column, and the headers below it if the paper's numbers stand beside ours."""

    label: str
    parts: tuple[str, ...]


def headers(table: Table) -> list[Header]:
    """The headers of the cells, in order."""
    beside = ("ours", "paper", "difference")
    return [Header(column.label, beside if _is_beside(table, i) else ("",)) for i, column in enumerate(table.columns)]


def printed_rows(table: Table) -> list[tuple[tuple[str, ...], list[Printed]]]:
    """The labels and the cells of each row as text, in per cent. There are as many cells as parts of headers."""
    rows = []
    for row in table.rows:
        cells: list[Printed] = []
        for i, (cell, column) in enumerate(zip(row.cells, table.columns, strict=True)):
            cells.append(_ours(cell))
            if _is_beside(table, i):
                cells += [_paper(cell, column), _difference(cell, column)]
        rows.append((row.labels, cells))
    return rows


def to_markdown(table: Table) -> str:
    """A GitHub Markdown table, without title and caption."""

    def show(cell: Printed) -> str:
        return (f"**{cell.value}**" if cell.is_bold else cell.value or "–") + cell.rest

    flat = [*table.row_headers, *_flat_headers(table, ("", "paper", "difference"))]
    rule = ["---"] * len(table.row_headers) + ["---:"] * (len(flat) - len(table.row_headers))
    lines = [[escape_markdown(header) for header in flat], rule]
    lines += [[*map(escape_markdown, labels), *map(show, cells)] for labels, cells in printed_rows(table)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_csv(table: Table) -> str:
    """Per cent with four decimals. A column has our number, its standard deviation and the number of runs.

    If the paper has numbers for the column, they follow with the difference. A field without a number is empty.
    """
    flat = list(table.row_headers)
    for i, column in enumerate(table.columns):
        parts = ["", " sd", " runs", *([" paper", " difference"] if _is_beside(table, i) else [])]
        flat += [f"{column.label}{part}" for part in parts]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_no_formula, flat))
    for row in table.rows:
        values = [_no_formula(label) for label in row.labels]
        for i, cell in enumerate(row.cells):
            numbers = (cell.mean, cell.sd, cell.paper, cell.difference) if cell else (None,) * 4
            mean, sd, *paper = ("" if number is None else f"{100 * number:.{_CSV_DECIMALS}f}" for number in numbers)
            values += [mean, sd, str(cell.num_runs) if cell else "", *(paper if _is_beside(table, i) else [])]
        writer.writerow(values)
    return text.getvalue()


def _no_formula(label: str) -> str:
    """A label that a spreadsheet does not read as a formula."""
    return f"'{label}" if label.startswith(("=", "+", "-", "@")) else label


def to_latex(table: Table) -> str:
    r"""A LaTeX table environment. It needs \usepackage{booktabs}, and graphicx if it is scaled to the page."""
    tops, rows = headers(table), printed_rows(table)
    num_labels = len(table.row_headers)
    num_columns = num_labels + sum(len(top.parts) for top in tops)
    is_wide = num_columns > _WIDE
    lines = [
        f"% needs \\usepackage{{booktabs{',graphicx' if is_wide else ''}}}",
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escape_latex(table.title)}. {escape_latex(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if is_wide else []),
        f"\\begin{{tabular}}{{{'l' * num_labels}{'r' * (num_columns - num_labels)}}}",
        r"\toprule",
        *_latex_headers(table.row_headers, tops),
        r"\midrule",
        *(_latex_line([*map(escape_latex, labels), *map(_latex_cell, cells)]) for labels, cells in rows),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if is_wide else ""),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def narrow_tables(table: Table, width: int) -> list[Table]:
    """The table, split by columns into tables that fit a terminal of `width` characters."""
    texts = [[f"{cell.value}{cell.rest}" for cell in cells] for _, cells in printed_rows(table)]
    if any(len(row) != len(table.columns) for row in texts):  # with the paper's numbers beside ours
        return [table]
    labels = [table.row_headers, *(row.labels for row in table.rows)]
    border = 3  # between two columns
    label_width = sum(max(map(len, column)) + border for column in zip(*labels, strict=True))
    parts: list[list[int]] = []
    left = 0
    for i, column in enumerate(table.columns):
        needed = border + max(len(column.label), *(len(row[i]) for row in texts))
        if not parts or needed > left:
            parts.append([])
            left = width - label_width - 1
        parts[-1].append(i)
        left -= needed
    return [_columns_of(table, part) for part in parts]


def _columns_of(table: Table, columns: list[int]) -> Table:
    rows = tuple(row._replace(cells=tuple(row.cells[i] for i in columns)) for row in table.rows)
    return dataclasses.replace(table, columns=tuple(table.columns[i] for i in columns), rows=rows)


def to_console(table: Table) -> rich.table.Table:
    """The table for a terminal."""
    shown = rich.table.Table(title=Text(table.title), caption=Text(table.caption))
    for header in table.row_headers:
        shown.add_column(Text(header))
    for header in _flat_headers(table, ("", "paper", "difference")):
        shown.add_column(Text(header), justify="right")
    for labels, cells in printed_rows(table):
        texts = [Text.assemble((cell.value or "–", "bold" if cell.is_bold else ""), cell.rest) for cell in cells]
        shown.add_row(*map(Text, labels), *texts)
    return shown


# The formats that each table is written in, by file ending.
TABLE_FORMATS: dict[str, Callable[[Table], str]] = {"md": to_markdown, "csv": to_csv, "tex": to_latex}


def escape_latex(text: str) -> str:
    """Text that LaTeX shows literally."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def _is_beside(table: Table, column: int) -> bool:
    return table.shows_paper and table.has_paper(column)


def _ours(cell: Cell | None) -> Printed:
    if cell is None:
        return Printed("")
    rest = "" if cell.sd is None else f" ± {100 * cell.sd:.{DECIMALS}f}"
    return Printed(f"{100 * cell.mean:.{DECIMALS}f}", rest, cell.is_best)


def _paper(cell: Cell | None, column: Column) -> Printed:
    if cell is None or cell.paper is None:
        return Printed("")
    return Printed(f"{100 * cell.paper:.{column.paper_decimals}f}")


def _difference(cell: Cell | None, column: Column) -> Printed:
    """Our number minus the paper's, to the paper's precision."""
    if cell is None or cell.difference is None:
        return Printed("")
    text = f"{100 * cell.difference:+.{column.paper_decimals}f}"
    return Printed(text.lstrip("+-") if float(text) == 0 else text.replace("-", "−"))


def _flat_headers(table: Table, below: tuple[str, ...]) -> list[str]:
    """The headers in one line: the label for our number, then `below` for the paper's."""
    return [part or top.label for top in headers(table) for part in below[: len(top.parts)]]


def _latex_headers(row_headers: tuple[str, ...], tops: list[Header]) -> Iterable[str]:
    if all(len(top.parts) == 1 for top in tops):
        return [_latex_line([escape_latex(text) for text in (*row_headers, *(top.label for top in tops))])]
    upper, rules, column = [""] * len(row_headers), [], len(row_headers) + 1
    for top in tops:
        width = len(top.parts)
        upper.append(f"\\multicolumn{{{width}}}{{{'c' if width > 1 else 'r'}}}{{{escape_latex(top.label)}}}")
        if width > 1:
            rules.append(f"\\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    lower = [escape_latex(text) for text in (*row_headers, *(part for top in tops for part in top.parts))]
    return [_latex_line(upper), " ".join(rules), _latex_line(lower)]


def _latex_cell(cell: Printed) -> str:
    value = escape_latex(cell.value or "–")
    return (f"\\textbf{{{value}}}" if cell.is_bold else value) + cell.rest.replace("±", r"$\pm$")


def _latex_line(cells: Iterable[str]) -> str:
    line = " & ".join(cells)
    if line.startswith(("[", "*")):  # after the end of a row, or a rule, it would be an argument
        line = f"{{{line[0]}}}{line[1:]}"
    return rf"{line} \\"
