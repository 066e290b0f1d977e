"""The stations of one row of a picture, with the runs that go on between them."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from circuits.drawing.layout.distances import distance_at, image_ports
from circuits.drawing.layout.runs import Runs, Station, crossed, kept
from circuits.drawing.layout.sweep import Column, Key, Pair
from circuits.drawing.scene import Group, Wire


@dataclass
class Placed:
    """A column in a row: its stations, the names in it, and the places of its slots.

    Attributes:
        column: The column of the sweep.
        before, opened, at, done: The run of each thing at its stations, from top to bottom.
        outside: The wires whose names stand before the fences that begin in it.
        labels: The wires whose names stand before its steps.
        inside: The wires whose names stand before the brackets that end in it.
        x: The left edges of its slots (outside, gather, open, label, cross, source, event, close), then its right edge.
    """

    column: Column
    before: dict[Key, int]
    opened: dict[Key, int]
    at: dict[Key, int]
    done: dict[Key, int]
    outside: list[Key] = field(default_factory=list)
    labels: list[Key] = field(default_factory=list)
    inside: list[Key] = field(default_factory=list)
    x: list[float] = field(default_factory=list)

    def wire(self, key: Key) -> Wire:
        """Return a wire with the name that it has where it enters the steps."""
        return self.column.strands[key[1]].wires[key[2]]

    def outer(self, key: Key) -> Wire:
        """Return a wire with the name that it has before the groups that begin in the column."""
        strand = self.column.outer.get(key[1]) or self.column.strands[key[1]]
        return strand.wires[key[2]]

    def inner(self, key: Key) -> Wire:
        """Return a wire with the name that it has in the bracket that ends in the column."""
        return self.column.inner[key[1]].wires[key[2]]


class Stations:
    """The columns of one row.

    Args:
        columns: The columns of the sweep that are in the row.
        groups: All groups.
        skipped: The strands that are not drawn in this row, because they are saved before it and loaded after it.

    Attributes:
        placed: The columns.
        end: The run of each thing at the right edge.
        heights: The height of each run, in distances of neighbouring wires.
    """

    def __init__(self, columns: Sequence[Column], groups: Sequence[Group], skipped: Collection[int]) -> None:
        self._groups, self._skipped = groups, skipped
        self._runs = Runs()
        self.placed: list[Placed] = []
        for column in columns:
            self._add(column)
        last = columns[-1]
        closed = set(last.closes)
        keys = [key for key in self._shown(last.done) if key[0] == "wire" or key[1] not in closed]
        known = self.placed[-1].done
        self.end: dict[Key, int] = self._station(keys, known, distance_at(Column(), groups))
        self.heights: list[float] = self._runs.heights()

    def _shown(self, keys: Iterable[Key]) -> list[Key]:
        return [key for key in keys if key[0] != "wire" or key[1] not in self._skipped]

    def _station(
        self, keys: Sequence[Key], known: dict[Key, int], distance: Callable[[Key, Key], float]
    ) -> dict[Key, int]:
        return dict(self._runs.station(keys, known, distance))

    def _add(self, column: Column) -> None:
        """Add the stations of a column, in which runs go on from the column before it."""
        distance = distance_at(column, self._groups)
        known = self.placed[-1].done if self.placed else {}
        before = self._station(self._shown(column.before), known, distance)
        opened = self._next(before, column.opened, [], set(), distance)
        crossing = crossed(column.opened, column.at)
        loose = _sunk(column) | crossing
        at = self._next(opened, column.at, [], loose, distance)
        self._runs.sink(opened, at, {key: key for key in _sunk(column) - crossing})
        done = self._next(at, column.done, column.aligned, column.falls, distance)
        self._runs.part(at, done, column.rows, distance)
        self._runs.sink(at, done, {pair.after: pair.before for pair in column.aligned if pair.after in column.falls})
        self._runs.hang(done, column.falls)
        self.placed.append(Placed(column, before, opened, at, done))

    def _next(
        self,
        before: dict[Key, int],
        keys: Sequence[Key],
        pairs: Sequence[Pair],
        loose: set[Key],
        distance: Callable[[Key, Key], float],
    ) -> dict[Key, int]:
        """Return the next station; without pairs each thing goes on as itself."""
        station: Station = list(before.items())
        shown = self._shown(keys)
        same = pairs or [Pair(key, key) for key in before]
        return self._station(shown, kept(station, shown, same, loose), distance)


def _sunk(column: Column) -> set[Key]:
    """Return the wires that may bend before a step to make room in it: those below an image whose windows end there."""
    found: set[Key] = set()
    for _, step in column.steps:
        for link in step.links:
            if link.kind == "glyph" and link.shape in ("window", "transposed"):
                index = link.ins[0][0]
                mine = [key for key in column.at if key[:2] == ("wire", step.ins[index])]
                last = max([mine.index(("wire", step.ins[index], wire)) for _, wire in image_ports(link, link.ins)])
                found |= set(mine[last + 1 : last + 2])
    return found


__all__ = ["Placed", "Stations"]
