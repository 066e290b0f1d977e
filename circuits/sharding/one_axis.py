"""How one axis of a mesh splits every tensor of a diagram, operation by operation."""

from collections.abc import Sequence
from dataclasses import replace

from circuits.diagram import Value
from circuits.errors import CircuitError
from circuits.naming import naming_rule
from circuits.sharding.across import dims_inside, is_index, kept_whole, moves_across, outputs_across
from circuits.sharding.between import Between, Change, MismatchError
from circuits.sharding.following import blocks_of, inside
from circuits.sharding.made import is_alike, is_random
from circuits.sharding.mesh import factors
from circuits.sharding.moves import Move
from circuits.sharding.named import Named
from circuits.sharding.rules import PARTIAL, NoPlacementError, Step, operation_of, outputs_of, rule_of
from circuits.sharding.steps import Place, Steps
from circuits.sharding.sums import Sums

SHARING = frozenset(["einsum", "torch_einsum", "attention"])
"""The rules of operations that each rank may run on its part of a whole tensor, with gradients of that part."""


class OneAxis:
    """The plan over one mesh axis; `plan` fills it.

    Attributes:
        dims: The dimension along which it splits each tensor, by number.
        axis: The name of the axis there.
        sums: The tensors of which each rank has a summand, until they are added up.
        between: The tensors between modules, which may be split along an axis of their own.
        moves: The communications of the forward pass.
        notes: What of the result depends on the ranks.
        shared: The gathering of the gradient of whole tensors of which each rank takes its part in an operation, by the
            `id` of its box and the number of the tensor.
        slices: The numbers of slices of whole parameters of which each rank takes its part, with the parameter's name.
        is_data: Whether the mesh axis splits no parameter, and no kernel reads across it.
    """

    def __init__(self, named: Named, steps: Steps, mesh_axis: str, changes: Sequence[Change] = ()) -> None:
        self.named, self.steps, self.mesh_axis = named, steps, mesh_axis
        self.ranks = named.choice.mesh[mesh_axis]
        self.dims: dict[int, int] = {}
        self.axis: dict[int, str] = {}
        self.sums = Sums(named.diagram, steps, mesh_axis)
        self.between = Between(named, mesh_axis, changes, self.axis)
        self.moves: list[Move] = []
        self.notes: list[str] = []
        self.slices: dict[int, str] = {}
        self.shared: dict[tuple[int, int], Move] = {}
        self.is_data = not steps.kernels and all(self._named(number) is None for number in named.parameters)

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

    def _named(self, number: int) -> tuple[int, str] | None:
        return self.named.dim(number, self.mesh_axis)

    def _set_named(self, number: int) -> None:
        found = self._named(number)
        if found is not None:
            self.dims[number], self.axis[number] = found
            if self.steps.kernels:  # both ends of an attention have names inside it
                self.axis[number] = self.named.outermost(number, self.mesh_axis) or found[1]

    def dim_at(self, place: Place, value: Value) -> int | None:
        """Return the dimension along which a tensor is split where an operation reads it."""
        dim = self.dims.get(value.number)
        return dim if self.between.axis is None else self.between.dim_at(place, value.number, dim)

    def axis_at(self, place: Place) -> str:
        """Return the name of the axis along which the inputs of an operation are split."""
        split = [value for value in place.box.inputs if self.dim_at(place, value) is not None]
        found = [axis for value in split for axis in self.axis.get(value.number, self.between.axis or "").split()]
        return " ".join(dict.fromkeys(found)) or " ".join(self.named.choice.axes_over(self.mesh_axis))

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
        step = Step(box, operation_of(box), given, self.ranks, lambda value, dim: self._split_too(place, value, dim))
        try:
            found = outputs_of(step)
        except NoPlacementError as error:
            raise self._stopped(place, str(error)) from None
        for value, dim in zip(box.outputs, found, strict=True):
            if blocks_of(dim) > max(map(blocks_of, given.values()), default=1) and not self.is_data:
                raise self.refused(
                    place,
                    f"it moves the axis inside a group, axis {dim:d} of {value}, where torch's views cannot split it: "
                    "split another axis over this mesh axis, such as that of hidden units, or the batch",
                )
            if dim == PARTIAL:
                if self._between_at(place):
                    raise self._stopped(place, f"it reads across {self.between.axis}")
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

    def _between_at(self, place: Place) -> tuple[Value, ...]:
        """Return the inputs of an operation that are split as tensors between modules."""
        if self.between.axis is None:
            return ()
        return tuple([
            value for value in place.box.inputs
            if self.dim_at(place, value) is not None
            and self.axis.get(value.number, self.between.axis) == self.between.axis
        ])  # fmt: skip

    def _stopped(self, place: Place, why: str) -> CircuitError | MismatchError:
        """Return the refusal of an operation, or what it needs whole that is split between modules."""
        split, error = self._between_at(place), self.refused(place, why)
        return MismatchError(place, split, (), error) if split else error

    def _make_part(self, place: Place, value: Value) -> None:
        """Split an output that has the axis over a mesh axis for data: each rank makes its own, of the size it sees."""
        found = self._named(value.number)
        if found is not None and not is_alike(place.box, value, found[0]):
            raise self.refused(
                place,
                f"each rank would make it with its own {found[1]}, as if its part were the first; give it to the model "
                "as an argument, of which each rank has its part",
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
            named = self._named(value.number)
            axis = None if named is None else named[1]
        else:
            axis = self.named.outermost(value.number, self.mesh_axis)
            if axis is not None and parameter is not None and is_index(place.box):
                self.slices[value.number], self.axis[value.number] = parameter, axis
                return
        if axis is not None:
            raise self.refused(place, f"its output has {axis}, and none of its inputs is split along it")

    def _split_too(self, place: Place, value: Value, dim: int) -> None:
        """Split a tensor that is whole as the tensors beside it are, if that is possible."""
        number = value.number
        if number in self.slices:
            return
        label = self.named.values[number].axes[dim] if number in self.named.parameters else None
        dim = inside(dim, max([blocks_of(self.dims.get(each.number)) for each in place.box.inputs]))
        is_named = label is not None and not {*factors(label)[:1]} & self.named.choice.whole
        is_free = number in self.named.parameters and not is_named and self.steps.readers[number][0] is place
        between = self._between_at(place)
        if is_free and not self.is_data and not between:
            if self.named.values[number].sizes[dim] % (self.ranks * blocks_of(dim)):
                raise self.refused(place, f"{self.named.what(number)} cannot be split into {self.ranks} equal parts")
            self.dims[number], self.axis[number] = dim, self.axis_at(place)
        elif number in self.steps.with_gradient or self.is_data:
            first = next(iter(factors(value.axes[dim])), "")
            if self._may_share(place, first):
                self._share(place, value, first)
                return
            hint = self._hint(place, first) if first and not first.isdigit() else ""
            error = self.refused(place, f"{self.named.what(number)} is whole, and what it meets is split{hint}")
            raise MismatchError(place, between, (value,), error) if between else error

    def _hint(self, place: Place, axis: str) -> str:
        """Return what would work where a tensor that has an axis is whole and meets parts."""
        hint = f": split {axis} over {self.mesh_axis} too"
        if rule_of(operation_of(place.box)) not in SHARING:
            return hint
        return f"{hint}, or keep it whole by {{'{axis}': None}}: each rank then takes what belongs to its part"

    def _may_share(self, place: Place, axis: str) -> bool:
        """Return whether each rank may take its part of an axis that is to be whole, as of keys for all its heads."""
        is_possible = rule_of(operation_of(place.box)) in SHARING and not self.is_data and self.between.axis is None
        return is_possible and bool(self.named.choice.whole) and (not axis or axis in self.named.choice.whole)

    def _share(self, place: Place, value: Value, axis: str) -> None:
        """Note that each rank takes its part of a whole tensor in an operation, and that its gradient is gathered."""
        at = next((each.path for each in reversed(place.around) if each.path), "")
        why, over = f"each takes a part of {axis or value}", self.mesh_axis
        gathered = Move(at, "inside", 0, over, "split", "whole", "backward", self.axis_at(place), why, 0, value)
        self.shared[id(place.box), value.number] = gathered
        whole = axis or " ".join(sorted(self.named.choice.whole))
        self.notes.append(f"{whole} is whole on every rank of {over}, which uses its part alone")

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
            raise self._stopped(place, str(error)) from None
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

    def refused(self, place: Place, why: str) -> CircuitError:
        """Return the error that names the axis, the mesh axis and the operation that stops the plan."""
        return CircuitError(f"{self.axis_at(place)} over {self.mesh_axis}: {place.name}: {why}")


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
