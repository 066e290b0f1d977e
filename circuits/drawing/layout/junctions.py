"""The marks of steps without a glyph: wires that pass, join, are copied or contracted, end or begin; texts above."""

from collections.abc import Sequence

from circuits.drawing.layout.crossing import stays
from circuits.drawing.layout.dots import ARC
from circuits.drawing.layout.frames import SMALL, TEXT, Frame, head, step_width
from circuits.drawing.marks import Circle, Mark, P, Path, Span, Text
from circuits.drawing.scene import Link
from circuits.drawing.widths import width


def pass_on(frame: Frame, link: Link) -> list[Mark]:
    """A wire goes on; where the tensor changes, one path ends and the next begins."""
    bent = frame.cross(link.ins[0])
    place = (frame.right if bent else (frame.left + frame.right) / 2, frame.leave(link.outs[0]))
    frame.finish(link.ins[0], place)
    frame.begin(link.outs[0], place)
    return []


def join(frame: Frame, link: Link) -> list[Mark]:
    """Wires join at a dot on the row of the one that stays."""
    place = (frame.dots, frame.enter(stays(frame.step, link, frame.here)))
    for port in link.ins:
        frame.curve(port, place)
        frame.finish(port, place)
    frame.begin(link.outs[0], place)
    return [_dot(frame, *place)]


def fork(frame: Frame, link: Link) -> list[Mark]:
    """A wire is copied at a dot; the copies bend down to their rows."""
    place = (frame.forks, frame.enter(link.ins[0]))
    frame.finish(link.ins[0], place)
    for port in link.outs:
        frame.begin(port, place)
    return [_dot(frame, *place)]


def _dot(frame: Frame, x: float, y: float) -> Circle:
    return Circle(x, y, 0.17 * P, "", "ink", data=frame.data("dot", **frame.values))


def cup(frame: Frame, link: Link, cups: Sequence[Link]) -> list[Mark]:
    """Two wires meet in a half circle, its apex at the right; further pairs are around it."""
    rows = sorted([(frame.enter(port), port) for port in link.ins])
    spans = sorted([abs(frame.enter(each.ins[0]) - frame.enter(each.ins[1])) for each in cups])
    nested = spans.index(abs(rows[0][0] - rows[1][0]))
    middle = (rows[0][0] + rows[1][0]) / 2
    radius = min((rows[1][0] - rows[0][0]) / 2, (0.75 + 0.4 * nested) * P)
    others = {round(y, 1) for y in (*frame.here.values(), *frame.there.values())} - {round(y, 1) for y, _ in rows}
    while radius > 6 and any(abs(abs(y - middle) - radius) < 3 for y in others):
        radius -= 4
    x = frame.left + ARC
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
    mark = Path(ends[0], curve, wire.role, double=wire.double, data=data)
    return [mark, *_scale(frame, x + radius, middle)] if nested == len(cups) - 1 else [mark]


def _scale(frame: Frame, x: float, y: float) -> list[Mark]:
    """Return the arrow from the apex of a cup with the number by which the result is scaled, if there is one."""
    spans = frame.step.scale
    if not spans:
        return []
    others = [*frame.here.values(), *frame.there.values()]
    y += 0.3 * P if any(abs(other - y) < 0.2 * P for other in others) else 0.0
    long = width(spans, TEXT)
    data = frame.data("text", **frame.values)
    end = x + long + 14
    return [
        Path((x, y), ((end - 6, y),), "glyph", data=data),
        head(end, y, data),
        Text(x + 4, y - 4, spans, TEXT, role="label", data=data),
    ]


def unit(frame: Frame, link: Link) -> list[Mark]:
    """Two wires begin in a half circle, its apex at the left: an identity matrix (Figure 18)."""
    rows = sorted([(frame.leave(port), port) for port in link.outs])
    middle = (rows[0][0] + rows[1][0]) / 2
    radius = min((rows[1][0] - rows[0][0]) / 2, 0.75 * P)
    x = frame.left + radius
    ends = [(x, middle - radius), (x, middle + radius)]
    for (_, port), place in zip(rows, ends, strict=True):
        frame.begin(port, place)
    strand = frame.strands[frame.step.outs[rows[0][1][0]]]
    wire = strand.wires[rows[0][1][1]]
    bow = radius * 0.5523
    curve = (
        (x - bow, middle - radius, x - radius, middle - bow, x - radius, middle),
        (x - radius, middle + bow, x - bow, middle + radius, x, middle + radius),
    )
    axes = ",".join([f"{axis}" for axis in wire.axes])
    data = frame.data("unit", value=f"{strand.value}", axis=axes, **frame.values)
    return [Path(ends[0], curve, wire.role, double=wire.double, data=data)]


def end(frame: Frame, link: Link) -> list[Mark]:
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
            found.append(head(x + 7, y, frame.data("text", **frame.values)))
    return found


def start(frame: Frame, link: Link) -> list[Mark]:
    """A wire begins at an arrow tail: an axis of size 1, or one that is repeated, is introduced."""
    found: list[Mark] = []
    for port in link.outs:
        y = frame.leave(port)
        scalar = frame.strands[frame.step.outs[port[0]]].wires[port[1]].scalar
        x = frame.right - (0 if scalar else 6)
        found += [] if scalar else [head(x, y, frame.data("text", **frame.values))]
        frame.begin(port, (x, y))
    return found


def above(frame: Frame) -> list[Mark]:
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
        head(x - 3, y, data),
        Text(x, y + 4.5, step.above, TEXT + 1, role="label", data=data),
        head(x + length + 11, y, data),
    ]


def note(frame: Frame) -> list[Mark]:
    """Return the note above a step: over its glyph, or over the dots and cups at the left of its slot."""
    step = frame.step
    if not step.noted:
        return []
    half = width(step.noted, SMALL) / 2
    middle = (frame.left + frame.right) / 2
    if not step.above and all(link.kind != "glyph" for link in step.links):
        middle = min(max(frame.left + step_width(step) / 2, frame.left + half + 2), middle)
    y = frame.here["note", frame.number, 0]
    data = (("kind", "note"), ("box", step.box), ("title", step.title))
    return [Text(middle, y + 0.34 * SMALL, step.noted, SMALL, "middle", "note", data)]


__all__ = ["above", "cup", "end", "fork", "join", "note", "pass_on", "start", "unit"]
