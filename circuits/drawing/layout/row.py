"""One row of a picture: the heights of its runs, the places of its columns, and its marks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from circuits.drawing.labels import axis_label
from circuits.drawing.layout.distances import distance_at
from circuits.drawing.layout.pens import Pens
from circuits.drawing.layout.runs import Runs, Station, kept
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
        labels: The wires whose names stand in it.
        x: The left edges of its slots: gather, open, label, cross, event, close; then its right edge.
    """

    column: Column
    before: Station
    opened: Station
    at: Station
    done: Station
    gathering: bool = False
    crossing: bool = False
    bending: bool = False
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
        sunk = _sunk(column)
        at = self._next(opened, column.at, [], sunk, distance)
        done = self._next(at, column.done, column.aligned, set(), distance)
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
        """Choose where names stand: at the left edge, and again when a wire has another name or another height."""
        heights = self.first_heights
        shown: dict[Key, tuple[str, float]] = {}
        lineage: dict[Key, Key] = {}
        for number, placed in enumerate(self.placed):
            for key, run in placed.before if number == 0 else ():
                if key[0] == "wire":
                    shown[key] = (self._name(placed.column, key), heights[run])
            for key, run in placed.opened:
                if key[0] != "wire":
                    continue
                now = (self._name(placed.column, key), heights[run])
                if shown.get(lineage.get(key, key)) != now and now[0]:
                    placed.labels.append(key)
                shown[key] = now
            lineage = {pair.after: pair.before for pair in placed.column.aligned}
            for key, before in lineage.items():
                if key != before and before in shown:
                    shown.setdefault(key, shown[before])

    def _wire(self, column: Column, key: Key) -> Wire:
        strand = column.strands.get(key[1]) or self.sweep.strands[key[1]]
        return strand.wires[key[2]]

    def _name(self, column: Column, key: Key) -> str:
        return self._wire(column, key).name

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
                _bend_width(placed.before, placed.opened, heights) if placed.gathering else 0.0,
                _PAD * len(column.opens) + (4.0 if column.opens else 0.0),
                self._label_width(placed),
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
            begin = self.placed[opened.get(group, 0)].x[1]
            missing = begin + width((Span(title, "sans"),), 12) + 2 * _PAD + 8 - x
            if title and missing > 0:
                placed.x[5:] = [place + missing for place in placed.x[5:]]
                x += missing
        return x

    def _left_width(self) -> float:
        """Return the width of the names at the left edge."""
        first = self.placed[0]
        wires = [self._wire(first.column, key) for key, _ in first.before if key[0] == "wire"]
        names = max([width((Span(name, "sans"),), FONT) for name in self.names.values() if name], default=-6.0) + 6
        self.start = names + 2
        return self.start + max([width(self._label(wire), FONT) for wire in wires], default=0.0) + 2 * _LEAD

    def _label_width(self, placed: Placed) -> float:
        widths = [width(self._label(self._wire(placed.column, key)), FONT) for key in placed.labels]
        return max(widths) + _LEAD if widths else 4.0

    def _event_width(self, placed: Placed) -> float:
        """Return the width of the slot of the steps."""
        heights = self.first_heights
        widths = [step_width(step) for _, step in placed.column.steps]
        bend = _bend_width(placed.at, placed.done, heights) if placed.bending else 0.0
        return max([*widths, bend, 10.0])

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
                        wire = self._wire(column, key)
                        pens.begin(key, self.sweep.strands[key[1]], wire, (self.start, heights[run]))
                        labels += self._name_mark(key, wire, self.start + _LEAD / 2, heights[run])
                labels += self._input_names(placed, heights)
            for station, stop, to in ((placed.opened, x[0], x[1]), (placed.at, x[3], x[4])):
                for key, run in station:
                    if key[0] == "wire" and pens.knows(key):
                        pens.bend(key, stop, to, heights[run])
            for key in placed.labels:
                labels += self._name_mark(key, self._wire(column, key), x[2] + 3, heights[dict(placed.opened)[key]])
            here = {key: heights[run] for key, run in placed.at}
            there = {key: heights[run] for key, run in placed.done}
            taken = set()
            for step_number, step in column.steps:
                frame = Frame(step, step_number, x[3], x[4], x[5], here, there, self.sweep.strands, pens)
                glyphs += draw_step(frame)
                taken |= {("wire", strand) for strand in step.ins}
            for key, run in placed.done:
                if key[0] == "wire" and (key[0], key[1]) not in taken and pens.knows(key):
                    pens.bend(key, x[4], x[5], heights[run])
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
            left = first.x[1] + 3 + depth * _PAD if number in first.column.opens else 0.0
            after = (
                len(last.column.closes) - 1 - last.column.closes.index(number) if number in last.column.closes else 0
            )
            after = last.column.closes.index(number) if number in last.column.closes else 0
            right = (
                last.x[6] - 3 - (len(last.column.closes) - 1 - after) * _PAD
                if number in last.column.closes
                else self.width
            )
            runs = dict(first.opened)
            top, bottom = heights[runs["top", number, 0]], heights[runs["bottom", number, 0]]
            data = (("kind", "fence"), ("box", group.box), ("title", group.title))
            corners = ((right, top), (right, bottom), (left, bottom))
            found.append(Path((left, top), corners, "", group.fill, closed=True, data=data))
            spans_ = (Span(group.title, "sans"),)
            titles.append(
                Text(left + 6, top + 15, spans_, 12, role="title", data=(("kind", "title"), ("box", group.box)))
            )
        return [*found, *titles]

    def _commas(self, heights: Sequence[float]) -> list[Mark]:
        """Return the dashed lines between tensors."""
        pieces: list[tuple[float, float, float]] = []
        for placed in self.placed:
            together = {strand: number for number, step in placed.column.steps for strand in step.ins}
            for station, left, right in (
                (placed.opened, placed.x[0], placed.x[3]),
                (placed.at, placed.x[3], placed.x[5]),
                (placed.done, placed.x[5], placed.x[6]),
            ):
                for upper, lower, y in _gaps(station, heights):
                    same = station is placed.at and together.get(upper, -1) == together.get(lower, -2)
                    pieces.append((y, left, left if same else right))
        for upper, lower, y in _gaps(self.end, heights):
            pieces.append((y, self.right, self.width))
            del upper, lower
        pieces.sort()
        found: list[list[float]] = []
        for y, left, right in pieces:
            if found and found[-1][0] == y and left <= found[-1][2] + 0.01:
                found[-1][2] = max(found[-1][2], right)
            elif right > left:
                found.append([y, left, right])
        data = (("kind", "comma"),)
        return [Path((left, y), ((right, y),), width=1.6, dash="dashed", data=data) for y, left, right in found]


def axes_text(wire: Wire) -> str:
    """Return the places of a wire's axes in its tensor as text."""
    return ",".join([f"{axis}" for axis in wire.axes]) or "scalar"


def _gaps(station: Station, heights: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return the neighbouring tensors of a station, with the height of the dashed line between them."""
    found = []
    last: tuple[Key, float] | None = None
    low: float | None = None
    for key, run in station:
        if key[0] == "bottom":
            low = heights[run]
        if key[0] != "wire":
            continue
        if last is not None and last[0][1] != key[1]:
            y = last[1] + P / 2 if low is None or low < last[1] else low + P / 4
            found.append((last[0][1], key[1], y))
        last, low = (key, heights[run]), None
    return found


def _sunk(column: Column) -> set[Key]:
    """Return the wires that may bend before a step to make room in it: the channels beside a window."""
    found: set[Key] = set()
    for _, step in column.steps:
        for link in step.links:
            if link.kind == "glyph" and link.shape in ("window", "transposed") and len(link.ins) > 1:
                found |= {("wire", step.ins[index], wire) for index, wire in link.ins[-1:]}
    return found


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
