"""The table of a diagram as text, Markdown or HTML: one row a box, indented as the boxes are nested.

Start with `make_table`. `counts` says what each box counts, `rows` which boxes have a row, `columns` what each column
shows, `handed_in` those of data, `fitting` how they fit into a width, and `legend` what the letters mean. Under the
rows stand the legend, the totals, what is not shown, and the sizes that did not stay symbolic.
"""

import html as markup
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from circuits.diagram.boxes import Box, Value
from circuits.diagram.cells import bytes_text, quantity
from circuits.diagram.columns import REPEATS, Column, data_column
from circuits.diagram.counts import Node, Totals, tree
from circuits.diagram.fitting import TERMS, Cells, Width, columns_of, fit, lines
from circuits.diagram.handed_in import check_outline
from circuits.diagram.legend import input_sizes, legend
from circuits.diagram.rows import Row, fitting_rows, flat_rows, rows
from circuits.errors import CircuitError

Depth = int | Literal["auto"] | None
"""How many levels of boxes a table shows: a number, as many as fit a screen, or all (None)."""


@dataclass
class Table:
    """The texts of a table, and the lines under it.

    Attributes:
        columns: The columns, with their headings; the first has the names, indented.
        footer: The lines under the table, each with its title, which may be empty.
        totals: The lines that are added to them where formulas are cut.
    """

    columns: list[Cells]
    footer: list[tuple[str, str]]
    totals: Sequence[tuple[str, str]] = ()

    def text(self, width: Width = "auto", ascii_only: bool = False) -> str:
        """Return the table as lines of text that are no wider than `width`, if asked for in ASCII."""
        sign, columns = "~" if ascii_only else "…", self.columns
        width = columns_of(width)
        if ascii_only:
            columns = [each.changed(in_ascii) for each in columns]
        fitted, left_out = fit(columns, width, sign)
        footer = _with_totals(self.footer, self.totals) if TERMS in left_out else self.footer
        if ascii_only:
            footer = [(title, in_ascii(line)) for title, line in footer]
        if left_out:
            more = "; width=None shows all" if TERMS in left_out else ""
            footer = _with_left_out(footer, f"{', '.join(left_out)} (wider than {width} columns{more})")
        return "\n".join([*lines(fitted), *([""] if footer else []), *_footer_lines(footer, width)])

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        columns = self.columns
        body = zip(*[each.texts for each in columns], strict=True)
        found = ["| " + " | ".join([_first(row[0]), *map(_escaped, row[1:])]) + " |" for row in body]
        marks = "".join([" ---: |" if each.right else " --- |" for each in columns])
        footer = [f"- {_escaped(f'{title}: {line}' if title else line)}" for title, line in self.footer]
        return "\n".join([found[0], f"|{marks}", *found[1:], *[""] * bool(footer), *footer]) + "\n"

    def html(self) -> str:
        """Return the table as HTML, for notebooks."""
        columns = self.columns
        styles = [f"text-align:{'right' if each.right else 'left'};white-space:nowrap" for each in columns]
        head, *body = zip(*[each.texts for each in columns], strict=True)
        titles = [f"<th style='{style}'>{markup.escape(text)}</th>" for style, text in zip(styles, head, strict=True)]
        found = [_html_row(row, styles) for row in body]
        under = [f"<b>{markup.escape(title)}</b> {markup.escape(line)}".strip() for title, line in self.footer]
        table = f"<table><thead><tr>{''.join(titles)}</tr></thead><tbody>{''.join(found)}</tbody></table>"
        return f"{table}<p>{'<br>'.join(under)}</p>" if under else table


