"""Over which mesh axes each tensor and operation of a forward and a reverse pass is split, from a plan.

A plan has the tensors of the forward pass. A cotangent is split as its primal. The tensors inside an operation and its
reverse are split along an axis of a name that is split, or else along the axis of their inputs at the same place.
"""

from circuits.cost import Operation, Timeline
from circuits.diagram import Value
from circuits.sharding.mesh import factors
from circuits.sharding.sharding import Sharding
from circuits.sharding.steps import all_values

Dims = dict[str, int]
"""The dimension along which each mesh axis splits a tensor."""


class Splits:
    """The mesh axes that split each tensor of a timeline, but for those over which each rank is given its part."""

    def __init__(self, plan: Sharding, timeline: Timeline, given: frozenset[str]) -> None:
        self.plan, self.timeline, self.given = plan, timeline, given
        self.known = set(all_values(plan.diagram))
        self.inferred: dict[int, Dims] = {}
        self.gathered: dict[int, set[str]] = {}
        for move in plan.moves:
            if move.at and move.pass_ == "forward" and (move.source, move.target) == ("split", "whole"):
                self.gathered.setdefault(move.value.number, set()).add(move.mesh_axis)
        for operation in timeline.operations:
            for value in operation.box.outputs:
                self._infer(operation, value)

    def of(self, number: int) -> frozenset[str]:
        """Return the mesh axes that divide the memory of a tensor; one that a module gathers is held whole."""
        gathered = self.gathered.get(self.timeline.primal.get(number, number), frozenset())
        return frozenset(self.dims(number)) - self.given - gathered

    def of_operation(self, operation: Operation) -> frozenset[str]:
        """Return the mesh axes that divide the FLOPs of an operation: those that split any of its tensors."""
        values = (*operation.box.inputs, *operation.box.outputs)
        return frozenset().union(*[self.dims(value.number) for value in values]) - self.given

    def dims(self, number: int) -> Dims:
        """Return the dimension along which each mesh axis splits a tensor."""
        number = self.timeline.primal.get(number, number)
        return dict(self.plan.dims.get(number, {})) if number in self.known else self.inferred.get(number, {})

    def _infer(self, operation: Operation, value: Value) -> None:
        """Find how a tensor is split that is not in the plan, from its names and the inputs of its operation."""
        number = self.timeline.primal.get(value.number, value.number)
        if number in self.known or number in self.inferred:
            return
        found: Dims = {}
        for mesh_axis in self.plan.choice.mesh:
            names = self.plan.choice.axes_over(mesh_axis)
            dim = next(
                (at for at, label in enumerate(value.axes) if factors(label)[:1] and factors(label)[0] in names), None
            )
            if dim is None:
                dim = self._as_inputs(operation, value, mesh_axis)
            if dim is not None:
                found[mesh_axis] = dim
        self.inferred[number] = found

    def _as_inputs(self, operation: Operation, value: Value, mesh_axis: str) -> int | None:
        """Return the dimension, counted from the last, along which an input of the same size there is split."""
        for source in operation.box.inputs:
            dim = self.dims(source.number).get(mesh_axis)
            if dim is None:
                continue
            place = dim - len(source.sizes)
            if -place <= len(value.sizes) and value.sizes[place] == source.sizes[dim]:
                return len(value.sizes) + place
        return None


__all__ = ["Splits"]
