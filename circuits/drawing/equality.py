"""What has to be equal in repeated boxes: labels, axes, sizes, dtypes, numbers and wiring; whose weights they have."""

from collections.abc import Iterable, Sequence
from typing import Any

from circuits.diagram import Box, Struct, Value, Wire, substitute, wires
from circuits.drawing.operations import LEARNED


def places(numbers: Iterable[int]) -> tuple[int, ...]:
    """Return numbers as the order in which they occur first: equal for equal wiring.

    >>> places([7, 3, 7])
    (0, 1, 0)
    """
    known: dict[int, int] = {}
    return tuple([known.setdefault(number, len(known)) for number in numbers])


def weights(groups: Sequence[Sequence[Box]]) -> str | None:
    """Return whose weights repetitions have, in words: all their own or all the same; None if it is neither."""
    found = [frozenset(value.number for value in values_of(group) if value.role == "parameter") for group in groups]
    if len(set(found)) == 1:
        return "the same weights" if found[0] else ""
    apart = sum([len(each) for each in found]) == len(frozenset[int]().union(*found))
    return "own weights" if apart else None


def values_of(boxes: Iterable[Box]) -> list[Value]:
    """Return the tensors that boxes and those inside them read and make, in order."""
    return [value for box in boxes for inner in box.walk() for value in (*inner.inputs, *inner.outputs)]


def wiring(box: Box) -> tuple[int, ...]:
    """Return which tensors a box and those inside it read and make, by the order in which they occur first."""
    numbers: list[int] = []
    for inner in box.walk():
        if inner.call is not None:
            numbers += [*wires(inner.call.args), *wires(inner.call.kwargs)]
        numbers += [number for inside, outside, _ in inner.lifted for number in (inside, outside)]
        numbers += [value.number for value in (*inner.inputs, *inner.outputs, *inner.inside)]
    return places(numbers)


def content(box: Box) -> Any:
    """Return all that has to be equal in repetitions: labels, axes, sizes, dtypes and numbers, but no names."""
    values = (*box.inputs, *box.outputs)
    ports = tuple([(str(value), value.shape, value.dtype, value.role in LEARNED) for value in values])
    return box.label, box.kind, ports, _numbers(box), box.error, tuple([content(inner) for inner in box.boxes])


def shape(box: Box) -> Any:
    """Return what has to be equal in repetitions whose sizes follow rules."""
    ports = tuple([(len(value.sizes), value.dtype, value.role in LEARNED) for value in (*box.inputs, *box.outputs)])
    label = box.label.partition(" ")[0] if box.kind == "operation" else box.label
    return label, box.kind, ports, _numbers(box), box.error, tuple([shape(inner) for inner in box.boxes])


def _numbers(box: Box) -> str:
    """Return the arguments of a call as text, without the numbers of tensors."""
    if box.call is None:
        return ""
    args = Struct(tuple, (), (box.call.args, box.call.kwargs))
    return repr(substitute(args, lambda wire: Wire(0), lambda scalar: scalar))


__all__ = ["content", "places", "shape", "values_of", "weights", "wiring"]
