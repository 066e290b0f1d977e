"""How every tensor of a diagram is split over a mesh, and the communications that follow from it.

Each axis of the mesh is planned by itself: `OneAxis` goes through the operations, `gradient_moves` adds the sums of
gradients.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import Any

from circuits.diagram import Size, Value
from circuits.errors import CircuitError
from circuits.sharding.across import reads_across
from circuits.sharding.between import Change, MismatchError
from circuits.sharding.gradients import gradient_moves
from circuits.sharding.moves import Move, sent_by
from circuits.sharding.named import Named
from circuits.sharding.one_axis import OneAxis
from circuits.sharding.repairs import change_moves, changes_for
from circuits.sharding.steps import Steps


class Planner:
    """The splits and communications over all axes of a mesh; `plan` fills it.

    Attributes:
        named: The names of axes, and the choice.
        dims: The dimension along which each mesh axis splits each tensor, by its number.
        axes: The name of the axis that each mesh axis splits in each tensor, by its number.
        moves: The communications.
        notes: What of the result depends on the ranks.
        data: The mesh axes that split no parameter: each rank computes with its own part of every input.
    """

    def __init__(self, named: Named) -> None:
        self.named = named
        self.steps = Steps(named.diagram)
        self.dims: dict[int, dict[str, int]] = {}
        self.axes: dict[int, dict[str, str]] = {}
        self.moves: list[Move] = []
        self.notes: list[str] = []
        self.data: list[str] = []

    def plan(self) -> None:
        """Fill the plan.

        Raises:
            CircuitError: An operation cannot run on tensors that are split as the choice says.
        """
        used = {each for over in self.named.choice.over.values() for each in over}
        moves: list[Move] = []
        for mesh_axis in self.named.choice.mesh:
            if mesh_axis not in used:
                continue
            kernels = Steps(self.named.diagram, kernels=True)
            steps = kernels if reads_across(self.named, kernels, mesh_axis) else self.steps
            one = self._over(mesh_axis, steps)
            moves += one.moves
            self.notes += dict.fromkeys(one.notes)
            if one.is_data:
                self.data.append(mesh_axis)
            else:
                moves += [*change_moves(one), *gradient_moves(one), *one.result_moves()]
            for number, dim in one.dims.items():
                self.dims.setdefault(number, {})[mesh_axis] = dim
                self.axes.setdefault(number, {})[mesh_axis] = one.axis[number]
        self.moves = [replace(move, bytes=self._sent(move)) for move in moves]

    def _over(self, mesh_axis: str, steps: Steps) -> OneAxis:
        """Return the plan over one mesh axis, made again as often as a tensor between modules has to be changed."""
        changes: list[Change] = []
        while True:
            one = OneAxis(self.named, steps, mesh_axis, changes)
            if one.between.axis is not None and (steps.kernels or one.is_data):
                raise CircuitError(f"between: {mesh_axis} splits no module, and {one.between.axis} can be split itself")
            try:
                one.plan()
            except MismatchError as found:
                changes += changes_for(one, found)
            else:
                return one

    def _sent(self, move: Move) -> Size:
        """Return the bytes that one rank sends."""
        if not move.is_sent:
            return 0
        if move.sent:
            return sum([self.bytes(value, self.split_by(value)) * count for value, count in move.sent])
        return self.bytes(move.value, sent_by(move, self.split_by(move.value)))

    def split_by(self, value: Value) -> frozenset[str]:
        """Return the mesh axes that split a tensor."""
        return frozenset(self.dims.get(value.number, {}))

    def bytes(self, value: Value, axes: Iterable[str]) -> Size:
        """Return the bytes of the part of a tensor that one rank has if mesh axes split it."""
        ranks = prod([self.named.choice.mesh[each] for each in axes])
        size: Any = prod(value.sizes) * value.dtype.itemsize
        return size // ranks if isinstance(size, int) else size / ranks


__all__ = ["Planner"]
