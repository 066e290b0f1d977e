"""How every tensor of a diagram is split, operation by operation, and the communications that follow from it."""

from collections.abc import Mapping
from math import prod

from circuits.diagram import Box, Size, Value
from circuits.errors import CircuitError
from circuits.naming import naming_rule
from circuits.sharding.mesh import factors
from circuits.sharding.moves import Move, Side
from circuits.sharding.named import Named
from circuits.sharding.rules import PARTIAL, NoPlacementError, Step, operation_of, outputs_of
from circuits.sharding.steps import Place, argument_wires, places, readers, with_gradient


class Planner:
    """The splits and communications over one mesh axis after another; `plan` fills it.

    Attributes:
        named: The names of axes, and the choice.
        dims: The dimension along which each mesh axis splits each tensor, by its number.
        axes: The name of the axis that each mesh axis splits in each tensor, by its number.
        moves: The communications.
        notes: What a reader of the plan has to know.
        data: The mesh axes that split no parameter: each rank computes with its own part of every input.
    """

    def __init__(self, named: Named) -> None:
        self.named, self.diagram = named, named.diagram
        self.steps = places(self.diagram)
        self.readers = readers(self.steps)
        self.gradients = with_gradient(self.diagram, self.steps)
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
        used = dict.fromkeys([each for over in self.named.choice.over.values() for each in over])
        for mesh_axis in self.named.choice.mesh:
            if mesh_axis in used:
                _OneAxis(self, mesh_axis).plan()

    def bytes(self, value: Value) -> Size:
        """Return the bytes of the part of a tensor that one rank has."""
        over = self.dims.get(value.number, {})
        ranks = prod([self.named.choice.mesh[each] for each in over])
        return prod(value.sizes) * value.dtype.itemsize / ranks

    def split(self, number: int, mesh_axis: str, dim: int, axis: str) -> None:
        """Note how a mesh axis splits a tensor."""
        self.dims.setdefault(number, {})[mesh_axis] = dim
        self.axes.setdefault(number, {})[mesh_axis] = axis

    def is_random(self, box: Box) -> bool:
        """Return whether an operation draws random numbers: dropout that is on, noise."""
        return naming_rule(box.call.function) == "random" and _draws(box)  # type: ignore[union-attr]


