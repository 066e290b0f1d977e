"""How one axis of a mesh splits tensors, as far as it is planned: what `one_axis` fills, and `meeting` reads."""

from collections.abc import Sequence

from circuits.diagram import Value
from circuits.errors import CircuitError
from circuits.sharding.between import Between, Change, MismatchError
from circuits.sharding.moves import Move
from circuits.sharding.named import Named
from circuits.sharding.steps import Place, Steps
from circuits.sharding.sums import Sums


class AxisState:
    """The plan over one mesh axis, as far as it is made.

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
        self.is_data = not steps.kernels and all(self.named_dim(number) is None for number in named.parameters)

    def named_dim(self, number: int) -> tuple[int, str] | None:
        """Return the dimension along which a tensor is split by its names, and the name there."""
        return self.named.dim(number, self.mesh_axis)

    def dim_at(self, place: Place, value: Value) -> int | None:
        """Return the dimension along which a tensor is split where an operation reads it."""
        dim = self.dims.get(value.number)
        return dim if self.between.axis is None else self.between.dim_at(place, value.number, dim)

    def axis_at(self, place: Place) -> str:
        """Return the name of the axis along which the inputs of an operation are split."""
        split = [value for value in place.box.inputs if self.dim_at(place, value) is not None]
        found = [axis for value in split for axis in self.axis.get(value.number, self.between.axis or "").split()]
        return " ".join(dict.fromkeys(found)) or " ".join(self.named.choice.axes_over(self.mesh_axis))

    def between_at(self, place: Place) -> tuple[Value, ...]:
        """Return the inputs of an operation that are split as tensors between modules."""
        if self.between.axis is None:
            return ()
        return tuple([
            value for value in place.box.inputs
            if self.dim_at(place, value) is not None
            and self.axis.get(value.number, self.between.axis) == self.between.axis
        ])  # fmt: skip

    def stopped(self, place: Place, why: str) -> CircuitError | MismatchError:
        """Return the refusal of an operation, or what it needs whole that is split between modules."""
        split, error = self.between_at(place), self.refused(place, why)
        return MismatchError(place, split, (), error) if split else error

    def refused(self, place: Place, why: str) -> CircuitError:
        """Return the error that names the axis, the mesh axis and the operation that stops the plan."""
        return CircuitError(f"{self.axis_at(place)} over {self.mesh_axis}: {place.name}: {why}")


__all__ = ["AxisState"]
