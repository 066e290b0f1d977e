"""How each operation is drawn: one rule an operation, one file a family; an operation without a rule is a box.

Start with `reading` (what a rule reads and returns), then `elementwise`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from circuits.diagram import Box, Value
from circuits.drawing.operations import axes, contraction, elementwise, moving, patterns, windows
from circuits.drawing.operations.reading import LEARNED, RULES, SCALAR, Drawn, Reading, as_box
from circuits.drawing.scene import Link

FAMILIES = (elementwise, contraction, patterns, moving, axes, windows)
"""The modules whose rules are registered."""


def drawing_of(box: Box, name: str = "", symbols: Mapping[Any, Any] = MappingProxyType({})) -> Drawn:
    """Return how an operation is drawn; a box with its name and every wire attached if no rule knows it.

    Args:
        box: The box of one operation.
        name: The name of the module that consists of it, if there is one.
        symbols: The formula in the user's axes for each symbol of torch.
    """
    mapped = max([value.mapped for value in (*box.inputs, *box.outputs)], default=0)
    reading = Reading(_without_mapped(box) if mapped else box, name, symbols)
    drawn = _by_rule(reading)
    if drawn is None:
        data = [value for value in box.inputs if value.role not in LEARNED]
        return as_box(data, box.outputs, without_pattern(box.label))
    return _with_mapped(drawn, box) if mapped else drawn


def without_pattern(label: str) -> str:
    """Return the label of an operation without its pattern: `unfold` for `unfold '... h -> ... i j: i + j'`."""
    return re.split(r"\s[\"']", label, maxsplit=1)[0]


def _by_rule(reading: Reading) -> Drawn | None:
    """Return what the rule of the operation draws; None without a rule, or if it does not handle the arguments."""
    rule = RULES.get(reading.function_name)
    if rule is None or not reading.box.outputs:
        return None
    try:
        drawn = rule(reading)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None  # arguments that the rule does not handle: the operation is a box with every wire attached
    return drawn if drawn is not None and _is_complete(drawn) else None


def _without_mapped(box: Box) -> Box:
    """Return a box whose tensors have no axes that `torch.vmap` hides from the call."""
    inputs, outputs = (tuple([_shortened(value) for value in values]) for values in (box.inputs, box.outputs))
    return replace(box, inputs=inputs, outputs=outputs)


def _shortened(value: Value) -> Value:
    count = value.mapped
    return replace(value, axes=value.axes[count:], sizes=value.sizes[count:], mapped=0)


def _with_mapped(drawn: Drawn, box: Box) -> Drawn:
    """Return the drawing of a call inside `torch.vmap` with the hidden axes, which join over all its tensors."""
    whole = {value.number: value for value in (*box.inputs, *box.outputs)}
    ins, outs = (tuple([whole[value.number] for value in values]) for values in (drawn.ins, drawn.outs))
    links = [_moved(link, ins, outs) for link in drawn.links]
    links = [link for link in links if link.ins or link.outs]
    for level in range(max([value.mapped for value in (*ins, *outs)])):
        sides = [
            tuple([(place, level) for place, value in enumerate(values) if value.mapped > level])
            for values in (ins, outs)
        ]
        before, after = sides
        kind = "end" if not after else "start" if not before else "join" if len(before) > 1 else "pass"
        links.append(Link("fork" if len(after) > 1 else kind, before, after))
    return Drawn(ins, outs, tuple(links), drawn.above, drawn.sign)


def _moved(link: Link, ins: Sequence[Value], outs: Sequence[Value]) -> Link:
    """Return a link with its axes counted from the first hidden one; a hidden tensor without other axes has no wire."""
    sides = [
        tuple(
            [(place, axis + values[place].mapped) for place, axis in side if axis != SCALAR or not values[place].mapped]
        )
        for values, side in ((ins, link.ins), (outs, link.outs), (ins, link.beside))
    ]
    return replace(link, ins=sides[0], outs=sides[1], beside=sides[2])


def _is_complete(drawn: Drawn) -> bool:
    """Return whether the links take and make each wire exactly once."""
    for values, side in ((drawn.ins, "ins"), (drawn.outs, "outs")):
        wanted = [(place, axis) for place, value in enumerate(values) for axis in range(len(value.sizes))]
        wanted += [(place, SCALAR) for place, value in enumerate(values) if not value.sizes]
        if sorted(wanted) != sorted([port for link in drawn.links for port in getattr(link, side)]):
            return False
    return True


__all__ = ["FAMILIES", "LEARNED", "SCALAR", "Drawn", "drawing_of", "without_pattern"]
