"""`Tables`: how a diagram shows itself, as a table in text, Markdown or HTML, and as plain data for JSON."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn

from circuits.diagram import plain_data
from circuits.diagram.boxes import Box, Fixed, Value
from circuits.diagram.columns import Columns, adds_to_usual, chosen_columns
from circuits.diagram.counts import Node, Totals, buffers_of, frozen_names, totals, tree
from circuits.diagram.fitting import Width
from circuits.diagram.table import Depth, Table, is_printable, make_table, other_sizes, summary_of
from circuits.errors import entry_points


@entry_points("table", "to_markdown", "to_html")
class Tables:
    """The part of `Diagram` that shows it."""

    if TYPE_CHECKING:  # fields of `Diagram`
        box: Box
        state: Mapping[int, tuple[nn.Module, str]]
        buffers: tuple[Value, ...]
        fixed: tuple[Fixed, ...]
        guards: tuple[Any, ...]

    @cached_property
    def _tree(self) -> Node:
        """What each box counts."""
        return tree(self.box)

    @property
    def totals(self) -> Totals:
        """The number and the bytes of parameters, trained, frozen and unused ones, buffers and activations."""
        frozen = frozen_names(self.box, self.state)
        return totals(self._tree, buffers_of(self.box, self.buffers), frozen)

    def __str__(self) -> str:
        """Return the table, as wide as the terminal; in ASCII if `sys.stdout` cannot encode it."""
        text = self.table()
        return text if is_printable(text) else self.table(ascii=True)

    def table(
        self,
        depth: Depth = "auto",
        columns: Columns | None = None,
        sort: str | None = None,
        width: Width = "auto",
        ascii: bool = False,
    ) -> str:
        """Return the table as text, one row a box, with a legend of axes and totals under it.

        Parameters are counted in the first operation that reads them, so the rows inside a row add up to it; a row of
        repeated boxes counts all of them. Activations are the tensors that operations compute, views left out. If the
        table is wider than `width`, names of boxes shorten in the middle, to 30 columns, and notes to 20; then sizes go
        where axes are shown; axes and sizes show the outputs alone; names shorten to 24 columns; formulas of a cost are
        factored, then lose their last terms; further columns go, the last first; at last the widest column shortens.
        What goes is named.

        Args:
            depth: How many levels of boxes inside boxes to show; "auto": as many as fit a screen; None: all.
            columns: The columns after the names of the boxes: "axes", "sizes", "parameters" (these three by default),
                "dtype", "device", "arguments" (of the operation, by name), "memory" (of what operations compute),
                "where" (file and line), "notes" (always shown); as a list, or as one text with spaces. A mapping is a
                column of data: from the dotted path of a module, or the place of a box (`(0, 2)`: the third box of the
                first), to a number or text, with its heading as attribute or entry `heading`. A cost of this diagram,
                `count(diagram)`, is the columns of its quantities. Either alone is shown beside the first three.
            sort: The heading of a column by which to sort: the rows that have no rows inside, largest number first.
            width: The number of columns; "auto": the terminal's, or 120 if the standard output is none; None: as many
                as the texts have.
            ascii: Whether to use ASCII alone.

        Raises:
            CircuitError: There is no such column, depth or width, rows are to be sorted by what depends on free axes,
                or a cost is that of another diagram.
        """
        return self._table(depth, columns, sort).text(width, ascii)

    def to_markdown(self, depth: Depth = "auto", columns: Columns | None = None, sort: str | None = None) -> str:
        """Return the table in GitHub's Markdown; the arguments are those of `table`."""
        return self._table(depth, columns, sort).markdown()

    def to_html(self, depth: Depth = "auto", columns: Columns | None = None, sort: str | None = None) -> str:
        """Return the table as HTML; the arguments are those of `table`."""
        return self._table(depth, columns, sort).html()

    def _repr_html_(self) -> str:
        """Return the table as HTML, which notebooks show."""
        return self.to_html()

    def _table(self, depth: Depth, columns: Columns | None, sort: str | None) -> Table:
        frozen = frozen_names(self.box, self.state)
        chosen = chosen_columns(columns, frozen)
        summary = [*summary_of(self._tree, self.totals), *other_sizes(self.box, chosen)]
        return make_table(
            self._tree, chosen, summary, [*map(str, self.fixed)], depth, sort, usual=adds_to_usual(columns)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the diagram as plain data for JSON: nested boxes, values by number, sizes as numbers or text."""
        frozen = frozen_names(self.box, self.state)
        return plain_data.plain_data(self._tree, self.totals, frozen, self.fixed, self.guards)


__all__ = ["Tables"]
