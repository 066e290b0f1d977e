"""The tensors of which each rank of a mesh axis has a summand: where they are added up."""

from circuits.diagram import Diagram, Value
from circuits.sharding.moves import Move
from circuits.sharding.rules import NoPlacementError, moves_elements
from circuits.sharding.steps import Place, Steps, is_module, returns


class Sums:
    """The tensors of which each rank of one mesh axis has a summand.

    Attributes:
        numbers: Their numbers.
        later: The numbers of those that are moved, by a view for instance, before they are added up.
    """

    def __init__(self, diagram: Diagram, steps: Steps, mesh_axis: str) -> None:
        self.diagram, self.steps, self.mesh_axis = diagram, steps, mesh_axis
        self.numbers: set[int] = set()
        self.later: set[int] = set()

    def move(self, place: Place, value: Value, axis: str, dim: int | None) -> Move | None:
        """Return the sum of a tensor over ranks, at the end of the module that returns it; None if it is added later.

        Args:
            place: The operation that computes the summands.
            value: The tensor.
            axis: The axis that is summed.
            dim: The dimension along which each rank has a part of the sum; None if each has all of it.

        Raises:
            NoPlacementError: No module returns the tensor, or it is read before.
        """
        self.numbers.add(value.number)
        module = next((box for box in reversed(place.around) if returns(box, value)), None)
        if module is None and _is_moved(self.steps, value):
            self.later.add(value.number)
            return None
        if module is None or module.kind not in ("module", "circuit") or not is_module(self.diagram, module):
            raise NoPlacementError(
                "its result is a sum over ranks, which can be added up where a module returns, and no module returns "
                "it: make the operation a module of its own"
            )
        between = [
            each for each in self.steps.readers.get(value.number, ()) if any(box is module for box in each.around)
        ]
        if between:
            raise NoPlacementError(f"its result is a sum over ranks, and {between[0].name} reads it before")
        index = [output.number for output in module.outputs].index(value.number)
        return Move(
            module.path, "results", index, self.mesh_axis, "partial", "whole" if dim is None else "split", "forward",
            axis, f"{place.box.label} sums over {axis}", 0, value, dim=dim,
        )  # fmt: skip


def _is_moved(steps: Steps, value: Value) -> bool:
    """Return whether one operation alone reads a tensor, and only moves its elements."""
    readers = steps.readers.get(value.number, ())
    return len(readers) == 1 and moves_elements(readers[0].box)


__all__ = ["Sums"]
