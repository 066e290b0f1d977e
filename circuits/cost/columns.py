"""The columns of a cost: one quantity each, by the place of each box, as data that other views take."""

from collections.abc import Mapping, Sequence
from typing import Any

from circuits.cost.groups import Joined
from circuits.cost.quantities import heading_of, text_of
from circuits.cost.texts import shorter

Place = tuple[int, ...]


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


__all__ = ["CostColumn", "Place"]