def make_table(
    root: Node, chosen: Sequence[Column], summary: Sequence[tuple[str, str]], notes: Sequence[str],
    depth: Depth = "auto", sort: str | None = None, usual: bool = False,
) -> Table:  # fmt: skip
    """Return the table of a diagram.

    Args:
        root: The node of the outermost box.
        chosen: The columns after the names of the boxes; one that is empty is left out.
        summary: The lines under it that every table has.
        notes: The sizes that did not stay symbolic, and other lines without a title.
        depth: How many levels of boxes are shown.
        sort: The heading of the column by which the rows without rows inside are sorted; None: as they ran.
    """
    if depth is not None and depth != "auto" and (not isinstance(depth, int) or depth < 0):
        raise CircuitError(f'depth is {depth!r}; it must be a number of levels, "auto" (a screen), or None (all)')
    for column in chosen:
        if column.data is not None:
            check_outline(column.data, root.box, f"the column {column.heading!r}")
    if depth == "auto" and sort is None:
        found, hidden = fitting_rows(root)
    else:
        found = rows(root, None if depth == "auto" else depth)
        hidden = 0 if depth is None or depth == "auto" else len(rows(root)) - len(found)
    if sort is not None:
        found = _sorted(flat_rows(found), chosen, sort)
    if usual:
        chosen = _without_repeated_column(found, chosen)
    failed = [("failed", f"{box.label}: {box.error}") for box in root.box.walk() if box.error]
    more = [("not shown", f"{hidden} more rows (depth=None shows all)")] if hidden else []
    return Table(_cells(found, chosen), [*summary, *more, *failed, *[("", note) for note in notes]])


def table_of(
    box: Box, columns: Sequence[Mapping[Any, Any]], summary: Sequence[tuple[str, str]], notes: Sequence[str],
    depth: Depth = "auto", totals: Sequence[tuple[str, str]] = (),
) -> Table:  # fmt: skip
    """Return a table of a diagram whose columns are data alone, beside how often rows are repeated.

    Args:
        box: The outermost box.
        columns: The data, from the places of boxes to numbers or text.
        summary, notes, depth: As for `make_table`.
        totals: The lines that are added where formulas are cut.
    """
    table = make_table(tree(box), [*map(data_column, columns), REPEATS], summary, notes, depth)
    return replace(table, totals=totals)


def _cells(found: Sequence[Row], columns: Sequence[Column]) -> list[Cells]:
    """Return the texts of all columns, with headings, the names of the boxes first."""
    texts = [Cells(["box", *["  " * row.depth + row.label for row in found]])]
    for column in columns:
        cells, short, forms = [column.text(row) for row in found], None, None
        if any(cells):
            if column.short is not None:
                short = [f"output {column.heading}", *[column.short(row) for row in found]]
            if column.forms is not None:
                forms = [(), *[column.forms(row) for row in found]]
            texts.append(Cells([column.heading, *cells], short, column.number is not None, forms))
    return texts


