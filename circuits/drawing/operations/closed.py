"""A closed circuit or module: a box with its name. Axes that its signature calls `...`, and lifted ones, pass it."""

from collections.abc import Sequence

from circuits.diagram import Box, Value
from circuits.drawing.marks import Span
from circuits.drawing.operations.reading import Drawn
from circuits.drawing.scene import Link, Port
from circuits.signature import Axes, Rest


def closed_box(box: Box, ins: Sequence[Value], outs: Sequence[Value], title: str) -> Drawn:
    """Return the drawing of a closed box.

    Args:
        box: The box; if it is a circuit, its signature says which axes it leaves alone.
        ins: The tensors that it reads.
        outs: The tensors that it returns.
        title: The text in the box.
    """
    signature = box.signature
    leads = [_leading(value, place, signature.inputs if signature else ()) for place, value in enumerate(ins)]
    made = [_leading(value, place, signature.outputs if signature else ()) for place, value in enumerate(outs)]
    passing = min(made, default=0) if made and all(made) else 0
    if not passing or max(leads, default=0) != passing or len(set(made)) > 1:
        leads, made, passing = [0] * len(ins), [0] * len(outs), 0
    links = []
    for place in range(1, passing + 1):  # counted from the right, as `...` is aligned
        before = tuple([(tensor, lead - place) for tensor, lead in enumerate(leads) if lead >= place])
        after = tuple([(tensor, lead - place) for tensor, lead in enumerate(made)])
        kind = "fork" if len(after) > 1 else "join" if len(before) > 1 else "pass"
        if len(after) > 1 < len(before):
            return closed_box_of_all(ins, outs, title)
        links.append(Link(kind, before, after))
    glyph = Link("glyph", _others(ins, leads), _others(outs, made), "box", (Span(title, "sans"),))
    return Drawn(tuple(ins), tuple(outs), (*links, glyph))


def closed_box_of_all(ins: Sequence[Value], outs: Sequence[Value], title: str) -> Drawn:
    """Return a closed box to which every wire is attached."""
    glyph = Link("glyph", _others(ins, [0] * len(ins)), _others(outs, [0] * len(outs)), "box", (Span(title, "sans"),))
    return Drawn(tuple(ins), tuple(outs), (glyph,))


def _leading(value: Value, place: int, sides: Sequence[Axes]) -> int:
    """Return how many leading axes of a tensor the circuit leaves alone: lifted ones, and those of `...`."""
    if place >= len(sides):
        return value.mapped
    terms = sides[place]
    rest = len(value.sizes) - value.mapped - len(terms) + 1 if terms and isinstance(terms[0], Rest) else 0
    return value.mapped + max(rest, 0)


def _others(values: Sequence[Value], leads: Sequence[int]) -> tuple[Port, ...]:
    """Return the ports of the axes that enter or leave the box."""
    found: list[Port] = []
    for place, (value, lead) in enumerate(zip(values, leads, strict=True)):
        found += [(place, axis) for axis in range(lead, len(value.sizes))]
        found += [] if value.sizes else [(place, -1)]
    return tuple(found)


__all__ = ["closed_box"]
