"""Tensors that begin or end in a step: parameters and constants by their names, and what is saved by name."""

from collections.abc import Sequence

from circuits.drawing.labels import axis_label
from circuits.drawing.layout.frames import SMALL, TEXT, Frame
from circuits.drawing.marks import Data, Mark, P, Path, Span, Text
from circuits.drawing.scene import Link
from circuits.drawing.widths import width


def source(frame: Frame, strand: int, name: str) -> list[Mark]:
    """Return the name of a parameter or constant, at which its wires begin."""
    wires = frame.strands[strand].wires
    keys = [("wire", strand, place) for place in range(len(wires))]
    rows = [frame.here[key] for key in keys]
    text = source_text(name)
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


def source_text(name: str) -> tuple[Span, ...]:
    """Return the name of a parameter or constant as text; that of a loaded tensor, `C[λ] →`, with its index below."""
    if not name.endswith("→"):
        return (Span(name, "sans"),)
    return (*axis_label(name.removesuffix("→").strip()), Span(" →", "upright"))


def _ground(left: float, right: float, rows: Sequence[float], data: Data) -> Path:
    """Return the pale box behind a tensor that is saved or loaded by name."""
    top, bottom = min(rows) - 0.4 * P, max(rows) + 0.4 * P
    return Path((left, top), ((right, top), (right, bottom), (left, bottom)), "", "memory", closed=True, data=data)


def memory(frame: Frame, link: Link) -> list[Mark]:
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


__all__ = ["memory", "source", "source_text"]
