"""One row of a picture: its marks, from its stations and the places of its slots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circuits.drawing.layout.commas import comma_marks
from circuits.drawing.layout.edges import (
    ARROW,
    arriving_arrow,
    end_name_width,
    end_names,
    leaving_arrow,
    memory_marks,
    memory_width,
)
from circuits.drawing.layout.fences import fence_marks, heights_of
from circuits.drawing.layout.frames import CUP, Frame
from circuits.drawing.layout.lanes import bends
from circuits.drawing.layout.pens import Pens, axes_text
from circuits.drawing.layout.shapes import draw_step
from circuits.drawing.layout.slots import FONT, LEAD, event_moves, label, label_width, set_labels, set_places
from circuits.drawing.layout.stations import Placed, Stations
from circuits.drawing.layout.sweep import Column, Key
from circuits.drawing.marks import Mark, P, Text
from circuits.drawing.scene import Group, Strand, Wire


@dataclass(frozen=True)
class Edges:
    """How a row begins and ends.

    Attributes:
        names: The names of inputs at the left edge, by strand.
        first, last: Whether it is the first or the last row; other edges have arrows.
        loaded: The names of tensors that are loaded at the left edge, by strand.
        saved: The names of tensors that are saved at the right edge, by strand.
        skipped: The strands that are saved before the row and loaded after it.
        results: The names of results at the right edge, by strand.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    first: bool = True
    last: bool = True
    loaded: Mapping[int, str] = field(default_factory=dict)
    saved: Mapping[int, str] = field(default_factory=dict)
    skipped: frozenset[int] = frozenset()
    results: Mapping[int, str] = field(default_factory=dict)


