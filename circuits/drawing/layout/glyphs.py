"""The glyphs of operations on their wires: boxes, letters, triangles, circles, bars, stars and pentagons."""

import math
from dataclasses import replace

from circuits.drawing.layout.frames import LETTER, TEXT, Frame, connect, extent, outlined, text_mark
from circuits.drawing.marks import Circle, Mark, P, Path
from circuits.drawing.scene import Link
from circuits.drawing.widths import width

DEEP = 7.0
"""How far the side of a solid box reaches to the right, and its upper face upward."""


def box(frame: Frame, link: Link) -> list[Mark]:
    """A box with its name; every wire of it ends at its left side or begins at its right side.

    That of a circuit or module is solid: it has a side and an upper face, and wires leave its side (Figures 26 and 27).
    """
    top, bottom = extent(frame, link)
    deep = DEEP if frame.step.fill else 0.0
    half = (max(width(link.text, TEXT) + 12, P) + deep) / 2
    middle = frame.middle
    pad = 0.36 * P if bottom > top else 0.42 * P
    left, right = middle - half, middle + half
    connect(frame, link, left, right)
    stroke, text = "error" if frame.step.error else "glyph", (top + bottom) / 2
    label = text_mark(frame, middle - deep / 2, text, link.text, TEXT)
    if not deep:
        return [outlined(frame, link, (left, top - pad, right, bottom + pad), stroke, "inside"), label]
    front = (left, top - pad, right - deep, bottom + pad)
    return [*_solid(frame, link, front, stroke), label]


def _solid(frame: Frame, link: Link, front: tuple[float, float, float, float], stroke: str) -> list[Mark]:
    """Return a box with an upper and a right face beside its front."""
    left, top, right, bottom = front
    corners = (
        (left + DEEP, top - DEEP),
        (right + DEEP, top - DEEP),
        (right + DEEP, bottom - DEEP),
        (right, bottom),
        (left, bottom),
    )
    data = frame.data("glyph", shape="solid", **frame.values)
    edges = frame.data("text", **frame.values)
    return [
        Path((left, top), corners, stroke, frame.step.fill, closed=True, data=data),
        Path((left, top), ((right, top), (right, bottom)), stroke, data=edges),
        Path((right, top), ((right + DEEP, top - DEEP),), stroke, data=edges),
    ]


def letter(frame: Frame, link: Link) -> list[Mark]:
    """A bare letter: wires stop before it and start after it."""
    top, bottom = extent(frame, link)
    half = width(link.text, LETTER) / 2 + 2
    middle = frame.middle
    connect(frame, link, middle - half, middle + half)
    outline = outlined(frame, link, (middle - half, top - 0.45 * P, middle + half, bottom + 0.45 * P), "", "")
    return [outline, text_mark(frame, middle, (top + bottom) / 2, link.text, LETTER)]


def triangle(frame: Frame, link: Link) -> list[Mark]:
    """The triangle of a softmax: apex at the left, where the wire enters; flat side at the right."""
    found: list[Mark] = []
    top, bottom = extent(frame, link)
    middle = frame.middle
    left, right = middle - P / 2, middle + P / 2
    connect(frame, link, left, right)
    centre = (top + bottom) / 2
    half = (bottom - top) / 2 + 0.7 * P
    data = frame.data("glyph", shape="triangle", **frame.values)
    found.append(
        Path(
            (left, centre), ((right, centre - half), (right, centre + half)), "glyph", "inside", closed=True, data=data
        )
    )
    if link.text:
        found.append(text_mark(frame, right - 8, centre, link.text, 9))
    return found


def circle(frame: Frame, link: Link) -> list[Mark]:
    """The circle of a normalization, on its wire."""
    top, _ = extent(frame, link)
    middle, radius = frame.middle, 0.42 * P
    connect(frame, link, middle - radius, middle + radius)
    data = frame.data("glyph", shape="circle", **frame.values)
    for port in frame.joined(link):
        passing = next(each for each in frame.step.links if each.kind == "pass" and each.ins == (port,))
        frame.finish(port, (middle - 0.7 * radius, top + 0.7 * radius))
        frame.begin(passing.outs[0], (middle + 0.7 * radius, top + 0.7 * radius))
    return [Circle(middle, top, radius, "glyph", "inside", 2.4, data)]


def bar(frame: Frame, link: Link) -> list[Mark]:
    """A thick bar at which axes are merged, split or concatenated.

    Wires of other tensors than the first bend to the end of the bar below the first (Figure 27).
    """
    middle = frame.dots if any(each.kind == "join" for each in frame.step.links) else frame.middle
    ends: list[float] = []
    least = _below(frame, link) - P / 4 - 3
    for ports, height, place_wire, x in (
        (link.ins, frame.enter, frame.finish, middle - 2),
        (link.outs, frame.leave, frame.begin, middle + 2),
    ):
        rows = sorted([(height(port), port) for port in ports])
        long = min(0.8 * P, least - rows[0][0]) if rows else 0.0
        step = min(0.5 * P, long / max(len(rows) - 1, 1)) if len({port[0] for _, port in rows}) > 1 else None
        for place, (row, port) in enumerate(rows):
            ends.append(row if step is None else rows[0][0] + place * step)
            place_wire(port, (x, ends[-1]))
    return [outlined(frame, link, (middle - 2, min(ends) - P / 4, middle + 2, max(ends) + P / 4), "", "ink")]


def _below(frame: Frame, link: Link) -> float:
    """Return the height of the first wire below a bar that is not its own."""
    first = min([frame.enter(port) for port in link.ins] + [frame.leave(port) for port in link.outs])
    own = {("wire", frame.step.ins[port[0]], port[1]) for port in link.ins}
    own |= {("wire", frame.step.outs[port[0]], port[1]) for port in link.outs}
    others = [*frame.here.items(), *frame.there.items()]
    return min([y for key, y in others if key[0] == "wire" and key not in own and y > first], default=math.inf)


def star(frame: Frame, link: Link) -> list[Mark]:
    """The box of a convolution that keeps sizes, between the rows of the image and of the channels."""
    top, bottom = extent(frame, link)
    half = width(link.text, TEXT) / 2 + 6
    middle = frame.middle
    pad = 0.0 if bottom - top > 0.9 * P else 0.4 * P
    connect(frame, link, middle - half, middle + half)
    outline = outlined(frame, link, (middle - half, top - pad, middle + half, bottom + pad), "glyph", "star")
    outline = replace(outline, width=2.4)
    return [outline, text_mark(frame, middle, (top + bottom) / 2, link.text, TEXT)]


def pentagon(frame: Frame, link: Link) -> list[Mark]:
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
        found.append(text_mark(frame, left + (size - 6) / 2, y, link.text, TEXT, "indextext"))
    return found


__all__ = ["bar", "box", "circle", "letter", "pentagon", "star", "triangle"]
