"""The operations of a diagram in order, each with the modules around it, and what the run needs gradients of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from circuits.diagram import Box, Diagram, Value, wires


@dataclass(frozen=True)
class Place:
    """An operation, and the boxes around it, the outermost first."""

    box: Box
    around: tuple[Box, ...]

    @property
    def where(self) -> str:
        """The label of the operation, and the path of the module around it, or the name of the outermost box."""
        modules = [each for each in self.around if each.path]
        inner = modules[-1] if modules else self.around[0] if self.around else self.box
        return f"{self.box.label} in {inner.path or inner.label}"

    @property
    def name(self) -> str:
        """Where the operation is, with the file and line of its call."""
        return self.where + (f" ({self.box.where})" if self.box.where else "")


class Steps:
    """The operations of a diagram, and the tensors between them.

    Attributes:
        places: The operations in the order of the run.
        readers: The operations that read each tensor, by its number.
        with_gradient: The numbers of the tensors that a gradient flows through.
        kernels: Whether a circuit whose kernel reads across axes that are split is one operation: see `across`.
    """

    def __init__(self, diagram: Diagram, kernels: bool = False) -> None:
        self.kernels = kernels
        self.places = places(diagram, kernels)
        self.readers = _readers(self.places)
        self.with_gradient = _with_gradient(diagram, places(diagram))
        self._makers = {value.number: place for place in self.places for value in place.box.outputs}

    def maker(self, number: int) -> Place | None:
        """Return the operation that computes a tensor; None for an input or parameter."""
        return self._makers.get(number)


def places(diagram: Diagram, kernels: bool = False) -> list[Place]:
    """Return the operations of a diagram in the order of the run, kernels that read across axes as one if `kernels`."""

    def walk(box: Box, around: tuple[Box, ...]) -> Iterator[Place]:
        if box.call is not None or (kernels and box.across is not None):
            yield Place(box, around)
            return
        for inner in box.boxes:
            yield from walk(inner, (*around, box))

    return list(walk(diagram.box, ()))


def all_axes(diagram: Diagram) -> dict[int, list[tuple[str | None, ...]]]:
    """Return the axes of every value by number, as each box that has it names them."""
    found: dict[int, list[tuple[str | None, ...]]] = {}
    for box in diagram.walk():
        for value in (*box.inputs, *box.outputs, *box.parameters):
            names = found.setdefault(value.number, [])
            if value.axes not in names:
                names.append(value.axes)
    return found


def all_values(diagram: Diagram) -> dict[int, Value]:
    """Return every value by number, as the outermost box that has it names its axes."""
    found: dict[int, Value] = {}
    for box in diagram.walk():
        for value in (*box.inputs, *box.outputs, *box.parameters):
            found.setdefault(value.number, value)
    return found


def _with_gradient(diagram: Diagram, steps: list[Place]) -> set[int]:
    """Return the numbers of the values that a gradient flows through: trained parameters, and what depends on them."""
    found = {value.number for box in diagram.walk() for value in (*box.inputs, *box.parameters) if value.requires_grad}
    for step in steps:
        if step.box.call is None or not step.box.call.gradient:
            continue
        if any(value.number in found for value in step.box.inputs):
            found |= {value.number for value in step.box.outputs if value.dtype.is_floating_point}
    return found


def argument_wires(diagram: Diagram, box: Box) -> tuple[int, ...]:
    """Return the number of each tensor in the arguments of a box, in order, each time that it occurs."""
    return wires(diagram.arguments if box is diagram.box else box.given)


def _readers(steps: list[Place]) -> Mapping[int, list[Place]]:
    """Return the operations that read each value, by its number."""
    found: dict[int, list[Place]] = {}
    for step in steps:
        for value in step.box.inputs:
            found.setdefault(value.number, []).append(step)
    return found


def is_module(diagram: Diagram, box: Box) -> bool:
    """Return whether a box is a call of a module, at whose arguments and results something can be done."""
    return bool(box.path) or box is diagram.box


def returns(box: Box, value: Value) -> bool:
    """Return whether a box returns a tensor."""
    return any(output.number == value.number for output in box.outputs)


__all__ = ["Place", "Steps", "all_axes", "all_values", "argument_wires", "is_module", "places", "returns"]
