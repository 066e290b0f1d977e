"""One row of a picture: the heights of its runs, the places of its columns, and its marks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from circuits.drawing.labels import axis_label
from circuits.drawing.layout.commas import Piece, comma_marks, event_pieces, pieces_of
from circuits.drawing.layout.distances import distance_at, image_ports
from circuits.drawing.layout.pens import Pens
from circuits.drawing.layout.runs import Runs, Station, crossed, kept
from circuits.drawing.layout.shapes import Frame, draw_step, step_width
from circuits.drawing.layout.sweep import Column, Key, Pair, Sweep
from circuits.drawing.marks import Mark, P, Path, Span, Text
from circuits.drawing.scene import Step, Wire
from circuits.drawing.widths import width

FONT = 15.0
"""The size of labels."""
_LEAD = 8.0
_PAD = 9.0


@dataclass
class Placed:
    """A column with its stations, its slots and the labels in it.

    Attributes:
        column: The column of the sweep.
        before, opened, at, done: The stations, each thing with its run.
        gathering, crossing, bending: Whether wires bend before the fences that begin, before the steps, and beside
            them.
        outside: The wires whose names stand before the fences that begin in it.
        labels: The wires whose names stand before its steps.
        x: The left edges of its slots (outside, gather, open, label, cross, event, close), then its right edge.
    """

    column: Column
    before: Station
    opened: Station
    at: Station
    done: Station
    gathering: bool = False
    crossing: bool = False
    bending: bool = False
    outside: list[Key] = field(default_factory=list)
    labels: list[Key] = field(default_factory=list)
    x: list[float] = field(default_factory=list)


class Row:
    """The columns from `first` to `stop` of a sweep as one row.

    Attributes:
        marks: Its marks, with the upper edge at 0.
        width, height: Its size.
    """

    def __init__(self, sweep: Sweep, columns: Sequence[Column], show_sizes: bool, names: dict[int, str]) -> None:
        self.sweep, self.show_sizes, self.names = sweep, show_sizes, names
        self.runs = Runs()
        self.placed: list[Placed] = []
        self.end: Station = []
        for column in columns:
            self._place(column)
        self._finish(columns[-1])
        self.first_heights = self.runs.heights()
        self._set_labels()
        self._set_places()
        self.marks = tuple(self._draw())

    def _place(self, column: Column) -> None:
        """Add the stations of a column, in which runs go on from the column before it."""
        known = self._known()
        distance = distance_at(column, self.sweep.groups)
        before = self.runs.station(column.before, {key: known[key] for key in column.before if key in known}, distance)
        opened = self._next(before, column.opened, [], set(), distance)
        sunk = _sunk(column) | crossed(column.opened, column.at)
        at = self._next(opened, column.at, [], sunk, distance)
        done = self._next(at, column.done, column.aligned, column.falls, distance)
        self.runs.hang(done, column.falls)
        placed = Placed(column, before, opened, at, done)
        placed.gathering, placed.crossing = _bends(before, opened), _bends(opened, at)
        placed.bending = _bends(at, done)
        self.placed.append(placed)

    def _known(self) -> dict[Key, int]:
        return dict(self.placed[-1].done) if self.placed else {}

    def _next(self, before: Station, keys: Sequence[Key], pairs: Sequence[Pair], loose: set[Key], distance) -> Station:
        """Return the next station: by default each thing goes on as itself."""
        same = pairs or [Pair(key, key) for key, _ in before]
        return self.runs.station(keys, kept(before, keys, same, loose), distance)

    def _finish(self, last: Column) -> None:
        """Add the station at the right edge, where the groups of the last column have ended."""
        known = self._known()
        keys = [key for key in last.done if key[0] == "wire" or key[1] not in last.closes]
        distance = distance_at(Column(), self.sweep.groups)
        self.end = self.runs.station(keys, {key: known[key] for key in keys if key in known}, distance)

    def _set_labels(self) -> None:
        """Choose where names stand: at the left edge, and again where a wire is new, has another name or height."""
        heights = self.first_heights
        shown: dict[Key, tuple[str, float]] = {}
        for number, placed in enumerate(self.placed):
            column = placed.column
            for key, run in placed.before:
                if key[0] == "wire" and (number == 0 or key[1] in column.outer):
                    now = (self._outer(column, key).name, heights[run])
                    if number and now[0] and shown.get(key) != now:
                        placed.outside.append(key)
                    shown[key] = now
            for key, run in placed.opened:
                if key[0] == "wire":
                    now = (self._wire(column, key).name, heights[run])
                    if now[0] and shown.get(key) != now:
                        placed.labels.append(key)
                    shown[key] = now
            for key, old in column.same.items():
                if old in shown:
                    shown[key] = shown[old]

    def _outer(self, column: Column, key: Key) -> Wire:
        """Return a wire with the name that it has before the groups that begin in a column."""
        strand = column.outer.get(key[1]) or column.strands.get(key[1]) or self.sweep.strands[key[1]]
        return strand.wires[key[2]]

    def _wire(self, column: Column, key: Key) -> Wire:
        strand = column.strands.get(key[1]) or self.sweep.strands[key[1]]
        return strand.wires[key[2]]

    def _label(self, wire: Wire) -> tuple[Span, ...]:
        """Return the label of a wire: its name, and its size if sizes are shown."""
        spans = axis_label(wire.name, wire.double)
        if self.show_sizes and wire.size and wire.size != wire.name:
            spans = (*spans, Span(f" = {wire.size}", "upright"))
        return spans

    def _set_places(self) -> None:
        """Set the left edges of all slots."""
        heights = self.first_heights
        x = self._left_width()
        open_groups: dict[int, int] = {}
        for number, placed in enumerate(self.placed):
            column = placed.column
            for group in column.opens:
                open_groups[group] = number
            sources = [name for _, step in column.steps for _, name in step.sources]
            slots = [
                self._label_width([self._outer(column, key) for key in placed.outside], 0.0),
                _bend_width(placed.before, placed.opened, heights) if placed.gathering else 0.0,
                _PAD * len(column.opens) + (4.0 if column.opens else 0.0),
                self._label_width([self._wire(column, key) for key in placed.labels], 4.0),
                max(
                    _bend_width(placed.opened, placed.at, heights) if placed.crossing else 0.0,
                    max([width((Span(name, "sans"),), 11) + 10 for name in sources], default=0.0),
                ),
                self._event_width(placed),
                _PAD * len(column.closes) + (4.0 if column.closes else 0.0),
            ]
            placed.x = [x]
            for slot in slots:
                x += slot
                placed.x.append(x)
            x = self._room_for_titles(placed, open_groups, x)
        self.right = x
        names = [self._label(self._wire_at_end(key)) for key, _ in self.end if key[0] == "wire"]
        self.width = x + max([width(spans, FONT) for spans in names], default=0.0) + 2 * _LEAD
        self.height = max(heights, default=0.0) * P

    def _room_for_titles(self, placed: Placed, opened: dict[int, int], x: float) -> float:
        """Widen a column in which a group ends so that its title fits into the fence; return the right edge."""
        for group in reversed(placed.column.closes):
            title = self.sweep.groups[group].title
            begin = self.placed[opened.get(group, 0)].x[2]
            missing = begin + width((Span(title, "sans"),), 12) + 2 * _PAD + 8 - x
            if title and missing > 0:
                placed.x[6:] = [place + missing for place in placed.x[6:]]
                x += missing
        return x

    def _left_width(self) -> float:
        """Return the width of the names at the left edge."""
        first = self.placed[0]
        wires = [self._outer(first.column, key) for key, _ in first.before if key[0] == "wire"]
        names = max([width((Span(name, "sans"),), FONT) for name in self.names.values() if name], default=-6.0) + 6
        self.start = names + 2
        return self.start + max([width(self._label(wire), FONT) for wire in wires], default=0.0) + 2 * _LEAD

    def _label_width(self, wires: Sequence[Wire], least: float) -> float:
        widths = [width(self._label(wire), FONT) for wire in wires]
        return max(widths) + _LEAD if widths else least

    def _event_width(self, placed: Placed) -> float:
        """Return the width of the slot of the steps; wires that come down do so behind the cup."""
        heights = self.first_heights
        widths = [step_width(step) for _, step in placed.column.steps]
        bend = _bend_width(placed.at, placed.done, heights) if placed.bending else 0.0
        falls = [_fall(placed, key, heights) for key in placed.column.falls]
        return max([*widths, bend, 10.0, *[1.4 * P + fall for fall in falls if fall]])

    def _wire_at_end(self, key: Key) -> Wire:
        return self.sweep.strands[key[1]].wires[key[2]]

    def _draw(self) -> list[Mark]:
        """Return the marks: fences first, then dashed lines and wires, then glyphs and labels."""
        heights = [height * P for height in self.first_heights]
        pens = Pens()
        labels: list[Mark] = []
        glyphs: list[Mark] = []
        for number, placed in enumerate(self.placed):
            x, column = placed.x, placed.column
            if number == 0:
                for key, run in placed.before:
                    if key[0] == "wire":
                        wire = self._outer(column, key)
                        pens.begin(key, self.sweep.strands[key[1]], wire, (self.start, heights[run]))
                        labels += self._name_mark(key, wire, self.start + _LEAD / 2, heights[run])
                labels += self._input_names(placed, heights)
            for station, stop, to in ((placed.opened, x[1], x[2]), (placed.at, x[4], x[5])):
                for key, run in station:
                    if key[0] == "wire" and pens.knows(key):
                        pens.bend(key, stop, to, heights[run])
            for key in placed.outside:
                labels += self._name_mark(key, self._outer(column, key), x[0] + 3, heights[dict(placed.before)[key]])
            for key in placed.labels:
                labels += self._name_mark(key, self._wire(column, key), x[3] + 3, heights[dict(placed.opened)[key]])
            here = {key: heights[run] for key, run in placed.at}
            there = {key: heights[run] for key, run in placed.done}
            taken = set()
            for step_number, step in column.steps:
                frame = Frame(step, step_number, x[4], x[5], x[6], here, there, self.sweep.strands, pens)
                glyphs += draw_step(frame)
                taken |= {("wire", strand) for strand in step.ins}
            for key, run in placed.done:
                if key[0] == "wire" and (key[0], key[1]) not in taken and pens.knows(key):
                    pens.bend(key, x[5], x[6], heights[run])
        for key, run in self.end:
            if key[0] == "wire":
                pens.bend(key, self.right, self.right, heights[run])
                wire = self._wire_at_end(key)
                labels += self._name_mark(key, wire, self.right + _LEAD, heights[run])
                pens.finish(key, (self.width, heights[run]))
        return [*self._fences(heights), *self._commas(heights), *pens.marks(), *glyphs, *labels]

    def _name_mark(self, key: Key, wire: Wire, x: float, y: float) -> list[Mark]:
        spans = self._label(wire)
        data = (("kind", "label"), ("value", f"{self.sweep.strands[key[1]].value}"), ("axis", axes_text(wire)))
        return [Text(x, y - 4, spans, FONT, data=data)] if wire.name else []

    def _input_names(self, placed: Placed, heights: Sequence[float]) -> list[Mark]:
        """Return the names of the inputs, each at the middle of its wires."""
        rows: dict[int, list[float]] = {}
        for key, run in placed.before:
            if key[0] == "wire":
                rows.setdefault(key[1], []).append(heights[run])
        found: list[Mark] = []
        for strand, ys in rows.items():
            name = self.names.get(strand, "")
            if name:
                data = (("kind", "source"), ("value", f"{self.sweep.strands[strand].value}"))
                middle = (min(ys) + max(ys)) / 2 + 5
                found.append(Text(self.start - 5, middle, (Span(name, "sans"),), FONT, "end", "title", data))
        return found

    def _fences(self, heights: Sequence[float]) -> list[Mark]:
        """Return the background and the title of each group."""
        found: list[Mark] = []
        titles: list[Mark] = []
        for number, group in enumerate(self.sweep.groups):
            spans = [placed for placed in self.placed if ("top", number, 0) in dict(placed.opened)]
            if not spans or not group.fill:
                continue
            first, last = spans[0], spans[-1]
            depth = first.column.opens.index(number) if number in first.column.opens else 0
            left = first.x[2] + 3 + depth * _PAD if number in first.column.opens else 0.0
            after = (
                len(last.column.closes) - 1 - last.column.closes.index(number) if number in last.column.closes else 0
            )
            after = last.column.closes.index(number) if number in last.column.closes else 0
            right = (
                last.x[7] - 3 - (len(last.column.closes) - 1 - after) * _PAD
                if number in last.column.closes
                else self.width
            )
            runs = dict(first.opened)
            top, bottom = heights[runs["top", number, 0]], heights[runs["bottom", number, 0]]
            data = (("kind", "fence"), ("box", group.box), ("title", group.title))
            corners = ((right, top), (right, bottom), (left, bottom))
            found.append(Path((left, top), corners, "faint", group.fill, 0.6, closed=True, data=data))
            spans_ = (Span(group.title, "sans"),)
            titles.append(
                Text(left + 6, top + 15, spans_, 12, role="title", data=(("kind", "title"), ("box", group.box)))
            )
        return [*found, *titles]

    def _commas(self, heights: Sequence[float]) -> list[Mark]:
        """Return the dashed lines between tensors."""
        pieces: list[Piece] = []
        for number, placed in enumerate(self.placed):
            left = self.start - 4 if number == 0 else placed.x[0]
            pieces += pieces_of(placed.opened, left, placed.x[4], heights)
            pieces += event_pieces(placed.column, placed.at, placed.done, placed.x[4:7], heights)
            pieces += pieces_of(placed.done, placed.x[6], placed.x[7], heights)
        pieces += pieces_of(self.end, self.right, self.width, heights)
        return comma_marks(pieces)


def axes_text(wire: Wire) -> str:
    """Return the places of a wire's axes in its tensor as text."""
    return ",".join([f"{axis}" for axis in wire.axes]) or "scalar"


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


def _fall(placed: Placed, key: Key, heights: Sequence[float]) -> float:
    """Return the width of the bend of a wire that comes down; 0 if it stays on its row."""
    source = next((pair.before for pair in placed.column.aligned if pair.after == key), key)
    move = heights[dict(placed.done)[key]] - heights[dict(placed.at).get(source, dict(placed.done)[key])]
    return P * min(1.2 + 0.45 * abs(move), 5.0) if abs(move) > 0.01 else 0.0


def _bends(before: Station, after: Station) -> bool:
    """Return whether something has another run at the next station."""
    runs = dict(before)
    return any(runs.get(key, run) != run for key, run in after)


def _bend_width(before: Station, after: Station, heights: Sequence[float]) -> float:
    """Return the width that the bends between two stations need: more for longer ones."""
    runs = dict(before)
    moves = [abs(heights[runs[key]] - heights[run]) for key, run in after if key in runs and runs[key] != run]
    largest = max(moves, default=0.0)
    return 0.0 if largest < 0.01 else P * min(1.2 + 0.2 * largest, 3.5)


__all__ = ["FONT", "Row", "Step", "axes_text"]
