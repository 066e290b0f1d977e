"""Tensors between modules that are split along an axis of their own, as a sequence is: `between` of `plan_sharding`.

Where a mesh axis splits heads or hidden units, the tensors between these modules are whole on every rank. They can be
split as well, along another axis: sums over ranks are then added up in parts, a module that needs the whole gathers it,
and a tensor that is whole is split where it meets them. At which modules is found by planning: an operation that cannot
read a tensor as it is raises `MismatchError`, and the plan is made again with one `Change` more; see `repairs`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.diagram import Box, Diagram, Value
from circuits.errors import CircuitError
from circuits.sharding.named import Named
from circuits.sharding.steps import Place, argument_wires, is_module, returns

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A number that is a whole part of a dotted path."""


def pattern_of(path: str) -> str:
    """Return a dotted path with `*` for its numbers: modules that are repeated have the same.

    >>> pattern_of("layers.0.L1.weight")
    'layers.*.L1.weight'
    """
    return _NUMBER.sub("*", path)


Target = Literal["whole", "split"]


@dataclass(frozen=True)
class Change:
    """An argument or a result of a module that is made whole there, or split along the axis between modules.

    Attributes:
        path: The dotted path of the module; empty for the inputs of the whole.
        side: Whether it is an argument or a result.
        index: Its number among them.
        target: How it is afterwards, whatever it was before.
    """

    path: str
    side: Literal["arguments", "results"]
    index: int
    target: Target


class MismatchError(Exception):
    """An operation that cannot read tensors as they are, because some are split along the axis between modules.

    Attributes:
        place: The operation.
        whole: The inputs that it would need whole.
        split: The inputs that it would need split; if there are any, one of the two is enough.
        error: What is raised if nothing can be changed.
    """

    def __init__(self, place: Place, whole: tuple[Value, ...], split: tuple[Value, ...], error: CircuitError) -> None:
        super().__init__(str(error))
        self.place, self.whole, self.split, self.error = place, whole, split, error


class Between:
    """The tensors between modules over one mesh axis.

    Args:
        named: The names of axes, and the choice.
        mesh_axis: The mesh axis.
        changes: Where tensors are made whole, or split.
        axes: The name of the axis along which each tensor is split, by its number; read while the plan is made.

    Attributes:
        axis: The axis along which they are split; None if they are whole.
        made: The changes that changed something, each with the module, the tensor, and how it is split afterwards.
    """

    def __init__(self, named: Named, mesh_axis: str, changes: Sequence[Change], axes: Mapping[int, str]) -> None:
        self.named, self.mesh_axis, self.changes, self.axes = named, mesh_axis, tuple(changes), axes
        self.axis = named.choice.between.get(mesh_axis)
        self.made: dict[tuple[Change, int, int], tuple[Box, Value, int | None]] = {}
        self._inside: dict[tuple[int, int], int | None] = {}
        self._at = dict(self._located()) if changes else {}

    def _located(self) -> Iterator[tuple[tuple[str, int, int], tuple[Change, Box]]]:
        """Yield each change of a tensor by its side, the number of the tensor, and the box."""
        diagram = self.named.diagram
        by_path: dict[str, list[Change]] = {}
        for change in self.changes:
            by_path.setdefault(change.path, []).append(change)
        for box in diagram.walk():
            if not is_module(diagram, box):
                continue
            for change in by_path.get(box.path, ()):
                numbers = numbers_at(diagram, box, change.side)
                if change.index < len(numbers):
                    yield (change.side, numbers[change.index], id(box)), (change, box)

    def of_input(self, number: int) -> int | None:
        """Return the dimension along which an input of the whole is split between modules."""
        change = self._at.get(("arguments", number, id(self.named.diagram.box)))
        return self.named.dim_between(number, self.mesh_axis) if change is None else None

    def dim_at(self, place: Place, number: int, dim: int | None) -> int | None:
        """Return the dimension along which a tensor is split where an operation reads it; `dim` is that outside."""
        for box in place.around:
            dim = self._inside.get((number, id(box)), dim)
            dim = self._changed("arguments", number, box, dim)
        return dim

    def returned(self, place: Place, value: Value, dim: int | None) -> int | None:
        """Return the dimension along which an output is split after the module that returns it; `dim` is before."""
        module = self.module_of(place, value)
        if module is None:
            return dim
        after = self._changed("results", value.number, module, dim)
        if after != dim:
            self._inside[value.number, id(module)] = dim
        return after

    def is_changed(self, place: Place, number: int) -> bool:
        """Return whether a module around an operation has changed a tensor that it is given."""
        inside = {id(box) for box in place.around}
        return any(
            (change.side, value, box in inside) == ("arguments", number, True) for change, value, box in self.made
        )

    def is_gathered(self, module: Box, value: Value) -> bool:
        """Return whether a result of a module is to be whole."""
        found = self._at.get(("results", value.number, id(module)))
        return found is not None and found[0].target == "whole"

    def module_of(self, place: Place, value: Value) -> Box | None:
        """Return the innermost module around an operation that returns its output."""
        diagram = self.named.diagram
        inner = next((box for box in reversed(place.around) if is_module(diagram, box) and returns(box, value)), None)
        return None if inner is diagram.box else inner

    def _changed(self, side: str, number: int, box: Box, dim: int | None) -> int | None:
        """Return how a tensor is split after the change of one module, if there is one."""
        found = self._at.get((side, number, id(box)))
        if found is None or box is self.named.diagram.box:
            return dim
        change = found[0]
        if change.target == "split":
            after = self.named.dim_between(number, self.mesh_axis) if dim is None else dim
        else:
            after = None if self.axes.get(number, self.axis) == self.axis else dim
        if after != dim:
            self.made[change, number, id(box)] = box, self.named.values[number], after
        return after


def numbers_at(diagram: Diagram, box: Box, side: str) -> Sequence[int]:
    """Return the numbers of the tensors in the arguments or the results of a box."""
    return argument_wires(diagram, box) if side == "arguments" else [value.number for value in box.outputs]


__all__ = ["Between", "Change", "MismatchError", "Target", "numbers_at", "pattern_of"]
