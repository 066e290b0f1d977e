"""Which value number holds the present contents of each value of a diagram, while in-place writes replace values."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from circuits.autodiff.renumbering import renumbered
from circuits.diagram import Box, Call, CustomBackward, Scalar, Wire, substitute

Described = TypeVar("Described", Call, CustomBackward)


class CurrentValues:
    """The present number of each value: its own, until an in-place write gives its contents another one."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def number(self, number: int) -> int:
        """Return the present number of a value."""
        return self._numbers.get(number, number)

    def wire(self, wire: Wire) -> Wire:
        """Return the wire of the present number."""
        return Wire(self.number(wire.number))

    def update(self, numbers: Mapping[int, int]) -> None:
        """Set the present numbers of some values."""
        self._numbers |= numbers

    def reset(self, number: int) -> None:
        """Let a value have its own number again, since it has just been computed."""
        self._numbers.pop(number, None)

    def arguments(self, call: Described) -> Described:
        """Return a call whose arguments are the present values; its results keep their numbers."""
        args, kwargs = (self.description(part) for part in (call.args, call.kwargs))
        return replace(call, args=args, kwargs=kwargs)

    def description(self, description: Any) -> Any:
        """Return a description with the present numbers."""
        return substitute(description, self.wire, _unchanged)

    def box(self, box: Box) -> Box:
        """Return a box with the present numbers everywhere."""
        return renumbered(box, self._numbers)

    def inputs(self, box: Box) -> Box:
        """Return a box with the present numbers everywhere, except for its outputs."""
        outputs = {value.number for value in box.outputs}
        return renumbered(box, {old: new for old, new in self._numbers.items() if old not in outputs})


def _unchanged(scalar: Scalar) -> Scalar:
    return scalar
