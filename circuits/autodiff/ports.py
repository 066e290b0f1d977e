"""What goes into and comes out of each box, once all boxes are there; and what its axes are called there.

A value that is made in one box and read in another goes out of the one and into the other: what a box saves for the
way back is to be seen on it. Around a circuit it is called by what the circuit's letters mean there.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from circuits.diagram import Box, Value, wires


@dataclass(frozen=True)
class Flow:
    """What boxes read and do not make, and what they make, in order."""

    read: tuple[int, ...]
    made: tuple[int, ...]


def flow(boxes: Iterable[Box]) -> Flow:
    """What goes into a row of boxes, and what is made in it."""
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


def inside(boxes: Iterable[Box]) -> dict[int, Value]:
    """The values between boxes, as they are called there."""
    found: dict[int, Value] = {}
    for box in boxes:
        for value in (*box.inputs, *box.outputs):
            found.setdefault(value.number, value)
    return found


def outside(box: Box, values: Iterable[Value], primal: Mapping[int, int]) -> tuple[Value, ...]:
    """Values from the inside of a box, called as they are around it; what has no name there shows its size.

    `primal` tells whose cotangent a value is, for that has the same axes.
    """
    ports = {value.number: value for value in (*box.inputs, *box.outputs)}
    if box.signature is None:
        words: dict[str, str | None] | None = None
    else:
        words, within = {}, inside(box.boxes)
        for number, port in ports.items():
            pairs = zip(within[number].axes, port.axes, strict=False) if number in within else ()
            words |= {axis: other for axis, other in pairs if axis is not None and words.get(axis) is None}
    found = []
    for value in values:
        port = ports.get(value.number) or ports.get(primal.get(value.number, -1))
        if port is not None and len(port.axes) == len(value.axes):
            found.append(replace(value, axes=port.axes))
        elif words is None:
            found.append(value)
        else:
            axes = [None if axis is None else _translated(axis, words) for axis in value.axes]
            found.append(replace(value, axes=tuple(axes)))
    return tuple(found)


_LETTERS = re.compile(r"[^\W\d]\w*'*")


def _translated(axis: str, words: Mapping[str, str | None]) -> str | None:
    if axis in words:
        return words[axis]
    found = {letter: words.get(letter) for letter in _LETTERS.findall(axis)}
    if not found or any(word is None or not _LETTERS.fullmatch(word) for word in found.values()):
        return None
    return _LETTERS.sub(lambda match: str(found[match[0]]), axis)


def ported(boxes: Sequence[Box], asked: Iterable[int], more: Mapping[int, Sequence[Value]]) -> tuple[Box, ...]:
    """Boxes with just what goes in and out of each; `asked` is what is read after the last of them.

    `more` gives for a box of the way there what it makes besides its outputs. Others have all that may go in and out.
    """
    later, found = set(asked), []
    for box in reversed(boxes):
        here = flow([box])
        if box.call is None:
            box = _ported(box, here, later, more)
        later |= set(here.read)
        found.append(box)
    return tuple(reversed(found))


def _ported(box: Box, here: Flow, later: set[int], more: Mapping[int, Sequence[Value]]) -> Box:
    if id(box) in more:
        declared = {value.number for value in box.outputs}
        extra = [value for value in more[id(box)] if value.number in later and value.number not in declared]
        inputs, outputs = box.inputs, (*box.outputs, *extra)
    else:
        inputs = tuple([value for value in box.inputs if value.number in here.read])
        outputs = tuple([value for value in box.outputs if value.number in later and value.number in here.made])
    boxes = ported(box.boxes, [value.number for value in outputs], more)
    return replace(box, inputs=inputs, outputs=outputs, boxes=boxes)
