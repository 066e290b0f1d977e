"""Common subexpression elimination: a box that repeats an earlier result, or returns its input, is removed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from circuits.autodiff.renumbering import renumbered
from circuits.autodiff.rewrites.no_ops import depends_on_strides, returns_input, undoes, view_as_reshape
from circuits.autodiff.rewrites.purity import is_pure, written_values
from circuits.diagram import Box, Call, Diagram, Scalar, Struct, Value, Wire, wires


class Eliminator:
    """Removes boxes, in the order of the run.

    `numbers` maps the value of a removed box to the equal earlier value, `values` has all values by number.
    `writes_nothing` is whether no box of the diagram writes to a tensor; otherwise nothing is removed.
    """

    def __init__(self, diagram: Diagram) -> None:
        self.numbers: dict[int, int] = {}
        self.values: dict[int, Value] = {value.number: value for value in diagram.inputs}
        self.writes_nothing: bool = not any(written_values(box) for box in diagram.walk())
        self._results: dict[Any, Any] = {}
        self._made_by: dict[int, Call] = {}
        self._strides_matter = any(depends_on_strides(box) for box in diagram.walk())

    def number(self, number: int) -> int:
        """Return the number of the value that replaces this one; itself if it stays."""
        return self.numbers.get(number, number)

    def wire(self, wire: Wire) -> Wire:
        """Return the wire of the value that replaces this one."""
        return Wire(self.number(wire.number))

    def remaining(self, boxes: Sequence[Box]) -> list[Box]:
        """Return the boxes without those that repeat an earlier result or return their input."""
        found = []
        for box in boxes:
            if box.call is None:
                inner = self.remaining(box.boxes)
                if inner:
                    found.append(replace(renumbered(replace(box, boxes=()), self.numbers), boxes=tuple(inner)))
                continue
            made = renumbered(view_as_reshape(box) if self.writes_nothing else box, self.numbers)
            for value in (*made.inputs, *made.outputs):
                self.values.setdefault(value.number, value)
            if not (self.writes_nothing and is_pure(made) and self._is_redundant(made)):
                found.append(made)
        return found

    def _is_redundant(self, box: Box) -> bool:
        """Return whether the result of a box exists already; if so, that value replaces it."""
        call: Any = box.call
        same = self._equal_input(box)
        if same is not None:
            self.numbers[box.outputs[0].number] = same
            return True
        key = (call.function, _key(call.args), _key(call.kwargs), call.autocast, call.gradient)
        before = self._results.setdefault(key, call.result)
        if before is call.result:
            for number in wires(call.result):
                self._made_by[number] = call
            return False
        self.numbers |= dict(zip(wires(call.result), wires(before), strict=True))
        return True

    def _equal_input(self, box: Box) -> int | None:
        """Return the value that the output of a box equals: its input, or the input of the transpose that it undoes."""
        call: Any = box.call
        if len(box.outputs) != 1 or not call.args.parts or not isinstance(call.args.parts[0], Wire):
            return None
        source = call.args.parts[0].number
        if returns_input(box, self.values[source], self._strides_matter) and self._passes_gradient(call):
            return source
        before = self._made_by.get(source)
        first = before.args.parts[0] if before is not None and before.args.parts else None
        if before is None or not isinstance(first, Wire):
            return None
        if not (self._passes_gradient(call) and self._passes_gradient(before)):
            return None
        return first.number if undoes(call, before, len(self.values[source].sizes)) else None

    def _passes_gradient(self, call: Call) -> bool:
        """Return whether gradients flow through a call to its first input, or that input has no gradient."""
        before = self._made_by.get(call.args.parts[0].number)
        return call.gradient or (before is not None and not before.gradient)


def _key(description: Any) -> Any:
    """Return a description as a dict key; 1, 1.0 and True are three keys, 0.0 and -0.0 are two."""
    if isinstance(description, Struct):
        return (description.kind, description.keys, tuple([_key(part) for part in description.parts]))
    if isinstance(description, (tuple, list)) and not isinstance(description, (Wire, Scalar)):
        return (type(description), tuple([_key(part) for part in description]))
    if isinstance(description, dict):
        return (dict, tuple([(name, _key(part)) for name, part in description.items()]))
    if isinstance(description, slice):
        return (slice, _key((description.start, description.stop, description.step)))
    if isinstance(description, (float, complex)):
        return (type(description), repr(description))
    try:
        hash(description)
    except TypeError:
        return id(description)
    return (type(description), description)
