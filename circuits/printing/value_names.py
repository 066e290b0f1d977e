"""The name of each value in a listing: inputs and parameters by their own names, the others by letters."""

from collections.abc import Iterable, Iterator

import torch
from torch._subclasses.fake_tensor import FakeTensor

from circuits.diagram import Box, Diagram, Wire, wires
from circuits.printing.box_queries import call_arguments, is_leaf, values_read
from circuits.printing.words import letters, unique_name


class ValueNames:
    """The names of the values of a diagram.

    Attributes:
        names: The name of each value, by number; no entry for a result that is unused.
        literals: The text of each value that the listing shows as a number, by value number.
        inputs: The input values, each once.
        fixed: The other values that exist before the run: parameters, buffers and constants.
    """

    def __init__(self, diagram: Diagram) -> None:
        leaves = [box for box in diagram.box.walk() if is_leaf(box)]
        transforms = [box for box in diagram.box.walk() if box.kind == "transform"]
        self._read = {number for box in leaves for number in values_read(box)} | set(wires(diagram.result))
        self._read |= {value.number for box in transforms for value in box.inputs}
        self.literals = dict(_literals(diagram, leaves))
        values = [value for box in leaves for value in box.inputs] + list(diagram.outputs)
        existing = {value.number: value for value in values if value.role in ("parameter", "buffer", "constant")}
        recorded = {*diagram.constants, *diagram.state}
        unrecorded = [
            value.number for value in existing.values() if value.role == "constant" and value.number not in recorded
        ]
        self.names: dict[int, str] = {**self.literals, **dict.fromkeys(unrecorded, "?")}
        self.fixed = [value for number, value in existing.items() if number not in self.names]
        self.inputs = list({value.number: value for value in diagram.inputs}.values())
        self._name_all(diagram)

    def _name_all(self, diagram: Diagram) -> None:
        """Name inputs and parameters by their own names, then the others by letters in the order of the run."""
        for value in (*self.inputs, *self.fixed):
            if value.name and not value.name.isdigit():
                self.names.setdefault(value.number, self._unique(value.name))
        self._letters = letters(self.names.values())
        for value in (*self.fixed, *self.inputs):
            self._add(value.number)
        self._name_inside(diagram.box)
        for number in wires(diagram.result):
            self._add(number)

    def _name_inside(self, box: Box, in_transform: bool = False) -> None:
        """Name the values that a box reads if it is a leaf, then the values inside it, then its outputs.

        Inside a transform all outputs are named, also unused ones, because the transform may return them.
        """
        if is_leaf(box):
            for value in box.inputs:
                with_prime = in_transform and value.number not in self.names and value.name
                self._add(value.number, self._unique(value.name) if with_prime else value.name)
            for number in values_read(box):
                self._add(number)
        for inner in box.boxes:
            self._name_inside(inner, in_transform or box.kind == "transform")
        for value in box.inside:
            self._add(value.number, self._unique(value.name) if value.name else "")
        for value in box.outputs:
            if in_transform or value.number in self._read:
                self._add(value.number)

    def _unique(self, name: str) -> str:
        """Return the name with primes appended until no other value has it."""
        return unique_name(name, self.names.values())

    def _add(self, number: int, name: str = "") -> None:
        """Give a value this name or, if it is empty, the next letter; a value that has a name keeps it."""
        if number not in self.names:
            self.names[number] = name or next(self._letters)


def _literals(diagram: Diagram, leaves: Iterable[Box]) -> Iterator[tuple[int, str]]:
    """Yield the value number and the text, such as `2.0`, of each tensor without axes that is constant.

    It is a constant of the diagram, or made from a Python number by `torch.tensor(2.0)`. Tensors that are overwritten
    by an in-place operation are skipped.
    """
    leaves = list(leaves)
    overwritten = {number for box in leaves for number in box.mutates}
    for number, tensor in diagram.constants.items():
        if tensor.ndim == 0 and number not in overwritten and not isinstance(tensor, FakeTensor) and not tensor.is_meta:
            yield number, repr(tensor.item())
    for box in leaves:
        if box.call is None or box.call.function not in _MAKES_TENSOR or not isinstance(box.call.result, Wire):
            continue
        args, _ = call_arguments(box.call)
        if args and isinstance(args[0], (bool, int, float, complex)) and box.call.result.number not in overwritten:
            yield box.call.result.number, repr(args[0])


_MAKES_TENSOR = (torch.tensor, torch.as_tensor, torch.scalar_tensor)
"""The functions that make a tensor from a number."""


__all__ = ["ValueNames"]
