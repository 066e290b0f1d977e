"""The table of a diagram as text, Markdown or HTML: one row a box, indented as the boxes are nested.

Start with `rows`, which defines the content of a row; `repeats` finds the repeated boxes that share a row. Notes on
sizes that did not stay symbolic, and on parameters, follow the last row.
"""

import html as markup
import io
import re
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from circuits.diagram.boxes import Box
from circuits.diagram.rows import rows

_TITLES = ("box", "axes", "sizes", "parameters", "notes")


def _lines(box: Box, notes: Sequence[str], depth: int | None) -> list[tuple[str, ...]]:
    """Return the text of each column of each row, then the notes as rows of one column."""
    table = [row.columns for row in rows(box, depth)]
    return table + [(note, "", "", "", "") for note in notes]


def text(box: Box, notes: Sequence[str] = (), depth: int | None = None) -> str:
    """Return the table as lines of text, which are not wrapped."""
    grid = Table.grid(padding=(0, 2))
    for _ in range(5):
        grid.add_column(no_wrap=True)
    table = _lines(box, notes, depth)
    for columns in table[: len(table) - len(notes)]:
        grid.add_row(*columns)
    written = io.StringIO()
    Console(file=written, width=2000, color_system=None, markup=False, highlight=False, emoji=False).print(grid)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    return "\n".join([*lines, *notes])


_SIGNS = str.maketrans({"…": "...", "×": "x", "∂": "d", "│": "|", "┐": "+", "┘": "+"})
"""What stands for the signs of a table in ASCII."""


def in_ascii(text: str) -> str:
    """Return text in ASCII, for a stream that cannot encode it; a sign that has no other form becomes `?`."""
    return text.translate(_SIGNS).encode("ascii", "replace").decode("ascii")


def printable(text: str) -> str:
    """Return text unchanged if `sys.stdout` can encode it, else in ASCII, so that it can be printed there."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return in_ascii(text)
    return text


def markdown(box: Box, notes: Sequence[str] = (), depth: int | None = None) -> str:
    """Return the table in GitHub's Markdown."""
    lines = ["| " + " | ".join(_TITLES) + " |", "|" + " --- |" * len(_TITLES)]
    for columns in _lines(box, notes, depth):
        indent = len(columns[0]) - len(columns[0].lstrip())
        first = "&nbsp;" * 2 * indent + _escaped(columns[0].lstrip())
        lines.append("| " + " | ".join([first, *map(_escaped, columns[1:])]) + " |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Escape the characters that Markdown and HTML interpret: `*` in `2*h` would begin an emphasis."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", markup.escape(text, quote=False))


def html(box: Box, notes: Sequence[str] = (), depth: int | None = None) -> str:
    """Return the table as HTML, for notebooks."""
    head = "".join([f"<th style='text-align:left'>{title}</th>" for title in _TITLES])
    body = "".join([_html_row(columns) for columns in _lines(box, notes, depth)])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_row(columns: tuple[str, ...]) -> str:
    """Return one row as HTML, indented by padding."""
    indent = len(columns[0]) - len(columns[0].lstrip())
    style = f"text-align:left;white-space:nowrap;padding-left:{0.5 + indent * 0.6:g}em"
    cells = [f"<td style='{style}'>{markup.escape(columns[0].lstrip())}</td>"]
    cells += [f"<td style='text-align:left;white-space:nowrap'>{markup.escape(column)}</td>" for column in columns[1:]]
    return f"<tr>{''.join(cells)}</tr>"


__all__ = ["html", "in_ascii", "markdown", "printable", "text"]
