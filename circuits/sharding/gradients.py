"""The sums of gradients that follow from a split: of whole tensors from which ranks compute different parts.

A gradient is added up where a module returns the tensor, if only parts are computed from it, or else where modules are
given it; the hooks of modules are where torch lets communications be put.
"""

from typing import Any

from circuits.diagram import Box, Value
from circuits.naming import naming_rule
from circuits.sharding.moves import Move, Side
from circuits.sharding.one_axis import OneAxis
from circuits.sharding.steps import Place, argument_wires, is_module, returns


def gradient_moves(one: OneAxis) -> list[Move]:
    """Return the sums of gradients over one mesh axis.

    Raises:
        CircuitError: A gradient has to be added up where no module returns the tensor or is given it.
    """
    return _Gradients(one).moves()


class _Gradients:
    """The sums of gradients over one mesh axis."""

    def __init__(self, one: OneAxis) -> None:
        self.one = one
        self.diagram, self.readers = one.named.diagram, one.steps.readers
        self.parameters = one.named.parameters

    def moves(self) -> list[Move]:
        """Return them, for each whole tensor that needs a gradient."""
        found = [*self._gathered_inputs(), *self.one.shared.values()]
        gathered = {
            value.number for (change, *_), (_, value, _) in self.one.between.made.items() if change.side == "results"
        }
        for number, value in self.one.named.values.items():
            if number in self.one.dims or number in gathered or number not in self.one.steps.with_gradient:
                continue
            readers = [each for each in self.readers.get(number, ()) if not self._has_whole_gradient(each, number)]
            partly = [each for each in readers if is_split(self.one, each)]
            if partly:
                found += self._of(value, partly)
        return found

    def _has_whole_gradient(self, place: Place, number: int) -> bool:
        """Return whether the gradient that an operation gives a whole tensor is gathered, or that of a module is."""
        return (id(place.box), number) in self.one.shared or self.one.between.is_changed(place, number)

    def _gathered_inputs(self) -> list[Move]:
        """Return the gatherings of the gradients of inputs of which each rank takes its part."""
        wires = argument_wires(self.diagram, self.diagram.box)
        return [
            self._move("arguments", "", index, self.one.named.values[number], self.one.axis[number], "split")
            for index, number in enumerate(wires)
            if number in self.one.dims and number in self.one.steps.with_gradient
        ]

    def _of(self, value: Value, partly: list[Place]) -> list[Move]:
        """Return the sums of the gradient of one tensor."""
        axis = self.one.axis_at(partly[0])
        if value.number in self.one.slices:
            return [self._move("slice", self.one.slices[value.number], 0, value, axis, "split")]
        if value.number in self.parameters:
            return [self._move("parameter", self.parameters[value.number], 0, value, axis)]
        maker = self._maker(value)
        if maker is not None:
            index = [output.number for output in maker.outputs].index(value.number)
            return [self._move("results", maker.path, index, value, axis)]
        modules = self._users(value.number, partly)
        indices = [argument_wires(self.diagram, each).index(value.number) for each in modules]
        return [
            self._move("arguments", module.path, index, value, axis)
            for module, index in zip(modules, indices, strict=True)
        ]

    def _move(self, side: Side, at: str, index: int, value: Value, axis: str, source: str = "partial") -> Move:
        why = f"parts of {axis} come from it" if source == "partial" else f"each takes a part of {axis}"
        return Move(at, side, index, self.one.mesh_axis, source, "whole", "backward", axis, why, 0, value)

    def _maker(self, value: Value) -> Box | None:
        """Return the outermost module that returns a tensor, if nothing but parts is computed from it outside."""
        made = (box for box in self.diagram.walk() if is_module(self.diagram, box) and returns(box, value))
        module = next(made, None)
        if module is None or returns(self.diagram.box, value):
            return None
        outside = [each for each in self.readers[value.number] if all(box is not module for box in each.around)]
        return module if all(is_split(self.one, each) for each in outside) else None

    def _users(self, number: int, partly: list[Place]) -> list[Box]:
        """Return the outermost modules that are given a tensor and compute parts alone from it."""
        found: list[Box] = []
        for place in partly:
            if any(box is known for box in place.around for known in found):
                continue
            module = next((box for box in place.around if self._only_splits(box, number)), None)
            if module is None:
                raise self.one.refused(
                    place,
                    "the gradients of its input have to be added up over ranks, which can be done where a module is "
                    "given it: make the operation a module of its own",
                )
            found.append(module)
        return found

    def _only_splits(self, module: Box, number: int) -> bool:
        """Return whether a module is given a tensor as an argument and computes nothing but parts from it."""
        if not is_module(self.diagram, module) or number not in argument_wires(self.diagram, module):
            return False
        inside = [each for each in self.readers[number] if any(box is module for box in each.around)]
        returned = {value.number for value in module.outputs}
        return all(is_split(self.one, each) for each in inside) and number not in returned


def is_split(one: OneAxis, place: Place) -> bool:
    """Return whether an operation computes with parts, so that the gradients of its whole inputs are summands.

    The bias of a linear map whose result is a sum over ranks is added once, and has its whole gradient everywhere.
    """
    call: Any = place.box.call
    if call is not None and naming_rule(call.function) == "linear" and place.box.outputs[0].number in one.sums.numbers:
        return False
    return any(one.dim_at(place, value) is not None for value in place.box.inputs)


__all__ = ["gradient_moves", "is_split"]
