"""The inputs and outputs of each box, computed once all boxes exist, and the axis names that values have there.

A value that is made in one box and read in another is an output of the one and an input of the other, so that a box of
the forward pass shows the values it saves for the reverse pass. Outside a circuit, an axis has the name it has in the
calling code, not that of the circuit's signature.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from circuits.diagram import Box, Value, wires


@dataclass(frozen=True)
class Flow:
    """The values that boxes read and do not make, and those that they make, by number and in order."""

    read: tuple[int, ...]
    made: tuple[int, ...]


def flow(boxes: Iterable[Box]) -> Flow:
    """Return the values that a sequence of boxes reads, and those that are made in it."""
    read: dict[int, None] = {}
    made: dict[int, None] = {}
    for box in boxes:
        if box.call is not None:
            into = (*wires(box.call.args), *wires(box.call.kwargs))
            out: Sequence[int] = wires(box.call.result)
        else:
            inner = flow(box.boxes)
            into, out = inner.read, inner.made
        read |= dict.fromkeys([number for number in into if number not in made])
        made |= dict.fromkeys(out)
    return Flow(tuple(read), tuple(made))


def port_values(boxes: Iterable[Box]) -> dict[int, Value]:
    """Return the inputs and outputs of some boxes by number, with the axis names in the first box that has each."""
    found: dict[int, Value] = {}
    for box in boxes:
        for value in (*box.inputs, *box.outputs):
            found.setdefault(value.number, value)
    return found


def axes_outside(box: Box, values: Iterable[Value], primal: Mapping[int, int]) -> tuple[Value, ...]:
    """Return values from inside a box with the axis names used outside it; None where there is no such name.

    `primal` maps the number of a cotangent to that of its primal, which has the same axes.
    """
    ports = {value.number: value for value in (*box.inputs, *box.outputs)}
    names = _names_outside(box, ports) if box.signature is not None else None
    found = []
    for value in values:
        port = ports.get(value.number) or ports.get(primal.get(value.number, -1))
        if port is not None and len(port.axes) == len(value.axes):
            found.append(replace(value, axes=port.axes))
        elif names is None:
            found.append(value)
        else:
            axes = [None if axis is None else _translated(axis, names) for axis in value.axes]
            found.append(replace(value, axes=tuple(axes)))
    return tuple(found)


def _names_outside(box: Box, ports: Mapping[int, Value]) -> dict[str, str | None]:
    """Return the outside name of each axis name inside a circuit, from the tensors that occur on both sides."""
    names: dict[str, str | None] = {}
    within = port_values(box.boxes)
    for number, port in ports.items():
        pairs = zip(within[number].axes, port.axes, strict=False) if number in within else ()
        names |= {axis: other for axis, other in pairs if axis is not None and names.get(axis) is None}
    return names


_LETTERS = re.compile(r"[^\W\d]\w*'*")


def _translated(axis: str, names: Mapping[str, str | None]) -> str | None:
    """Return an axis, or a group or expression of several, in outside names; None if one of them has no such name."""
    if axis in names:
        return names[axis]
    found = {letter: names.get(letter) for letter in _LETTERS.findall(axis)}
    if not found or any(word is None or not _LETTERS.fullmatch(word) for word in found.values()):
        return None
    return _LETTERS.sub(lambda match: str(found[match[0]]), axis)


def with_ports(
    boxes: Sequence[Box], wanted: Iterable[int], extra_values: Mapping[int, Sequence[Value]]
) -> tuple[Box, ...]:
    """Return boxes with exactly the inputs and outputs that are used.

    Args:
        boxes: Boxes in the order of the run. A box of the reverse pass has all possible inputs and outputs, of which
            the used ones are chosen; a box of the forward pass keeps its own.
        wanted: The numbers of the values that are read after the last box.
        extra_values: For boxes of the forward pass, by id, all values that are made in them; those that are read later
            become outputs.
    """
    later, found = set(wanted), []
    for box in reversed(boxes):
        here = flow([box])
        if box.call is None:
            box = _with_ports(box, here, later, extra_values)
        later |= set(here.read)
        found.append(box)
    return tuple(reversed(found))


def _with_ports(box: Box, here: Flow, later: set[int], extra_values: Mapping[int, Sequence[Value]]) -> Box:
    if id(box) in extra_values:
        declared = {value.number for value in box.outputs}
        extra = [v for v in extra_values[id(box)] if v.number in later and v.number not in declared]
        inputs, outputs = box.inputs, (*box.outputs, *extra)
    else:
        inputs = tuple([value for value in box.inputs if value.number in here.read])
        outputs = tuple([value for value in box.outputs if value.number in later and value.number in here.made])
    boxes = with_ports(box.boxes, [value.number for value in outputs], extra_values)
    return replace(box, inputs=inputs, outputs=outputs, boxes=boxes)


def needed(
    boxes: Iterable[Box], wanted: Iterable[int], has_effects: Callable[[Box], bool] = lambda _: False
) -> tuple[tuple[Box, ...], set[int]]:
    """Return the boxes without those whose results are unused, and the values that are read by the rest or wanted.

    Args:
        boxes: Boxes in the order of the run.
        wanted: The numbers of the values that are read after the last box.
        has_effects: Returns whether a box with a call has side effects; such a box is kept.
    """
    alive, kept = set(wanted), []
    for box in reversed(list(boxes)):
        if box.call is not None:
            if has_effects(box) or alive & set(wires(box.call.result)):
                alive |= {*wires(box.call.args), *wires(box.call.kwargs)}
                kept.append(box)
            continue
        inner, alive = needed(box.boxes, alive, has_effects)
        if inner:
            kept.append(replace(box, boxes=inner))
    return tuple(reversed(kept)), alive
