"""The current number of each value of a diagram: an in-place write is recorded as a new value with a new number."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from circuits.autodiff.renumbering import renumbered
from circuits.diagram import Box, Call, CustomBackward, Scalar, Wire, substitute, wires

Described = TypeVar("Described", Call, CustomBackward)


class CurrentValues:
    """The current number of each value: its own, until an in-place write replaces the value by another."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def number(self, number: int) -> int:
        """Return the current number of a value."""
        return self._numbers.get(number, number)

    def wire(self, wire: Wire) -> Wire:
        """Return the wire with its current number."""
        return Wire(self.number(wire.number))

    def update(self, numbers: Mapping[int, int]) -> None:
        """Set the current numbers of some values."""
        self._numbers |= numbers

    def reset(self, number: int) -> None:
        """Reset a value to its own number, since a call has just computed it."""
        self._numbers.pop(number, None)

    def arguments(self, call: Described) -> Described:
        """Return a call with current numbers in its arguments; its results keep their numbers."""
        args, kwargs = (self.description(part) for part in (call.args, call.kwargs))
        return replace(call, args=args, kwargs=kwargs)

    def returning(self, call: Call) -> Call:
        """Return a call with current numbers in its arguments, and in its result for each argument that it returns.

        Such a result is no new value: it is the value that the call was given.
        """
        given = {*wires(call.args), *wires(call.kwargs)}
        result = substitute(call.result, lambda wire: self.wire(wire) if wire.number in given else wire, _unchanged)
        return replace(self.arguments(call), result=result)

    def description(self, description: Any) -> Any:
        """Return a description with current numbers."""
        return substitute(description, self.wire, _unchanged)

    def box(self, box: Box) -> Box:
        """Return a box with current numbers everywhere."""
        return renumbered(box, self._numbers)

    def inputs(self, box: Box) -> Box:
        """Return a box with current numbers everywhere except in its outputs."""
        outputs = {value.number for value in box.outputs}
        return renumbered(box, {old: new for old, new in self._numbers.items() if old not in outputs})


def _unchanged(scalar: Scalar) -> Scalar:
    return scalar
