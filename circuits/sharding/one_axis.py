"""How one axis of a mesh splits every tensor of a diagram, operation by operation."""

from collections.abc import Mapping
from dataclasses import replace

from circuits.diagram import Value
from circuits.naming import naming_rule
from circuits.sharding.across import dims_inside, is_index, kept_whole, moves_across, outputs_across
from circuits.sharding.axis_state import AxisState
from circuits.sharding.following import blocks_of
from circuits.sharding.made import is_alike, is_random
from circuits.sharding.meeting import split_too
from circuits.sharding.moves import Move
from circuits.sharding.rules import PARTIAL, Dim, NoPlacementError, Step, operation_of, outputs_of
from circuits.sharding.steps import Place


class OneAxis(AxisState):
    """The plan over one mesh axis; `plan` fills it."""

    def plan(self) -> None:
        """Split the inputs and parameters by their names, then what each operation computes."""
        whole = kept_whole(self.steps) if self.steps.kernels else set()
        for number in (*[value.number for value in self.named.diagram.inputs], *self.named.parameters):
            if number not in whole:
                self._set_named(number)
        for value in self.named.diagram.inputs:
            dim = None if value.number in self.dims else self.between.of_input(value.number)
            if dim is not None:
                self.dims[value.number], self.axis[value.number] = dim, str(self.between.axis)
        for place in self.steps.places:
            self._step(place)

    def _set_named(self, number: int) -> None:
        found = self.named_dim(number)
        if found is not None:
            self.dims[number], self.axis[number] = found
            if self.steps.kernels:  # both ends of an attention have names inside it
                self.axis[number] = self.named.outermost(number, self.mesh_axis) or found[1]

    def _step(self, place: Place) -> None:
        """Split the outputs of an operation."""
        box = place.box
        if self.is_data:
            self.notes += _notes(place, self.axis_at(place))
        elif any(is_random(each) for each in box.walk() if each.call is not None):
            raise self.refused(
                place,
                "it draws random numbers, alike or not on all ranks as their generators are: set its probability to 0, "
                "or call eval()",
            )
        if box.call is None:
            self._kernel(place)
            return
        if any(value.number in self.sums.later for value in box.inputs):
            for value in box.outputs:
                self._sum(place, value)
            return
        given = {value.number: dim for value in box.inputs if (dim := self.dim_at(place, value)) is not None}
        step = Step(box, operation_of(box), given, self.ranks, lambda value, dim: split_too(self, place, value, dim))
        try:
            found = outputs_of(step)
        except NoPlacementError as error:
            raise self.stopped(place, str(error)) from None
        for value, dim in zip(box.outputs, found, strict=True):
            self._output(place, value, dim, given)

    def _output(self, place: Place, value: Value, dim: Dim, given: Mapping[int, int]) -> None:
        """Split one output of an operation, whose inputs are split as in `given`, along the dimension of its rule."""
        if blocks_of(dim) > max(map(blocks_of, given.values()), default=1) and not self.is_data:
            raise self.refused(
                place,
                f"it moves the axis inside a group, axis {dim:d} of {value}, where torch's views cannot split it: "
                "split another axis over this mesh axis, such as that of hidden units, or the batch",
            )
        if dim == PARTIAL:
            if self.between_at(place):
                raise self.stopped(place, f"it reads across {self.between.axis}")
            self._sum(place, value)
        elif isinstance(dim, int):
            self.dims[value.number], self.axis[value.number] = dim, self.axis_at(place)
            if self.between.axis is not None and self.between.returned(place, value, dim) is None:
                del self.dims[value.number]
        elif self.is_data:
            self._make_part(place, value)
        elif (after := self.between.returned(place, value, None)) is not None:
            self.dims[value.number], self.axis[value.number] = after, str(self.between.axis)
        elif value.number in self.steps.with_gradient:
            self._keep_whole(place, value)

    def _make_part(self, place: Place, value: Value) -> None:
        """Split an output that has the axis over a mesh axis for data: each rank makes its own, of the size it sees."""
        found = self.named_dim(value.number)
        if found is not None and not is_alike(place.box, value, found[0]):
            raise self.refused(
                place,
                f"each rank would make it with its own {found[1]}, as if its part were the first: give it to the model "
                "as an argument, of which each rank has its part, or split another axis, such as the batch",
            )
        self._set_named(value.number)

    def _kernel(self, place: Place) -> None:
        """Split the outputs of a kernel that reads across the axis, and plan what it sends."""
        axis = self.axis_at(place)
        over = max([self.named.choice.over[each] for each in axis.split()], key=len)
        try:
            found = outputs_across(place.box, self.dims, over, self.named, self.steps.with_gradient)
        except NoPlacementError as error:
            raise self.refused(place, str(error)) from None
        split = {value.number: dim for value, dim in zip(place.box.outputs, found, strict=True) if dim is not None}
        if split:
            split |= dims_inside(place.box, self.dims | split)
            self.dims |= split
            self.axis |= dict.fromkeys(split, axis)
            self.moves += moves_across(place, self.mesh_axis, self.ranks, axis, self.steps.with_gradient)

    def _keep_whole(self, place: Place, value: Value) -> None:
        """Refuse a tensor that is whole and has an axis that is split, unless it is a slice of a parameter.

        Beside a kernel that reads across axes only the outermost names count: inside an attention its two ends have
        names of their own, of which one may be split elsewhere.
        """
        parameter = self.named.parameters.get(place.box.inputs[0].number) if place.box.inputs else None
        if not self.steps.kernels:
            named = self.named_dim(value.number)
            axis = None if named is None else named[1]
        else:
            axis = self.named.outermost(value.number, self.mesh_axis)
            if axis is not None and parameter is not None and is_index(place.box):
                self.slices[value.number], self.axis[value.number] = parameter, axis
                return
        if axis is not None:
            raise self.refused(place, f"its output has {axis}, and none of its inputs is split along it")

    def _sum(self, place: Place, value: Value) -> None:
        """Plan the sum over ranks of a tensor of which each has a summand: at the end of the module that returns it."""
        if self.is_data:
            raise self.refused(place, f"it sums over {self.axis_at(place)}")
        module = self.between.module_of(place, value)
        is_whole = module is None or self.between.is_gathered(module, value)
        dim = None if is_whole else self.named.dim_between(value.number, self.mesh_axis)
        try:
            move = self.sums.move(place, value, self.axis_at(place), dim)
        except NoPlacementError as error:
            raise self.stopped(place, str(error)) from None
        if move is None:
            return
        self.moves.append(move)
        if dim is not None:
            self.dims[value.number], self.axis[value.number] = dim, str(self.between.axis)
            if value.number in self.steps.with_gradient:
                why = f"each has a part of {self.between.axis}"
                gathered = replace(move, source="split", target="whole", pass_="backward", why=why, dim=None)
                self.moves.append(replace(gathered, axis=str(self.between.axis)))

    def result_moves(self) -> list[Move]:
        """Return the gatherings of outputs of the whole that are split."""
        return [
            Move(
                "", "results", index, self.mesh_axis, "split", "whole", "forward",
                self.axis[value.number], f"the output has {self.axis[value.number]}", 0, value,
            )
            for index, value in enumerate(self.named.diagram.outputs)
            if value.number in self.dims
        ]  # fmt: skip


def _notes(place: Place, axis: str) -> list[str]:
    """Return what of an operation on each rank's own part of the data is not as on the whole."""
    operation = operation_of(place.box)
    name = naming_rule(operation.function)
    if name == "batch_norm" and operation.get(5, "training", False):
        return [
            f"{place.where}: its statistics are those of each rank's part of {axis}; on CUDA "
            "nn.SyncBatchNorm.convert_sync_batchnorm makes them those of all ranks"
        ]
    if is_random(place.box):
        return [f"{place.where}: it draws alike on ranks whose generators have the same seed"]
    return []


__all__ = ["OneAxis"]
