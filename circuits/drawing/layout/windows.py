"""The trapezoid of a windowed operation, and what its windows end in."""

from dataclasses import replace

from circuits.drawing.layout.frames import GAP, LETTER, SMALL, TEXT, Frame, head, outlined, text_mark
from circuits.drawing.marks import Mark, P, Path, Span, Text
from circuits.drawing.scene import Link
from circuits.drawing.widths import width


def window(frame: Frame, link: Link) -> list[Mark]:
    """The trapezoid of a windowed operation: positions go on at its right, and windows end below them.

    They end in a learned map, which takes the channels too, or in Max or 𝔼.
    """
    image = [port for port in link.ins if port not in link.channels[0]]
    rows = [frame.enter(port) for port in image]
    places = [port for port in link.outs if port not in link.channels[1]]
    rows += [frame.leave(port) for port in places]
    left, wide = frame.left + GAP, 1.2 * P
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
    marks.append(text_mark(frame, left + 0.36 * wide, (top + edge) / 2 - 3, (Span("★", "upright"),), 11))
    if link.text:
        marks.append(text_mark(frame, right - 7, (top + low) / 2 + 4, link.text, 11))
    if turned:
        marks.append(text_mark(frame, right + 7, min(rows) - 9, (Span("T", "italic"),), TEXT))
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
    size = LETTER if learned else 14.0
    long = width(link.closing, size)
    if not learned:
        data = frame.data("text", **frame.values)
        return [*marks, Text(x + 2, row + 5, link.closing, size, data=data), head(x + long + 12, row, data)]
    rows = [row, *map(frame.leave, link.channels[1])]
    channels = sorted(link.channels[0], key=frame.enter)
    for place, port in enumerate(channels):  # further wires rise to the first one (Figure 28)
        y = min(frame.enter(port), frame.enter(channels[0]) + 0.5 * P * place)
        frame.curve(port, (x - 4, y))
        frame.finish(port, (x, y))
        rows.append(y)
    for port in link.channels[1]:
        frame.begin(port, (x + long + 4, frame.leave(port)))
    box = (x, min(rows) - 0.35 * P, x + long + 4, max(rows) + 0.35 * P)
    outline = outlined(frame, replace(link, shape="letter"), box, "", "")
    return [*marks, outline, text_mark(frame, x + long / 2 + 2, (min(rows) + max(rows)) / 2, link.closing, size)]


__all__ = ["window"]
