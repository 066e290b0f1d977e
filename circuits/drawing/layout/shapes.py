"""The marks of steps: shapes on wires, cups, dots, ends and beginnings, and texts above the wires."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from circuits.drawing.layout.crossing import Key, stays
from circuits.drawing.layout.lanes import lanes, lanes_width
from circuits.drawing.layout.pens import Pens
from circuits.drawing.marks import Circle, Data, Mark, P, Path, Point, Span, Text
from circuits.drawing.scene import Link, Port, Step, Strand
from circuits.drawing.widths import width

LETTER, TEXT, SMALL = 23.0, 12.0, 11.0
_GAP = 8.0
_CUP = 2.6 * P
"""The width of a cup with the bends before it."""


@dataclass
class Frame:
    """Where a step stands: the left and right edge of its slot, and the heights of the wires around it.

    Attributes:
        step: The step.
        number: Its number.
        sources: The left edge of the slot of names of sources.
        left, right: The slot of the step.
        here: The height of each wire that enters.
        there: That of each wire that leaves.
        strands: All strands.
        pens: The wires that are being drawn.
    """

    step: Step
    number: int
    sources: float
    left: float
    right: float
    here: Mapping[Key, float]
    there: Mapping[Key, float]
    strands: Mapping[int, Strand]
    pens: Pens

    def enter(self, port: Port) -> float:
        """Return the height of a wire that enters."""
        return self.here["wire", self.step.ins[port[0]], port[1]]

    def leave(self, port: Port) -> float:
        """Return the height of a wire that leaves."""
        return self.there["wire", self.step.outs[port[0]], port[1]]

    def joined(self, link: Link) -> list[Port]:
        """Return the wires beside a circle that are drawn directly below it, and so are joined to it by arcs."""
        keys = list(self.here)
        place = keys.index(("wire", self.step.ins[link.ins[-1][0]], link.ins[-1][1]))
        below = keys[place + 1 : place + 2]
        return [port for port in link.beside if ("wire", self.step.ins[port[0]], port[1]) in below]

    def finish(self, port: Port, end: Point) -> None:
        """End a wire that enters."""
        self.pens.finish(("wire", self.step.ins[port[0]], port[1]), end)

    def go(self, port: Port, x: float) -> None:
        """Draw a wire that enters straight on to a place."""
        key = ("wire", self.step.ins[port[0]], port[1])
        self.pens.bend(key, x, x, self.enter(port))

    def curve(self, port: Port, to: Point, aside: float = 0.0) -> None:
        """Draw a wire that enters to another height."""
        key = ("wire", self.step.ins[port[0]], port[1])
        self.pens.bend(key, self.left, to[0], to[1], aside)

    def begin(self, port: Port, start: Point, aside: float = 0.0) -> None:
        """Begin a wire that leaves; `aside` is how far the middle of its bend is to the right of the middle."""
        strand = self.strands[self.step.outs[port[0]]]
        key = ("wire", strand.id, port[1])
        self.pens.begin(key, strand, strand.wires[port[1]], start)
        self.pens.bend(key, start[0], self.right, self.leave(port), aside)

    @property
    def dots(self) -> float:
        """Where the dots stand at which wires join."""
        return self.left + 1.5 * P + lanes_width(len(self.rising))

    @cached_property
    def rising(self) -> dict[Port, float]:
        """The lanes of the wires that join others."""
        joins = [link for link in self.step.links if link.kind == "join"]
        rows = {port: self.enter(stays(self.step, link, self.here)) for link in joins for port in link.ins}
        return lanes({port: (self.enter(port), row) for port, row in rows.items()})

    @cached_property
    def falling(self) -> dict[Port, float]:
        """The lanes of copies."""
        forks = [link for link in self.step.links if link.kind == "fork"]
        return lanes({port: (self.enter(link.ins[0]), self.leave(port)) for link in forks for port in link.outs})

    def data(self, kind: str, **more: str) -> Data:
        """Return what a mark of the step stands for."""
        return (("kind", kind), ("box", self.step.box), *more.items())

    @property
    def values(self) -> dict[str, str]:
        """The numbers of the tensors that the step reads and makes."""
        read, made = (
            " ".join([f"{self.strands[strand].value}" for strand in side]) for side in (self.step.ins, self.step.outs)
        )
        return {"in": read, "out": made, "title": self.step.title}


def step_width(step: Step) -> float:
    """Return the width that a step needs."""
    joins, forks = ([link for link in step.links if link.kind == kind] for kind in ("join", "fork"))
    more = max(
        lanes_width(sum([len(link.ins) - 1 for link in joins])),
        lanes_width(sum([len(link.outs) - 1 for link in forks])),
    )
    cups = sum([link.kind == "cup" for link in step.links])
    widths = [_link_width(link) for link in step.links]
    return max([*widths, _above_width(step), 12.0]) + more + 0.4 * P * max(cups - 1, 0)


def _above_width(step: Step) -> float:
    return width(step.above, TEXT) + 34 if step.above else 0.0


def _link_width(link: Link) -> float:
    text = width(link.text, LETTER if link.shape == "letter" else TEXT)
    if link.kind == "cup":
        return _CUP
    if link.kind == "glyph":
        return {
            "box": max(text + 12, P) + 2 * _GAP,
            "letter": text + 2 * _GAP,
            "triangle": P + 2 * _GAP + (text + 4 if text else 0.0),
            "circle": P + 2 * _GAP,
            "bar": (3.4 * P if len({port[0] for port in link.ins + link.outs}) > 1 else 2 * _GAP + 4),
            "star": text + 12 + 2 * _GAP,
            "memory": text + 12,
            "pentagon": max(text + 14, 1.2 * P) + _GAP,
            "window": _window_width(link),
            "transposed": _window_width(link) + 14,
        }[link.shape]
    if link.kind == "end":
        return text + 12 if text else 14.0
    return {"cup": _CUP, "unit": _CUP, "join": 1.6 * P, "fork": 1.8 * P, "start": 14.0}.get(link.kind, 0.0)


def _window_width(link: Link) -> float:
    return 1.2 * P + max(width(link.inner, TEXT) + 10, 20) + width(link.closing, 19) + 3 * _GAP


def draw_step(frame: Frame) -> list[Mark]:
    """Return the marks of a step, and draw its wires."""
    found: list[Mark] = []
    for strand, name in frame.step.sources:
        found += _source(frame, strand, name)
    cups = [link for link in frame.step.links if link.kind == "cup"]
    joined = {port for link in frame.step.links if link.beside for port in frame.joined(link)}
    for link in frame.step.links:
        if link.kind == "pass" and link.ins[0] in joined:
            continue
        if link.kind == "glyph":
            found += _GLYPHS.get(link.shape, _box)(frame, link)
        elif link.kind == "cup":
            found += _cup(frame, link, cups)
        else:
            found += _OTHERS[link.kind](frame, link)
    return found + _above(frame)


def _source(frame: Frame, strand: int, name: str) -> list[Mark]:
    """Return the name of a parameter or constant, at which its wires begin."""
    wires = frame.strands[strand].wires
    keys = [("wire", strand, place) for place in range(len(wires))]
    rows = [frame.here[key] for key in keys]
    text = (Span(name, "sans"),)
    start = frame.sources + width(text, SMALL) + 5
    for key, row, wire in zip(keys, rows, wires, strict=True):
        frame.pens.begin(key, frame.strands[strand], wire, (min(start, frame.left), row))
        frame.pens.bend(key, frame.left, frame.left, row)
    middle = (min(rows) + max(rows)) / 2 + 4
    left = min(start, frame.left)
    data: Data = (("kind", "source"), ("value", f"{frame.strands[strand].value}"), ("box", frame.step.box))
    if not name.endswith("→"):
        return [Text(left - 3, middle, text, SMALL, "end", "title", data)]
    data = (("kind", "memory"), *data[1:])
    return [
        _ground(left - width(text, SMALL) - 4, left, rows, data),
        Text(left - 2, middle, text, SMALL, "end", "title", data),
    ]


def _ground(left: float, right: float, rows: Sequence[float], data: Data) -> Path:
    """Return the pale box behind a tensor that is saved or loaded by name."""
    top, bottom = min(rows) - 0.4 * P, max(rows) + 0.4 * P
    return Path((left, top), ((right, top), (right, bottom), (left, bottom)), "", "memory", closed=True, data=data)


def _memory(frame: Frame, link: Link) -> list[Mark]:
    """The end of a tensor that is saved by name (Figure 27)."""
    rows = [frame.enter(port) for port in link.ins]
    left = frame.left + 2
    for port, row in zip(link.ins, rows, strict=True):
        frame.finish(port, (left, row))
    value = frame.strands[frame.step.ins[0]].value
    data: Data = (("kind", "memory"), ("value", f"{value}"), ("box", frame.step.box))
    right = left + width(link.text, TEXT) + 8
    ground = _ground(left, right, rows, data)
    middle = (min(rows) + max(rows)) / 2 + 0.34 * TEXT
    return [ground, Text((left + right) / 2, middle, link.text, TEXT, "middle", data=data)]


def _pass(frame: Frame, link: Link) -> list[Mark]:
    """A wire goes on; where the tensor changes, one path ends and the next begins."""
    entered, left = frame.enter(link.ins[0]), frame.leave(link.outs[0])
    place = (frame.left + frame.right) / 2 if abs(entered - left) < 0.01 else frame.right
    if any(each.kind == "cup" for each in frame.step.links) and left > entered:
        frame.go(link.ins[0], frame.left + _CUP / 2)
    frame.finish(link.ins[0], (place, left))
    frame.begin(link.outs[0], (place, left))
    return []


def _join(frame: Frame, link: Link) -> list[Mark]:
    """Wires join at a dot on the row of the one that stays."""
    row = frame.enter(stays(frame.step, link, frame.here))
    x = frame.dots
    for port in link.ins:
        frame.curve(port, (x, row), frame.rising.get(port, 0.0))
        frame.finish(port, (x, row))
    frame.begin(link.outs[0], (x, row))
    return [_dot(frame, x, row)]


def _fork(frame: Frame, link: Link) -> list[Mark]:
    """A wire is copied at a dot; the copies bend down to their rows."""
    row = frame.enter(link.ins[0])
    x = frame.left + 6
    frame.finish(link.ins[0], (x, row))
    for port in link.outs:
        frame.begin(port, (x, row), frame.falling.get(port, 0.0))
    return [_dot(frame, x, row)]


def _dot(frame: Frame, x: float, y: float) -> Circle:
    return Circle(x, y, 0.17 * P, "", "ink", data=frame.data("dot", **frame.values))


def _cup(frame: Frame, link: Link, cups: Sequence[Link]) -> list[Mark]:
    """Two wires meet in a half circle, its apex at the right; further pairs are around it."""
    rows = sorted([(frame.enter(port), port) for port in link.ins])
    spans = sorted([abs(frame.enter(each.ins[0]) - frame.enter(each.ins[1])) for each in cups])
    nested = spans.index(abs(rows[0][0] - rows[1][0]))
    middle = (rows[0][0] + rows[1][0]) / 2
    radius = min((rows[1][0] - rows[0][0]) / 2, (0.75 + 0.4 * nested) * P)
    others = {round(y, 1) for y in (*frame.here.values(), *frame.there.values())} - {round(y, 1) for y, _ in rows}
    while radius > 6 and any(abs(abs(y - middle) - radius) < 3 for y in others):
        radius -= 4
    x = frame.left + 1.4 * P
    ends = [(x, middle - radius), (x, middle + radius)]
    for (_, port), end in zip(rows, ends, strict=True):
        frame.finish(port, end)
    strand = frame.strands[frame.step.ins[rows[0][1][0]]]
    wire = strand.wires[rows[0][1][1]]
    bow = radius * 0.5523
    curve = (
        (x + bow, middle - radius, x + radius, middle - bow, x + radius, middle),
        (x + radius, middle + bow, x + bow, middle + radius, x, middle + radius),
    )
    axes = ",".join([f"{axis}" for axis in wire.axes])
    data = frame.data("cup", value=f"{strand.value}", axis=axes, **frame.values)
    return [Path(ends[0], curve, wire.role, double=wire.double, data=data)]


def _end(frame: Frame, link: Link) -> list[Mark]:
    """Wires end: at a text, or at a small arrow head (an axis of size 1 is removed)."""
    found: list[Mark] = []
    for port in link.ins:
        y = frame.enter(port)
        x = frame.left + 4
        if link.text:
            frame.finish(port, (x, y))
            found.append(Text(x + 2, y + 5, link.text, 14, role="label", data=frame.data("text", **frame.values)))
        else:
            frame.finish(port, (x, y))
            found.append(_head(x + 7, y, frame.data("text", **frame.values)))
    return found


def _head(x: float, y: float, data: Data) -> Path:
    """Return a solid barbed arrow head with its tip at a place."""
    corners = ((x - 8, y - 4), (x - 6, y), (x - 8, y + 4))
    return Path((x, y), corners, "", "ink", closed=True, data=(("kind", "head"), *data[1:]))


def _start(frame: Frame, link: Link) -> list[Mark]:
    """A wire begins at an arrow tail: an axis of size 1, or one that is repeated, is introduced."""
    found: list[Mark] = []
    for port in link.outs:
        y = frame.leave(port)
        x = frame.right - 6
        found.append(_head(x, y, frame.data("text", **frame.values)))
        frame.begin(port, (x, y))
    return found


def _above(frame: Frame) -> list[Mark]:
    """Return the text above the wires between two arrow heads, or the sign above dots."""
    step = frame.step
    if step.sign:
        y = frame.here["above", frame.number, 0]
        x = frame.dots
        spans = (Span(step.sign, "upright"),)
        return [Text(x, y + 6, spans, 17, "middle", data=frame.data("float", **frame.values))]
    if not step.above:
        return []
    y = frame.here["above", frame.number, 0]
    length = width(step.above, TEXT + 1)
    x = (frame.left + frame.right - length) / 2
    data = frame.data("float", **frame.values)
    return [
        _head(x - 3, y, data),
        Text(x, y + 4.5, step.above, TEXT + 1, role="label", data=data),
        _head(x + length + 11, y, data),
    ]


def _ports(frame: Frame, link: Link) -> tuple[float, float]:
    """Return the height of the first and the last wire of a glyph, on both sides."""
    rows = [frame.enter(port) for port in link.ins] + [frame.leave(port) for port in link.outs]
    return (min(rows), max(rows)) if rows else (0.0, 0.0)


def _connect(frame: Frame, link: Link, left: float, right: float) -> None:
    """End the wires that enter a glyph at its left side, and begin those that leave at its right side."""
    for port in link.ins:
        frame.finish(port, (left, frame.enter(port)))
    for port in link.outs:
        frame.begin(port, (right, frame.leave(port)))


def _outline(frame: Frame, link: Link, box: tuple[float, float, float, float], stroke: str, fill: str) -> Path:
    left, top, right, bottom = box
    data = frame.data("glyph", shape=link.shape, **frame.values)
    corners = ((right, top), (right, bottom), (left, bottom))
    return Path((left, top), corners, stroke, fill, closed=True, data=data)


def _middle(frame: Frame) -> float:
    return (frame.left + frame.right) / 2


def _text(frame: Frame, x: float, y: float, spans: tuple[Span, ...], size: float, role: str = "label") -> Text:
    return Text(x, y + 0.34 * size, spans, size, "middle", role, frame.data("text", **frame.values))


def _box(frame: Frame, link: Link) -> list[Mark]:
    """A box with its name; every wire of it ends at its left side or begins at its right side."""
    top, bottom = _ports(frame, link)
    half = max(width(link.text, TEXT) + 12, P) / 2
    middle = _middle(frame)
    pad = 0.33 * P if bottom > top else 0.4 * P
    _connect(frame, link, middle - half, middle + half)
    fill, stroke = frame.step.fill or "inside", "error" if frame.step.error else "glyph"
    outline = _outline(frame, link, (middle - half, top - pad, middle + half, bottom + pad), stroke, fill)
    return [outline, _text(frame, middle, (top + bottom) / 2, link.text, TEXT)]


def _letter(frame: Frame, link: Link) -> list[Mark]:
    """A bare letter: wires stop before it and start after it."""
    top, bottom = _ports(frame, link)
    half = width(link.text, LETTER) / 2 + 2
    middle = _middle(frame)
    _connect(frame, link, middle - half, middle + half)
    outline = _outline(frame, link, (middle - half, top - 0.45 * P, middle + half, bottom + 0.45 * P), "", "")
    return [outline, _text(frame, middle, (top + bottom) / 2, link.text, LETTER)]


def _triangle(frame: Frame, link: Link) -> list[Mark]:
    """The triangle of a softmax: apex at the left, where the wire enters; flat side at the right."""
    found: list[Mark] = []
    top, bottom = _ports(frame, link)
    middle = _middle(frame)
    left, right = middle - P / 2, middle + P / 2
    _connect(frame, link, left, right)
    centre = (top + bottom) / 2
    half = (bottom - top) / 2 + 0.7 * P
    data = frame.data("glyph", shape="triangle", **frame.values)
    found.append(
        Path(
            (left, centre), ((right, centre - half), (right, centre + half)), "glyph", "inside", closed=True, data=data
        )
    )
    if link.text:
        found.append(_text(frame, right - 8, centre, link.text, 9))
    return found


def _circle(frame: Frame, link: Link) -> list[Mark]:
    """The circle of a normalization, on its wire."""
    top, _ = _ports(frame, link)
    middle, radius = _middle(frame), 0.42 * P
    _connect(frame, link, middle - radius, middle + radius)
    data = frame.data("glyph", shape="circle", **frame.values)
    for port in frame.joined(link):
        passing = next(each for each in frame.step.links if each.kind == "pass" and each.ins == (port,))
        frame.finish(port, (middle - 0.7 * radius, top + 0.7 * radius))
        frame.begin(passing.outs[0], (middle + 0.7 * radius, top + 0.7 * radius))
    return [Circle(middle, top, radius, "glyph", "inside", 2.4, data)]


def _bar(frame: Frame, link: Link) -> list[Mark]:
    """A thick bar at which axes are merged, split or concatenated.

    Wires of other tensors than the first bend to the end of the bar below the first (Figure 27).
    """
    middle = frame.dots if any(each.kind == "join" for each in frame.step.links) else _middle(frame)
    ends: list[float] = []
    for ports, height, connect, x in (
        (link.ins, frame.enter, frame.finish, middle - 2),
        (link.outs, frame.leave, frame.begin, middle + 2),
    ):
        rows = sorted([(height(port), port) for port in ports])
        step = min(0.5, 0.8 / max(len(rows) - 1, 1)) * P if len({port[0] for _, port in rows}) > 1 else None
        for place, (row, port) in enumerate(rows):
            ends.append(row if step is None else rows[0][0] + place * step)
            connect(port, (x, ends[-1]))
    return [_outline(frame, link, (middle - 2, min(ends) - P / 4, middle + 2, max(ends) + P / 4), "", "ink")]


def _star(frame: Frame, link: Link) -> list[Mark]:
    """The box of a convolution that keeps sizes, between the rows of the image and of the channels."""
    top, bottom = _ports(frame, link)
    half = width(link.text, TEXT) / 2 + 6
    middle = _middle(frame)
    pad = 0.0 if bottom - top > 0.9 * P else 0.4 * P
    _connect(frame, link, middle - half, middle + half)
    outline = _outline(frame, link, (middle - half, top - pad, middle + half, bottom + pad), "glyph", "star")
    return [outline, _text(frame, middle, (top + bottom) / 2, link.text, TEXT)]


def _window(frame: Frame, link: Link) -> list[Mark]:
    """The trapezoid of a windowed operation: positions go on at its right, and windows end below them.

    They end in a learned map, which takes the channels too, or in Max or 𝔼.
    """
    image = [port for port in link.ins if port not in link.channels[0]]
    rows = [frame.enter(port) for port in image]
    places = [port for port in link.outs if port not in link.channels[1]]
    rows += [frame.leave(port) for port in places]
    left, wide = frame.left + _GAP, 1.2 * P
    right = left + wide
    top, edge = min(rows) - 0.4 * P, max(rows) + 0.45 * P
    low = edge + 0.6 * P
    for port in image:
        frame.finish(port, (left, frame.enter(port)))
    for port in places:
        frame.begin(port, (right, frame.leave(port)))
    data = frame.data("glyph", shape=link.shape, **frame.values)
    corners = ((right, top), (right, low), (left, edge))
    turned = link.shape == "transposed"
    marks: list[Mark] = [Path((left, top), corners, "glyph", "window", closed=True, data=data)]
    diagonal = Path(
        (left, edge), ((right, (top + low) / 2),) if not link.text else ((left + wide / 2, (edge + top + low) / 3),)
    )
    marks.append(Path(diagonal.start, diagonal.pieces, "glyph", data=frame.data("text", **frame.values)))
    marks.append(_text(frame, left + 0.36 * wide, (top + edge) / 2 - 3, (Span("★", "upright"),), 11))
    if link.text:
        marks.append(_text(frame, right - 7, (top + low) / 2 + 4, link.text, 11))
    if turned:
        marks.append(_text(frame, right + 7, top + 5, (Span("T", "italic"),), TEXT))
    return [*marks, *_window_end(frame, link, right, low - 0.25 * P)]


def _window_end(frame: Frame, link: Link, right: float, row: float) -> list[Mark]:
    """Return the wire of the windows with its label, and what it ends in."""
    label = width(link.inner, SMALL)
    x = right + max(label + 6, 16)
    inner = frame.data("inner", **frame.values)
    double = len(link.inner) > 1
    marks: list[Mark] = [Path((right, row), ((x, row),), double=double, data=inner)]
    marks.append(Text(right + 3, row - 4, link.inner, SMALL, data=frame.data("text", **frame.values)))
    learned = any(link.channels)
    size = 19.0 if learned else 14.0
    long = width(link.closing, size)
    if not learned:
        data = frame.data("text", **frame.values)
        return [*marks, Text(x + 2, row + 5, link.closing, size, data=data), _head(x + long + 12, row, data)]
    rows = [row, *map(frame.enter, link.channels[0]), *map(frame.leave, link.channels[1])]
    for port in link.channels[0]:
        frame.finish(port, (x, frame.enter(port)))
    for port in link.channels[1]:
        frame.begin(port, (x + long + 4, frame.leave(port)))
    box = (x, min(rows) - 0.35 * P, x + long + 4, max(rows) + 0.35 * P)
    outline = _outline(frame, replace(link, shape="letter"), box, "", "")
    return [*marks, outline, _text(frame, x + long / 2 + 2, (min(rows) + max(rows)) / 2, link.closing, size)]


def _pentagon(frame: Frame, link: Link) -> list[Mark]:
    """The pentagon at which an indexed axis ends, pointing to the right."""
    found: list[Mark] = []
    for port in link.ins:
        y, size = frame.enter(port), max(width(link.text, TEXT) + 14, 1.2 * P)
        left = frame.left + 2
        frame.finish(port, (left, y))
        high, tip = 0.42 * P, left + size
        corners = ((tip - 8, y - high), (tip, y), (tip - 8, y + high), (left, y + high))
        data = frame.data("glyph", shape="pentagon", **frame.values)
        found.append(Path((left, y - high), corners, "", "index", closed=True, data=data))
        found.append(_text(frame, left + (size - 6) / 2, y, link.text, TEXT, "indextext"))
    return found


_GLYPHS = {
    "letter": _letter,
    "triangle": _triangle,
    "circle": _circle,
    "bar": _bar,
    "star": _star,
    "pentagon": _pentagon,
    "memory": _memory,
    "window": _window,
    "transposed": _window,
}
_OTHERS = {"pass": _pass, "join": _join, "fork": _fork, "end": _end, "start": _start}

__all__ = ["Frame", "draw_step", "step_width"]
