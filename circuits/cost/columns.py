"""The columns of a cost: one quantity each, by the place of each box, as data that other views take."""

from collections.abc import Mapping, Sequence
from typing import Any

from circuits.cost.box_cost import COLUMNS, BoxCost, check_columns
from circuits.cost.groups import Joined
from circuits.cost.texts import amount, is_formula, shorter

Place = tuple[int, ...]

_DEFAULT = (
    "flops", "live_flops", "parameters", "bytes", "activations", "saved", "peak", "intensity", "buffers",
)  # fmt: skip
"""The quantities that a table shows if none are chosen; in a narrow table the last go first. Multiply-adds are half the
FLOPs."""

_IN_BYTES = frozenset(["state_bytes", "read", "written", "bytes", "activations", "saved", "peak"])
_COUNTS = ("parameters", "trained", "frozen", "buffers", "calls")


class CostColumn(dict[Place, Any]):
    """One quantity by the place of each box, as data that a table or a drawing of the diagram takes.

    Attributes:
        name: The name of the quantity.
        heading: Its heading; that of bytes has the unit if they are formulas, which have none.
        outline: The boxes of the diagram of which it is.
        sizes: The sizes of axes of the inputs for which it holds, `y=1, m=128`.
    """

    def __init__(self, name: str, joined: Joined, outline: Mapping[Place, tuple[str, int]], sizes: str) -> None:
        super().__init__({place: getattr(row, name) for place, row in joined.rows.items()})
        self.name, self.outline, self.sizes, self._joined = name, outline, sizes, joined
        self.heading = heading_of(name, self.values())

    def together(self, places: Sequence[Place]) -> Any:
        """Return the quantity of several boxes: the sum, but the largest peak, and each parameter once."""
        return getattr(self._joined.row(places), self.name)

    def text(self, value: Any) -> str:
        """Return the text of a value: `16.85 G`, `12.3 MB`, `4*k*x*y`; of nothing it is empty."""
        return text_of(self.name, value)

    def shorter(self, value: Any) -> Sequence[str]:
        """Return shorter texts of a formula, the longest first."""
        return [] if self.name == "intensity" else shorter(value)


def heading_of(name: str, values: Any) -> str:
    """Return the heading of a quantity."""
    heading = COLUMNS[name]
    unit = name in _IN_BYTES and "bytes" not in heading and any(map(is_formula, values))
    return f"{heading} (B)" if unit else heading


def text_of(name: str, value: Any) -> str:
    """Return the text of a value of a quantity."""
    if name in _COUNTS:
        return f"{value:,}" if value else ""
    if name == "intensity" and is_formula(value):
        return ""  # a quotient of two formulas that stand beside it
    return amount(value, "B" if name in _IN_BYTES else "")


def chosen_names(rows: Sequence[BoxCost], columns: str | Sequence[str]) -> list[str]:
    """Return the names of the columns; by default those in which not all rows are empty.

    Raises:
        CircuitError: There is no such column.
    """
    names = columns.replace(",", " ").split() if isinstance(columns, str) else list(columns)
    if names:
        check_columns(names)
        return names
    grouped = any(row.calls > 1 for row in rows)
    found = [name for name in _DEFAULT if any(text_of(name, getattr(row, name)) for row in rows)]
    if all(row.live_multiply_adds == row.multiply_adds for row in rows):
        found = [name for name in found if name != "live_flops"]
    return [*(["calls"] if grouped else []), *found]


__all__ = ["CostColumn", "Place", "chosen_names", "heading_of", "text_of"]
