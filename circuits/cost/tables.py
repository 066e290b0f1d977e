"""`CostTables`: how a cost shows itself, as a table in text, Markdown, HTML and LaTeX, and as data.

The table is that of a diagram (`circuits.diagram.table`), whose columns are those of the cost. A cost in groups has a
row for each group, and the total last.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sympy

from circuits.cost import report
from circuits.cost.box_cost import BoxCost
from circuits.cost.columns import CostColumn
from circuits.cost.groups import Joined
from circuits.cost.quantities import check_columns, chosen_names, heading_of, text_of
from circuits.cost.texts import formula, shorter
from circuits.diagram import (
    SCREEN,
    Box,
    Cells,
    Depth,
    Table,
    Width,
    input_sizes,
    is_printable,
    legend,
    outline,
    rows,
    table_of,
    tree,
)  # fmt: skip
from circuits.errors import CircuitError, entry_points

_NO_GROUPS = "a group of boxes has no place in a diagram: take the columns before `by` and `sort`"


@entry_points("column", "columns", "table", "to_markdown", "to_html", "to_latex")
class CostTables:
    """The part of `Cost` that shows it."""

    if TYPE_CHECKING:  # fields of `Cost`
        rows: tuple[BoxCost, ...]
        total: BoxCost
        axes: tuple[str, ...]
        notes: tuple[str, ...]
        box: Box
        sizes: tuple[tuple[str, int], ...]

    def column(self, name: str) -> CostColumn:
        """Return one column by the place of each box, as data that a table or a drawing of the diagram takes.

        Raises:
            CircuitError: There is no such column, or the rows are groups.

        >>> from circuits import count, trace
        >>> diagram = trace(lambda a, b: a @ b, axes="y k, k x")
        >>> flops = count(diagram).column("flops")
        >>> flops[()], flops.heading
        (2*k*x*y, 'FLOPs')
        >>> print(diagram.table(columns=["axes", flops]))
        box       axes               FLOPs
        <lambda>  y k, k x -> y x  2*k*x*y
          matmul  y k, k x -> y x  2*k*x*y
        <BLANKLINE>
        axes         y, k free from a; x free from b
        activations  x*y (4*x*y B)
        """
        check_columns([name])
        if self._is_grouped:
            raise CircuitError(f"column: {_NO_GROUPS}")
        return CostColumn(name, self._joined, self._outline, input_sizes(self.box, self._given))

    def columns(self, names: str | Sequence[str] = ()) -> list[CostColumn]:
        """Return several columns, by default those that are not empty: `diagram.table(columns=cost)` shows these.

        Raises:
            CircuitError: There is no such column, or the rows are groups.
        """
        return [self.column(name) for name in chosen_names([*self.rows, self.total], names)]

    def table(
        self,
        columns: str | Sequence[str] = (),
        depth: Depth = "auto",
        width: Width = "auto",
        ascii: bool = False,
    ) -> str:
        """Return the table as text.

        A row of repeated boxes is for all of them together: the sum, but the largest peak, and each parameter once. If
        the table is wider than `width`, names of boxes shorten in the middle, to 24 columns; formulas are factored,
        then lose their last terms, those with the fewest axes; columns go, the last first. What goes is named, and the
        formulas of the total are written in full below.

        Args:
            columns: The names of quantities; by default those that are not empty.
            depth: How many levels of boxes inside boxes to show; "auto": as many as fit a screen; None: all.
            width: The number of columns; "auto": the terminal's, or 120 if the standard output is none; None: as many
                as the formulas have.
            ascii: Whether to use ASCII alone.

        Raises:
            CircuitError: There is no such column, depth or width.
        """
        return self._table(columns, depth).text(width, ascii)

    def __str__(self) -> str:
        """Return the table, as wide as the terminal; in ASCII if `sys.stdout` cannot encode it."""
        text = self.table()
        return text if is_printable(text) else self.table(ascii=True)

    def to_markdown(self, columns: str | Sequence[str] = (), depth: Depth = "auto") -> str:
        """Return the table in GitHub's Markdown; the arguments are those of `table`."""
        return self._table(columns, depth).markdown()

    def to_html(self, columns: str | Sequence[str] = (), depth: Depth = "auto") -> str:
        """Return the table as HTML; the arguments are those of `table`."""
        return self._table(columns, depth).html()

    def _repr_html_(self) -> str:
        """Return the table as HTML, which notebooks show."""
        return self.to_html()

    def to_latex(self, columns: str | Sequence[str] = ()) -> str:
        """Return the table as a LaTeX `tabular`, formulas in math mode, all rows."""
        names = chosen_names([*self.rows, self.total], columns)
        headings = [self._heading(name) for name in names]
        return report.latex(self.lines(), names, headings, self.total if self._is_grouped else None)

    def lines(self) -> list[report.Line]:
        """Return the lines of a table: how deep each is, its name, how often it is repeated, and what that costs."""
        if self._is_grouped:
            return [(0, row.label, 1, row) for row in self.rows]
        found: list[report.Line] = []
        around = [1]
        for row in rows(tree(self.box)):
            if not row.unread:
                around = [*around[: row.depth + 1], len(row.nodes)]
                joined = self._joined.row([node.place for node in row.nodes])
                found.append((row.depth, row.label, around[-1] // around[-2], joined))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain data for JSON: numbers, and formulas as text."""
        return report.plain(self.rows, self.total, self.axes, self.notes)

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, with a heading, all columns, and the total last."""
        return report.csv_text(self.rows, self.total)

    @property
    def _is_grouped(self) -> bool:
        return any(row.kind == "group" for row in self.rows)

    @cached_property
    def _joined(self) -> Joined:
        """The rows by their places, and what several cost together."""
        return Joined(self.rows)

    @cached_property
    def _outline(self) -> dict[tuple[int, ...], tuple[str, int]]:
        """The boxes of the diagram."""
        return outline(self.box)

    @property
    def _given(self) -> dict[Any, int]:
        """The sizes that `at` has given, by the symbols of the axes."""
        return {sympy.Symbol(axis, integer=True, positive=True): size for axis, size in self.sizes}

    def _heading(self, name: str) -> str:
        return heading_of(name, [getattr(row, name) for row in (*self.rows, self.total)])

    def _table(self, columns: str | Sequence[str], depth: Depth) -> Table:
        """Return the table, with the legend of axes and what is not counted under it."""
        letters = legend(self.box, self._given)
        summary = [("axes", letters)] if letters else []
        found = [f"{name}{f' ×{times}' if times > 1 else ''}" for name, times in self.total.uncounted]
        summary += [("not counted", f"{'; '.join(found)} (no formula)")] if found else []
        names = chosen_names([*self.rows, self.total], columns)
        whole = [(name, getattr(self.total, name)) for name in names]
        totals = [(self._heading(name), formula(value)) for name, value in whole if shorter(value)]
        if self._is_grouped:
            return replace(self._table_of_groups(names, depth, summary), totals=totals)
        return table_of(self.box, self.columns(names), summary, self.notes, depth, totals)

    def _table_of_groups(self, names: Sequence[str], depth: Depth, summary: Sequence[tuple[str, str]]) -> Table:
        """Return a table with a row for each group, as many as fit a screen, and the total."""
        shown = [*self.rows[: SCREEN - 2]] if depth == "auto" and len(self.rows) > SCREEN - 1 else [*self.rows]
        hidden = len(self.rows) - len(shown)
        lines = [*shown, self.total]
        found = [Cells(["box", *[row.label for row in shown], "total"])]
        for name in names:
            values = [getattr(row, name) for row in lines]
            texts, forms = [text_of(name, value) for value in values], [(), *map(shorter, values)]
            found += [Cells([self._heading(name), *texts], None, True, forms)] if any(texts) else []
        more = [("not shown", f"{hidden} more rows (depth=None shows all)")] if hidden else []
        return Table(found, [*summary, *more, *[("", note) for note in self.notes]])


__all__ = ["CostTables"]
