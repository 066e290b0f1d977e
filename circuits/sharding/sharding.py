"""`Sharding`: a plan as frozen data, and its text."""

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from circuits.diagram import Cells, Diagram, Size, Table, Width, bytes_text, columns_of
from circuits.errors import CircuitError, entry_points
from circuits.sharding.between import pattern_of
from circuits.sharding.mesh import Choice, factors
from circuits.sharding.moves import Move, Placed
from circuits.sharding.steps import places


@entry_points("explain", "table")
@dataclass(frozen=True)
class Sharding:
    """How a model is split over a mesh, and what its ranks send each other: `print` shows it.

    Attributes:
        choice: The mesh and what is split over it.
        diagram: The diagram of the model.
        parameters: Each parameter and buffer with its placement.
        moves: The communications of a forward and a backward pass, but for those of the data axes.
        data: The mesh axes that are for data.
        dims: The dimension along which each mesh axis splits each tensor, by its number in the diagram.
        notes: What of the result depends on the ranks, such as statistics of a batch of which each has a part.
        replicate: The mesh axes for data over whose ranks every parameter is a copy.
    """

    choice: Choice
    diagram: Diagram = field(repr=False)
    parameters: tuple[Placed, ...] = field(repr=False)
    moves: tuple[Move, ...] = field(repr=False)
    data: tuple[str, ...] = ()
    dims: Mapping[int, Mapping[str, int]] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    replicate: tuple[str, ...] = ()

    @property
    def bytes(self) -> Size:
        """The bytes of parameters and buffers that one rank holds."""
        return sum([each.bytes for each in self.parameters])

    def parameter_table(self, width: Width = "auto") -> str:
        """Return the parameters as a table: axes, placement, and the bytes that one rank holds; `width` as `table`."""
        return self._parameters().text(width)

    def move_table(self, width: Width = "auto") -> str:
        """Return the communications as a table, in the order of the forward pass, and then of the backward pass."""
        return self._moves().text(width)

    def _parameters(self) -> Table:
        rows = [(each.name, str(each.value), each.text, bytes_text(each.bytes)) for each in self.parameters]
        return _table(("parameter", "axes", "placement", "bytes a rank"), rows)

    def _moves(self) -> Table:
        rows = [
            _row(each, self.diagram.name) for each in (*self.moves_of("forward"), *reversed(self.moves_of("backward")))
        ]
        return _table(("at", "pass", "placement", "collective", "bytes a rank", "tensor", "why"), rows)

    def moves_of(self, pass_: str) -> list[Move]:
        """Return the communications of the forward or of the backward pass."""
        return [each for each in self.moves if each.pass_ == pass_]

    def explain(self, axis: str) -> str:
        """Return the whole story of one axis: where it is, how it is split, and which communications that costs.

        Raises:
            CircuitError: The axis is not split.
        """
        between = {axis: (name,) for name, axis in self.choice.between.items()}
        known = {**self.choice.over, **between}
        if axis not in known:
            raise CircuitError(f"{axis} is not split; split are {', '.join(known)}")
        over = known[axis]
        ranks = prod([self.choice.mesh[each] for each in over])
        where = " between modules" if axis in between else ""
        lines = [f"{axis} is split into {ranks} parts{where}, over {' '.join(over)}"]
        for each in self.parameters:
            dims = [dim for mesh_axis, dim in each.dims.items() if mesh_axis in over]
            lines += [f"  parameter {each.name}: {each.text}" for dim in dims if axis in factors(each.value.axes[dim])]
        for place in places(self.diagram):
            for value in place.box.outputs:
                dim = next((self.dims.get(value.number, {}).get(each) for each in over), None)
                if dim is not None and axis in factors(value.axes[dim]):
                    lines.append(f"  {place.where}: {value} is split along {value.axes[dim]}")
        lines += [
            f"  {each.collective} ({each.pass_}) at {each.at or self.diagram.name}: {each.why}"
            for each in self.moves
            if each.mesh_axis in over and axis in each.axis.split()
        ]
        return "\n".join(lines)

    def _data_text(self) -> str:
        """Return what happens over the mesh axes for data."""
        axes = [axis for axis, names in self.choice.over.items() if set(names) & set(self.data)]
        said = [f"Each rank is given its own part of {' '.join(axes)}"]
        fully = [each for each in self.data if each not in self.replicate]
        if fully:
            said.append(f"fully_shard gathers the parameters over {' '.join(fully)} and averages their gradients")
        if self.replicate:
            trained = sum([each.bytes for each in self.parameters if each.value.requires_grad])
            ranks = " ".join(self.replicate)
            said.append(f"parameters are copies over {ranks}, whose gradients, {bytes_text(trained)}, are all-reduced")
        return f"{'; '.join(said)}."

    def table(self, width: Width = "auto") -> str:
        """Return the plan as text: its tables, and the lines around them.

        Args:
            width: The number of columns; "auto": the terminal's, or 120 if the standard output is none; None: as many
                as the texts have.

        Raises:
            CircuitError: There is no such width.
        """
        columns = columns_of(width)
        parts = [
            [line for each in part.split("\n") for line in textwrap.wrap(each, columns)]
            if isinstance(part, str)
            else [part.text(width)]
            for part in self._parts()
        ]
        return "\n\n".join(["\n".join(part) for part in parts])

    def __str__(self) -> str:
        """Return the plan, as wide as the terminal."""
        return self.table()

    def _repr_html_(self) -> str:
        """Return the plan as HTML, which notebooks show."""
        return "".join(
            [f"<p>{html.escape(part)}</p>" if isinstance(part, str) else part.html() for part in self._parts()]
        )

    def _parts(self) -> list[str | Table]:
        """Return the tables, and the lines around them."""
        mesh = " × ".join([f"{name} {size}" for name, size in self.choice.mesh.items()])
        over = ", ".join([f"{axis} over {' '.join(names)}" for axis, names in self.choice.over.items()])
        over += "".join([f", {axis} between modules over {name}" for name, axis in self.choice.between.items()])
        parts: list[str | Table] = [f"{self.diagram.name} on a mesh of {mesh}: {over}", self._parameters()]
        if self.moves:
            parts.append(self._moves())
        if self.data:
            parts.append(self._data_text())
        if self.notes:
            parts.append("\n".join(self.notes))
        return parts


def _row(move: Move, name: str) -> tuple[str, ...]:
    """Return the texts of a communication; `name` is that of the whole."""
    collective = f"{move.collective} over {move.mesh_axis}" if move.is_sent else move.collective
    placement = f"{move.source} -> {move.target}"
    return move.at or name, move.pass_, placement, collective, bytes_text(move.bytes), str(move.value), move.why


_AXIS = re.compile(r" \(axis \d+\)")
"""The position of an axis in a placement."""


def _folded(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return rows with those that differ in a number of their path alone as one: `layers.*.L1.weight ×12`."""
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in rows:
        found.setdefault((pattern_of(row[0]), *row[1:]), []).append(row)
    return [
        each[0] if len(each) == 1 else (f"{pattern[0]} ×{len(each)}", *pattern[1:]) for pattern, each in found.items()
    ]


def _table(headings: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    """Return a table with rows that differ in a number of their path alone as one; narrow placements have no axes."""
    columns = [Cells([*texts], None, "bytes" in texts[0]) for texts in zip(headings, *_folded(rows), strict=True)]
    for each in columns:
        if each.heading == "placement":
            each.forms = [[_AXIS.sub("", text)] for text in each.texts]
    return Table(columns, [])


__all__ = ["Sharding"]