def other_sizes(box: Box, columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Return the lines that say for which sizes columns of data hold, if for others than the diagram has."""
    found: dict[str, list[str]] = {}
    for column in columns:
        sizes = getattr(column.data, "sizes", "")
        if sizes and sizes != input_sizes(box):
            found.setdefault(sizes, []).append(column.heading)
    return [("at", f"{sizes}: {', '.join(headings)}") for sizes, headings in found.items()]


def _without_repeated_column(found: Sequence[Row], columns: Sequence[Column]) -> Sequence[Column]:
    """Return the columns without the axes if none has a name, and without the sizes if they say the same."""
    axes, sizes = [
        [each for each in columns if each.heading == name and each.data is None] for name in ("axes", "sizes")
    ]
    if not axes or not sizes or any(axes[0].text(row) != sizes[0].text(row) for row in found):
        return columns
    named = any(axis for row in found if row.box for value in _values(row) for axis in value.axes)
    return [each for each in columns if each is not (sizes if named else axes)[0]]


def _values(row: Row) -> tuple[Value, ...]:
    return () if row.box is None else (*row.box.inputs, *row.box.outputs)


def _sorted(found: list[Row], columns: Sequence[Column], name: str) -> list[Row]:
    """Return rows sorted by a column: the largest number first, or the texts in order."""
    column = next((each for each in columns if each.heading == name), None)
    if column is None:
        raise CircuitError(
            f"the table is sorted by {name!r}, but its columns are {', '.join([each.heading for each in columns])}"
        )
    if column.number is None:
        return sorted(found, key=column.text)
    numbers = {id(row): column.number(row) for row in found}
    free = sorted({f"{each}" for number in numbers.values() for each in getattr(number, "free_symbols", ())})
    if free:
        raise CircuitError(f"{name} depends on {', '.join(free)}, so rows cannot be sorted by it: give sizes={{...}}")
    return sorted(found, key=lambda row: -numbers[id(row)])


def summary_of(root: Node, totals: Totals) -> list[tuple[str, str]]:
    """Return the lines under a table that every diagram has: the legend of axes, and the totals."""
    letters, found = legend(root.box), []
    if letters:
        found.append(("axes", letters))
    if totals.parameters:
        words = {"trained": totals.trained, "frozen": totals.frozen, "unused by this run": totals.unused}
        parts = ", ".join([f"{number:,} {word}" for word, number in words.items() if number])
        parts = "all trained" if totals.trained == totals.parameters and not totals.unused else parts
        found.append(("parameters", f"{totals.parameters:,} ({bytes_text(totals.parameter_bytes)}): {parts}"))
    if totals.buffers:
        found.append(("buffers", f"{totals.buffers:,} ({bytes_text(totals.buffer_bytes)})"))
    if totals.activations != 0:
        number, size = quantity(totals.activations), bytes_text(totals.activation_bytes)
        found.append(("activations", f"{number} ({size})" if number[:2] != "f(" else f"depend on {number[2:-1]}"))
    return found


def _with_totals(footer: list[tuple[str, str]], totals: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the lines under a table with the totals after the axes."""
    first = [each for each in footer if each[0] == "axes"]
    return [*first, *totals, *[each for each in footer if each[0] != "axes"]]


def _with_left_out(footer: list[tuple[str, str]], text: str) -> list[tuple[str, str]]:
    """Return the lines under a table with what the width leaves out."""
    before = next((line for title, line in footer if title == "not shown"), "")
    named = [each for each in footer if each[0] and each[0] != "not shown"]
    return [*named, ("not shown", f"{before}; {text}" if before else text), *[each for each in footer if not each[0]]]


def _footer_lines(footer: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return the lines under a table with their titles, wrapped."""
    margin, found = max([len(title) for title, _ in footer], default=0) + 2, []
    for title, line in footer:
        first, rest = (f"{title:<{margin}}", " " * margin) if title else ("", "  ")
        whole = first + line
        wrapped = textwrap.wrap(whole, width, subsequent_indent=rest, break_on_hyphens=False)
        found += [whole] if len(whole) <= width else wrapped
    return found


_SIGNS = str.maketrans({"…": "...", "×": "x", "∂": "d", "│": "|", "┐": "+", "┘": "+"})
"""What stands for the signs of a table in ASCII."""


def in_ascii(text: str) -> str:
    """Return text in ASCII, for a stream that cannot encode it; a sign that has no other form becomes `?`."""
    return text.translate(_SIGNS).encode("ascii", "replace").decode("ascii")


def is_printable(text: str) -> bool:
    """Return whether `sys.stdout` can encode a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _first(text: str) -> str:
    """Return the name of a box in Markdown, indented."""
    return "&nbsp;" * 2 * (len(text) - len(text.lstrip())) + _escaped(text.lstrip())


def _escaped(text: str) -> str:
    """Escape the characters that Markdown and HTML interpret: `*` in `2*h` would begin an emphasis."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", markup.escape(text, quote=False))


def _html_row(row: Sequence[str], styles: Sequence[str]) -> str:
    """Return one row as HTML, indented by padding."""
    indent = len(row[0]) - len(row[0].lstrip())
    styles = [f"{styles[0]};padding-left:{0.5 + indent * 0.6:g}em", *styles[1:]]
    cells = [
        f"<td style='{style}'>{markup.escape(text.lstrip())}</td>" for style, text in zip(styles, row, strict=True)
    ]
    return f"<tr>{''.join(cells)}</tr>"


__all__ = ["Depth", "Table", "in_ascii", "is_printable", "make_table", "other_sizes", "summary_of", "table_of"]
