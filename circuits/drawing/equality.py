"""What has to be equal in repeated boxes: labels, axes, sizes, dtypes, numbers and wiring; whose weights they have."""

from collections.abc import Callable, Hashable, Iterable, Sequence

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


class Kinds:
    """Numbers of boxes, equal for boxes that are equal in what a function returns of each, and in the boxes inside.

    A box is compared once, whatever is drawn of it: its number stands for it in that of the box around.
    """

    def __init__(self, said: Callable[[Box], Hashable]) -> None:
        self._said = said
        self._numbers: dict[Hashable, int] = {}
        self._known: dict[int, tuple[Box, int]] = {}  # by id, with the box, so that no other box has the id
        self._wiring: dict[int, tuple[int, ...]] = {}

    def of(self, box: Box) -> tuple[int, tuple[int, ...]]:
        """Return the number of a box, and the wiring inside."""
        number = self._number(box)
        if id(box) not in self._wiring:
            self._wiring[id(box)] = wiring(box)
        return number, self._wiring[id(box)]

    def _number(self, box: Box) -> int:
        known = self._known.get(id(box))
        if known is None:
            key = self._said(box), tuple([self._number(inner) for inner in box.boxes])
            known = self._known[id(box)] = box, self._numbers.setdefault(key, len(self._numbers))
        return known[1]


def content(box: Box) -> Hashable:
    """Return all that has to be equal in repetitions: label, axes, sizes, dtypes and numbers, but no names."""
    values = (*box.inputs, *box.outputs)
    ports = tuple([(str(value), value.shape, value.dtype, value.role in LEARNED) for value in values])
    return box.label, box.kind, ports, _numbers(box), box.error


def shape(box: Box) -> Hashable:
    """Return what has to be equal in repetitions whose sizes follow rules."""
    ports = tuple([(len(value.sizes), value.dtype, value.role in LEARNED) for value in (*box.inputs, *box.outputs)])
    label = box.label.partition(" ")[0] if box.kind == "operation" else box.label
    return label, box.kind, ports, _numbers(box), box.error


def _numbers(box: Box) -> str:
    """Return the arguments of a call as text, without the numbers of tensors."""
    if box.call is None:
        return ""
    args = Struct(tuple, (), (box.call.args, box.call.kwargs))
    return repr(substitute(args, lambda wire: Wire(0), lambda scalar: scalar))


__all__ = ["Kinds", "content", "places", "shape", "values_of", "weights", "wiring"]
