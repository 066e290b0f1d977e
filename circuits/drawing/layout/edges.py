"""The edges of a row: names of inputs, labels, arrows to and from other rows, and tensors that are saved and loaded."""

from collections.abc import Mapping
from typing import Literal

from circuits.drawing.layout.pens import axes_text
from circuits.drawing.layout.sweep import Key
from circuits.drawing.marks import Data, Mark, P, Path, Point, Span, Text
from circuits.drawing.scene import Strand
from circuits.drawing.widths import width

ARROW = 22.0
"""The width of an arrow to or from another row."""

_NAME, _CAPITAL = 15.0, 24.0
"""The sizes of the names of inputs and results: words, and single capital letters."""


def memory_text(name: str, loads: bool) -> tuple[Span, ...]:
    """Return the text of a tensor that is saved (`→ C`) or loaded (`C →`)."""
    letter, index = name[0], name[1:]
    spans = (Span(letter, "italic"), Span(index, "upright", "sub"))
    return (*spans, Span(" →", "upright")) if loads else (Span("→ ", "upright"), *spans)


def memory_width(name: str) -> float:
    """Return the width of the box behind a saved or loaded tensor."""
    return width(memory_text(name, False), 15.0) + 10


def memory_marks(name: str, loads: bool, left: float, rows: list[float], strand: Strand) -> list[Mark]:
    """Return the box of a saved or loaded tensor over the ends of its wires.

    Args:
        name: Its name, such as C1.
        loads: Whether it is loaded.
        left: The left edge of the box.
        rows: The heights of its wires.
        strand: The tensor.
    """
    data: Data = (("kind", "memory"), ("value", f"{strand.value}"), ("name", name))
    top, bottom, right = min(rows) - 0.4 * P, max(rows) + 0.4 * P, left + memory_width(name)
    corners = ((right, top), (right, bottom), (left, bottom))
    spans = memory_text(name, loads)
    middle = (top + bottom) / 2 + 5
    return [
        Path((left, top), corners, "", "memory", closed=True, data=data),
        Text((left + right) / 2, middle, spans, 15.0, "middle", data=data),
    ]


def leaving_arrow(key: Key, strand: Strand, at: Point) -> list[Mark]:
    """Return the arrow with which a wire goes on in the next row: down to the right, ending in a head."""
    wire = strand.wires[key[2]]
    data: Data = (("kind", "row"), ("value", f"{strand.value}"), ("axis", axes_text(wire)))
    x, y = at
    curve = Path(at, ((x + 8, y, x + 12, y + 3, x + 16, y + 7),), wire.role, double=wire.double, data=data)
    corners = ((x + 12.5, y + 9), (x + 16.5, y + 3.5))
    head = Path((x + 20, y + 10.5), corners, "", "ink", closed=True, data=(("kind", "head"), *data[1:]))
    return [curve, head]


def arriving_arrow(key: Key, strand: Strand, at: Point) -> list[Mark]:
    """Return the arrow with which a wire comes from the row above: from the upper left, ending on its row."""
    wire = strand.wires[key[2]]
    data: Data = (("kind", "row"), ("value", f"{strand.value}"), ("axis", axes_text(wire)))
    x, y = at
    curve = Path((x - 20, y - 9), ((x - 16, y - 4, x - 12, y, x, y),), wire.role, double=wire.double, data=data)
    corners = ((x - 8, y - 3.5), (x - 8, y + 3.5))
    head = Path((x, y), corners, "", "ink", closed=True, data=(("kind", "head"), *data[1:]))
    return [curve, head]


def end_names(
    rows: Mapping[int, list[float]],
    names: Mapping[int, str],
    strands: Mapping[int, Strand],
    x: float,
    anchor: Literal["start", "end"],
) -> list[Mark]:
    """Return the names of inputs or results, each at the middle of its wires.

    Args:
        rows: The heights of the wires of each strand.
        names: The name of each strand that has one.
        strands: All strands.
        x: Where the names end or start.
        anchor: Which of the two.
    """
    found: list[Mark] = []
    for strand, heights in rows.items():
        if names.get(strand):
            data = (("kind", "source"), ("value", f"{strands[strand].value}"))
            spans, size = end_name(names[strand])
            middle = (min(heights) + max(heights)) / 2 + size / 3
            found.append(Text(x, middle, spans, size, anchor, "title", data))
    return found


def end_name(name: str) -> tuple[tuple[Span, ...], float]:
    """Return the name of an input or result as text, and its size: one capital letter as in formulas, large."""
    if len(name) == 1 and name.isupper():
        return (Span(name, "italic"),), _CAPITAL
    return (Span(name, "sans"),), _NAME


def end_name_width(name: str) -> float:
    """Return the room that the name of an input or result takes."""
    spans, size = end_name(name)
    return width(spans, size) + 8


__all__ = ["ARROW", "arriving_arrow", "end_name_width", "end_names", "leaving_arrow", "memory_marks", "memory_width"]