class Row:
    """A row of a picture.

    Args:
        columns: The columns of the sweep that are in it.
        groups: All groups.
        strands: All strands.
        edges: How it begins and ends.
        show_sizes: Whether labels show sizes.

    Attributes:
        marks: Its marks, from 0 to the right and downward.
        width: Its width.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        groups: Sequence[Group],
        strands: Mapping[int, Strand],
        edges: Edges,
        show_sizes: bool,
    ) -> None:
        self._strands, self._edges, self._show_sizes = strands, edges, show_sizes
        self._stations = Stations(columns, groups, edges.skipped)
        self._last = columns[-1]
        self._heights = [height * P for height in self._stations.heights]
        set_labels(self._stations)
        self._start = self._left_edge()
        first = [self._stations.placed[0].outer(key) for key in self._stations.placed[0].before if key[0] == "wire"]
        left = self._start + label_width(first, show_sizes) + LEAD
        self._right = set_places(self._stations, groups, left, show_sizes)
        self._stop = self._right + label_width([self._leaving(key) for key in self._ends()], show_sizes) + LEAD
        self.width: float = self._stop + self._right_edge()
        self.marks: tuple[Mark, ...] = tuple(self._draw(groups))

    def _left_edge(self) -> float:
        """Return where wires begin: after names, arrows and loaded tensors."""
        names = [end_name_width(name) for name in self._edges.names.values() if name]
        loads = [memory_width(name) for name in self._edges.loaded.values()]
        return max([0.0 if self._edges.first else ARROW, *names, *loads]) + 2

    def _right_edge(self) -> float:
        """Return the room for arrows and saved tensors."""
        saved = [memory_width(name) for name in self._edges.saved.values()]
        names = [end_name_width(name) for name in self._edges.results.values()]
        return max([0.0 if self._edges.last else ARROW, *saved, *names])

    def _ends(self) -> list[Key]:
        return [key for key in self._stations.end if key[0] == "wire"]

    def _leaving(self, key: Key) -> Wire:
        """Return a wire with the name that it has at the right edge."""
        return self._last.after[key[1]].wires[key[2]]

    def _draw(self, groups: Sequence[Group]) -> list[Mark]:
        """Return the marks: fences first, then dashed lines and wires, then glyphs and labels."""
        pens = Pens()
        glyphs = self._begin(pens)
        labels: list[Mark] = []
        for placed in self._stations.placed:
            labels += self._labels(placed)
            glyphs += self._column(placed, pens)
        glyphs += self._end(pens)
        lines = [*comma_marks(self._stations, self._start, self._right, self._stop), *pens.marks()]
        fences = fence_marks(self._stations.placed, groups, self._heights, self.width, lines)
        return [*fences, *lines, *glyphs, *labels]

    def _begin(self, pens: Pens) -> list[Mark]:
        """Begin the wires of the left edge, and return their names, labels and arrows."""
        placed = self._stations.placed[0]
        found: list[Mark] = []
        rows: dict[int, list[float]] = {}
        for key, run in placed.before.items():
            if key[0] != "wire":
                continue
            wire, y, strand = placed.outer(key), self._heights[run], self._strands[key[1]]
            rows.setdefault(key[1], []).append(y)
            pens.begin(key, strand, wire, (self._start, y))
            found += self._name(key, wire, self._start + LEAD / 2, y)
            if not self._edges.first and key[1] not in self._edges.loaded:
                found += arriving_arrow(key, strand, (self._start, y))
        for strand, name in self._edges.loaded.items():
            left = self._start - memory_width(name)
            found += memory_marks(name, True, left, rows.get(strand, [0.0]), self._strands[strand])
        return [*found, *end_names(rows, self._edges.names, self._strands, self._start - 5, "end")]

    def _labels(self, placed: Placed) -> list[Mark]:
        """Return the names in a column."""
        found: list[Mark] = []
        for key in placed.outside:
            found += self._name(key, placed.outer(key), placed.x[0] + 3, self._heights[placed.before[key]])
        for key in placed.labels:
            found += self._name(key, placed.wire(key), placed.x[3] + 3, self._heights[placed.opened[key]])
        for key in placed.inside:
            found += self._name(key, placed.inner(key), placed.x[7] + 3, self._heights[placed.done[key]])
        return found

    def _name(self, key: Key, wire: Wire, x: float, y: float) -> list[Mark]:
        data = (("kind", "label"), ("value", f"{self._strands[key[1]].value}"), ("axis", axes_text(wire)))
        spans = label(wire, self._show_sizes)
        above = 4 + 2 * wire.double + 2 * any(span.shift == "sub" for span in spans)
        return [Text(x, y - above, spans, FONT, data=data)] if wire.name else []

    def _column(self, placed: Placed, pens: Pens) -> list[Mark]:
        """Draw the wires of a column, and return the marks of its steps."""
        x, found = placed.x, list[Mark]()
        for station, stop, to in ((placed.opened, x[1], x[2]), (placed.at, x[4], x[5])):
            keys = [key for key in station if key[0] == "wire" and pens.knows(key)]
            pieces = bends({key: (pens.height(key), self._heights[station[key]]) for key in keys}, stop, to)
            for key in keys:
                pens.follow(key, stop if key in pieces else to, pieces.get(key, ()))
        here, there = heights_of(placed.at, self._heights), heights_of(placed.done, self._heights)
        beside, falls = event_moves(placed, self._heights)
        passing = {key: (x[6], pieces) for key, pieces in bends(beside, x[6], x[7]).items()}
        passing |= {key: (x[6] + CUP / 2, each) for key, each in bends(falls, x[6] + CUP / 2, x[7]).items()}
        for number, step in placed.column.steps:
            found += draw_step(Frame(step, number, x[5], x[6], x[7], here, there, self._strands, pens, passing))
        for key in placed.done:
            if key in placed.at and key in passing:
                pens.follow(key, *passing[key])
        return found

    def _end(self, pens: Pens) -> list[Mark]:
        """End the wires at the right edge, and return their labels and arrows."""
        found: list[Mark] = []
        rows: dict[int, list[float]] = {}
        for key in self._ends():
            y = self._heights[self._stations.end[key]]
            rows.setdefault(key[1], []).append(y)
            pens.bend(key, self._right, self._right, y)
            found += self._name(key, self._leaving(key), self._right + LEAD, y)
            pens.finish(key, (self._stop, y))
            if not self._edges.last and key[1] not in self._edges.saved:
                found += leaving_arrow(key, self._strands[key[1]], (self._stop, y))
        for strand, name in self._edges.saved.items():
            found += memory_marks(name, False, self._stop, rows.get(strand, [0.0]), self._strands[strand])
        return [*found, *end_names(rows, self._edges.results, self._strands, self._stop + 5, "start")]


__all__ = ["Edges", "Row"]
