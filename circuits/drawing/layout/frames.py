"""Where a step stands in its column, how wide it is, and the shapes that all glyphs share."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from circuits.drawing.layout.crossing import Key
from circuits.drawing.layout.dots import FORK, arriving, cupped, joining, joins_length, leaving, parting
from circuits.drawing.layout.lanes import LANE, Pieces
from circuits.drawing.layout.pens import Pens
from circuits.drawing.marks import Data, P, Path, Point, Span, Text
from circuits.drawing.scene import Link, Port, Step, Strand
from circuits.drawing.widths import width

LETTER, TEXT, SMALL = 23.0, 12.0, 11.0
"""The sizes of letters of learned maps, of texts in glyphs, and of small texts."""
GAP = 8.0
"""The room at both sides of a glyph."""
CUP = 2.6 * P
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
        passing: Where wires that change their height while they pass begin to bend, and the pieces of their bends.
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
    passing: Mapping[Key, tuple[float, Pieces]]

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

    def curve(self, port: Port, to: Point) -> None:
        """Draw a wire that enters to the dot at which it joins others."""
        key = ("wire", self.step.ins[port[0]], port[1])
        if port in self.rising:
            self.pens.follow(key, self.left, self.rising[port])
        else:
            self.pens.bend(key, self.left, to[0], to[1])

    def begin(self, port: Port, start: Point) -> None:
        """Begin a wire that leaves."""
        strand = self.strands[self.step.outs[port[0]]]
        key = ("wire", strand.id, port[1])
        self.pens.begin(key, strand, strand.wires[port[1]], start, self.step.box)
        if port in self.falling:
            self.pens.follow(key, start[0], self.falling[port])
        else:
            self.pens.bend(key, start[0], self.right, self.leave(port))

    def cross(self, port: Port) -> bool:
        """Draw a wire that enters to the height at which it goes on; return whether that is another one."""
        key = ("wire", self.step.ins[port[0]], port[1])
        x, pieces = self.passing.get(key, (self.left, ()))
        self.pens.follow(key, x, pieces)
        return bool(pieces)

    @property
    def middle(self) -> float:
        """The middle of its slot, or of what is right of the dots at which wires join."""
        joins = any(link.kind == "join" for link in self.step.links)
        return ((self.dots if joins else self.left) + self.right) / 2

    @cached_property
    def dots(self) -> float:
        """Where the dots stand at which wires join."""
        return self.left + joins_length(self.step, self.here)

    @property
    def forks(self) -> float:
        """Where the dots stand at which wires are copied."""
        return self.left + FORK

    @cached_property
    def rising(self) -> dict[Port, Pieces]:
        """The curves of the wires that join others."""
        return arriving(joining(self.step, self.here), self.left, self.dots, cupped(self.step, self.here))

    @cached_property
    def falling(self) -> dict[Port, Pieces]:
        """The curves of copies."""
        return leaving(parting(self.step, self.here, self.there), self.forks, self.right)

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
    more = LANE * max(
        sum([len(link.ins) - 1 for link in joins]) - 1, sum([len(link.outs) - 1 for link in forks]) - 1, 0
    )
    cups = sum([link.kind == "cup" for link in step.links])
    glyphs = [_link_width(link) for link in step.links if link.kind == "glyph" and link.shape != "bar"]
    widths = [_link_width(link) for link in step.links]
    more += max(glyphs, default=0.0) if joins else 0.0
    more += width(step.scale, TEXT) + 14 if step.scale else 0.0
    more += 12.0 if glyphs and any(link.kind == "start" for link in step.links) else 0.0
    return max([*widths, _above_width(step), 12.0]) + more + 0.4 * P * max(cups - 1, 0)


def note_width(step: Step) -> float:
    """Return the width of the note of a step, with the room beside it."""
    return width(step.noted, SMALL) + 8 if step.noted else 0.0


def _above_width(step: Step) -> float:
    return width(step.above, TEXT) + 34 if step.above else 0.0


def _link_width(link: Link) -> float:
    text = width(link.text, LETTER if link.shape == "letter" else TEXT)
    if link.kind == "cup":
        return CUP
    if link.kind == "glyph":
        return {
            "box": max(text + 12, P) + 2 * GAP + 7,
            "letter": text + 2 * GAP,
            "triangle": P + 2 * GAP + (text + 4 if text else 0.0),
            "circle": P + 2 * GAP,
            "bar": (3.4 * P if len({port[0] for port in link.ins + link.outs}) > 1 else 2 * GAP + 4),
            "star": text + 12 + 2 * GAP,
            "memory": text + 12,
            "pentagon": max(text + 14, 1.2 * P) + GAP,
            "window": _window_width(link),
            "transposed": _window_width(link) + 14,
        }[link.shape]
    if link.kind == "end":
        return text + 12 if text else 14.0
    return {"cup": CUP, "unit": CUP, "join": 1.6 * P, "fork": 1.8 * P, "start": 14.0}.get(link.kind, 0.0)


def _window_width(link: Link) -> float:
    return 1.2 * P + max(width(link.inner, TEXT) + 10, 20) + width(link.closing, LETTER) + 3 * GAP


def extent(frame: Frame, link: Link) -> tuple[float, float]:
    """Return the height of the first and the last wire of a glyph, on both sides; that of a box without wires."""
    rows = [frame.enter(port) for port in link.ins] + [frame.leave(port) for port in link.outs]
    rows = rows or [frame.here.get(("above", frame.number, 0), 0.0)]
    return min(rows), max(rows)


def connect(frame: Frame, link: Link, left: float, right: float) -> None:
    """End the wires that enter a glyph at its left side, and begin those that leave at its right side."""
    for port in link.ins:
        frame.finish(port, (left, frame.enter(port)))
    for port in link.outs:
        frame.begin(port, (right, frame.leave(port)))


def outlined(frame: Frame, link: Link, box: tuple[float, float, float, float], stroke: str, fill: str) -> Path:
    """Return a rectangle as the outline of a glyph."""
    left, top, right, bottom = box
    data = frame.data("glyph", shape=link.shape, **frame.values)
    corners = ((right, top), (right, bottom), (left, bottom))
    return Path((left, top), corners, stroke, fill, closed=True, data=data)


def text_mark(frame: Frame, x: float, y: float, spans: tuple[Span, ...], size: float, role: str = "label") -> Text:
    """Return a text in a glyph, its middle at a place."""
    return Text(x, y + 0.34 * size, spans, size, "middle", role, frame.data("text", **frame.values))


def head(x: float, y: float, data: Data) -> Path:
    """Return a solid barbed arrow head with its tip at a place."""
    corners = ((x - 8, y - 4), (x - 6, y), (x - 8, y + 4))
    return Path((x, y), corners, "", "ink", closed=True, data=(("kind", "head"), *data[1:]))


__all__ = [
    "CUP",
    "GAP",
    "LETTER",
    "SMALL",
    "TEXT",
    "Frame",
    "connect",
    "extent",
    "head",
    "note_width",
    "outlined",
    "step_width",
    "text_mark",
]