class _OneAxis:
    """The plan over one mesh axis."""

    def __init__(self, planner: Planner, mesh_axis: str) -> None:
        self.all, self.mesh_axis = planner, mesh_axis
        self.named = planner.named
        self.ranks = self.named.choice.mesh[mesh_axis]
        self.dims: dict[int, int] = {}
        self.axis: dict[int, str] = {}
        self.sums: set[int] = set()
        parameters = [number for number in self.named.parameters if self._named(number) is not None]
        self.is_data = not parameters

    def plan(self) -> None:
        """Split the inputs and parameters by their names, then what each operation computes."""
        for value in (*self.all.diagram.inputs, *[self.named.values[number] for number in self.named.parameters]):
            self._set_named(value.number)
        for step in self.all.steps:
            self._step(step)
        if self.is_data:
            self.all.data.append(self.mesh_axis)
        else:
            self._gradient_moves()
            self._result_moves()
        for number, dim in self.dims.items():
            self.all.split(number, self.mesh_axis, dim, self.axis[number])

    def _named(self, number: int) -> tuple[int, str] | None:
        return self.named.dim(number, self.mesh_axis)

    def _set_named(self, number: int) -> None:
        found = self._named(number)
        if found is not None:
            self.dims[number], self.axis[number] = found

    def _axis_at(self, place: Place) -> str:
        """Return the name of the axis along which the inputs of an operation are split."""
        found = [axis for value in place.box.inputs for axis in self.axis.get(value.number, "").split()]
        return " ".join(dict.fromkeys(found)) or " ".join(self.named.choice.axes_over(self.mesh_axis))

    # Forward

    def _step(self, place: Place) -> None:
        """Split the outputs of an operation."""
        box = place.box
        if self.all.is_random(box) and not self.is_data:
            raise self._refused(
                place,
                "it draws random numbers, alike or not on all ranks as their generators are: set its probability to 0, "
                "or call eval()",
            )
        given = {value.number: self.dims[value.number] for value in box.inputs if value.number in self.dims}
        step = Step(box, operation_of(box), given, self.ranks, lambda value, dim: self._split_too(place, value, dim))
        try:
            found = outputs_of(step)
        except NoPlacementError as error:
            raise self._refused(place, str(error)) from None
        for value, dim in zip(box.outputs, found, strict=True):
            if dim == PARTIAL:
                self._sum(place, value)
            elif isinstance(dim, int):
                self.dims[value.number], self.axis[value.number] = dim, self._axis_at(place)
            elif self.is_data:
                self._set_named(value.number)
            elif (named := self._named(value.number)) is not None and value.number in self.all.gradients:
                raise self._refused(place, f"its output has {named[1]}, and none of its inputs is split along it")

    def _split_too(self, place: Place, value: Value, dim: int) -> None:
        """Split a tensor that is whole as the tensors beside it are, if that is possible."""
        number = value.number
        label = self.named.values[number].axes[dim] if number in self.named.parameters else None
        is_free = number in self.named.parameters and label is None and number not in self._read_before(place)
        if is_free and not self.is_data:
            if self.named.values[number].sizes[dim] % self.ranks:
                raise self._refused(place, f"{self.named.what(number)} cannot be split into {self.ranks} equal parts")
            self.dims[number], self.axis[number] = dim, self._axis_at(place)
        elif number in self.all.gradients or self.is_data:
            first = factors(value.axes[dim])[:1]
            hint = f": split {first[0]} over {self.mesh_axis} too" if first and not first[0].isdigit() else ""
            raise self._refused(place, f"{self.named.what(number)} is whole, and what it meets is split{hint}")

    def _read_before(self, place: Place) -> set[int]:
        """Return the parameters that operations before this one read."""
        found: set[int] = set()
        for each in self.all.steps:
            if each is place:
                return found
            found |= {value.number for value in each.box.inputs if value.number in self.named.parameters}
        return found

    def _sum(self, place: Place, value: Value) -> None:
        """Plan the sum over ranks of a tensor of which each has a summand: at the end of the module that returns it."""
        if self.is_data:
            raise self._refused(place, f"it sums over {self._axis_at(place)}")
        module = next((box for box in reversed(place.around) if _returns(box, value)), None)
        if module is None or module.kind not in ("module", "circuit") or not _is_module(self.all, module):
            raise self._refused(
                place,
                "its result is a sum over ranks, which can be added up where a module returns, and no module returns "
                "it: make the operation a module of its own",
            )
        between = [each for each in self.all.readers.get(value.number, ()) if any(box is module for box in each.around)]
        if between:
            raise self._refused(place, f"its result is a sum over ranks, and {between[0].name} reads it before")
        index = [output.number for output in module.outputs].index(value.number)
        self.all.moves.append(
            Move(
                module.path, "results", index, self.mesh_axis, "partial", "whole", "forward",
                f"{place.box.label} sums over {self._axis_at(place)}", self.all.bytes(value), value,
            )
        )  # fmt: skip
        self.sums.add(value.number)

    # Backward

    def _gradient_moves(self) -> None:
        """Plan the sums over ranks of gradients: of tensors that are whole where what is computed from them is split."""
        for number, value in self.named.values.items():
            if number in self.dims or number not in self.all.gradients:
                continue
            partly = [each for each in self.all.readers.get(number, ()) if self._is_split(each)]
            if not partly:
                continue
            axis = self._axis_at(partly[0])
            if number in self.named.parameters:
                self._move("parameter", self.named.parameters[number], 0, value, axis)
                continue
            maker = self._maker_for_parts(number)
            if maker is not None:
                index = [output.number for output in maker.outputs].index(number)
                self._move("results", maker.path, index, value, axis)
                continue
            for module in self._modules_that_only_split(number, partly):
                self._move("arguments", module.path, argument_wires(self.all.diagram, module).index(number), value, axis)

    def _move(self, side: Side, at: str, index: int, value: Value, axis: str) -> None:
        """Plan the sum over ranks of a gradient."""
        why = f"every part of {axis} is computed from it"
        self.all.moves.append(
            Move(at, side, index, self.mesh_axis, "partial", "whole", "backward", why, self.all.bytes(value), value)
        )

    def _is_split(self, place: Place) -> bool:
        """Return whether an operation computes with parts, so that the gradients of its whole inputs are summands.

        The bias of a linear map whose result is a sum over ranks is added once, and has its whole gradient everywhere.
        """
        if naming_rule(place.box.call.function) == "linear" and place.box.outputs[0].number in self.sums:  # type: ignore[union-attr]
            return False
        return any(value.number in self.dims for value in place.box.inputs)

    def _modules_that_only_split(self, number: int, partly: list[Place]) -> list[Box]:
        """Return the outermost modules that are given a tensor and use it for parts alone, one for each use of parts."""
        found: list[Box] = []
        for place in partly:
            if any(box is known for box in place.around for known in found):
                continue
            module = next((box for box in place.around if self._only_splits(box, number)), None)
            if module is None:
                raise self._refused(
                    place,
                    "the gradients of its input have to be added up over ranks, which can be done where a module is "
                    "given it: make the operation a module of its own",
                )
            found.append(module)
        return found

    def _maker_for_parts(self, number: int) -> Box | None:
        """Return the module that returns a tensor of which nothing but parts is computed anywhere, if there is one."""
        made = [box for box in self.all.diagram.walk() if _is_module(self.all, box) and _returns(box, self.named.values[number])]
        outermost = made[0] if made and made[0] is not self.all.diagram.box else None
        if outermost is None:
            return None
        outside = [each for each in self.all.readers[number] if all(box is not outermost for box in each.around)]
        is_result = any(output.number == number for output in self.all.diagram.outputs)
        return outermost if all(self._is_split(each) for each in outside) and not is_result else None

    def _only_splits(self, module: Box, number: int) -> bool:
        """Return whether a module is given a tensor as an argument and computes nothing but parts from it."""
        if not _is_module(self.all, module) or number not in argument_wires(self.all.diagram, module):
            return False
        inside = [each for each in self.all.readers[number] if any(box is module for box in each.around)]
        returned = {value.number for value in module.outputs}
        return all(self._is_split(each) for each in inside) and number not in returned

    def _result_moves(self) -> None:
        """Plan to gather the outputs of the whole that are split."""
        for index, value in enumerate(self.all.diagram.outputs):
            if value.number in self.dims:
                self.all.moves.append(
                    Move(
                        "", "results", index, self.mesh_axis, "split", "whole", "forward",
                        f"the output has {self.axis[value.number]}", self.all.bytes(value) / self.ranks, value,
                    )
                )  # fmt: skip

    def _refused(self, place: Place, why: str) -> CircuitError:
        return CircuitError(f"{self._axis_at(place)} over {self.mesh_axis}: {place.name}: {why}")


def _is_module(planner: Planner, box: Box) -> bool:
    """Return whether a box is a call of a module, at whose arguments and results something can be done."""
    return bool(box.path) or box is planner.diagram.box


def _returns(box: Box, value: Value) -> bool:
    return any(output.number == value.number for output in box.outputs)


def _draws(box: Box) -> bool:
    """Return whether the arguments of dropout say that it drops anything."""
    operation = operation_of(box)
    if "dropout" not in box.label:
        return True
    probability, training = operation.get(1, "p", 0.5), operation.get(2, "training", True)
    return bool(probability) and bool(training)


__all__ = ["Planner"]
