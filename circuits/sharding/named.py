"""Where the axes that the user splits are, by their names, in the tensors of a diagram."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.sharding.following import inside
from circuits.sharding.mesh import Choice, factors
from circuits.sharding.steps import all_axes, all_values
from circuits.signature import parse_axes


class Named:
    """The names of the axes of every tensor of a diagram, and what the user's choice says of each.

    Attributes:
        diagram: The diagram.
        choice: What is split over which mesh axes.
        axes: The axes of each tensor by number, as each box that has it names them.
        values: The tensors by number, with the names in the outermost box.
        parameters: The dotted name of each parameter and buffer, by number.
    """

    def __init__(self, diagram: Diagram, names: Mapping[str, str]) -> None:
        self.diagram = diagram
        self.axes, self.values = all_axes(diagram), all_values(diagram)
        self.parameters = _parameters(diagram)
        for end, axes in names.items():
            self._name(end, [str(term) for term in parse_axes(axes)])
        self.sizes = self._sizes()
        self.choice = Choice({}, {})

    def choose(self, choice: Choice) -> None:
        """Set the choice.

        Raises:
            CircuitError: No tensor has an axis of a name in it, or a size is not divisible.
        """
        self.choice = choice
        between = {axis: (name,) for name, axis in choice.between.items()}
        for axis in (*choice.over, *choice.whole, *between):
            if axis not in self.sizes:
                known = ", ".join(sorted(self.sizes)) or "none: name those of the inputs, axes='b m'"
                raise CircuitError(
                    f"{axis}: no tensor of {self.diagram.name} has an axis of this name; there are {known}; "
                    "axes of parameters are named by names={'L1.weight': 'f m'}"
                )
        for axis, names in (*choice.over.items(), *between.items()):
            ranks, over = prod([choice.mesh[each] for each in names]), " ".join(names)
            for size, where in self.sizes[axis].items():
                if isinstance(size, int) and size % ranks:
                    raise CircuitError(
                        f"{axis} has size {size} in {where}, which the {ranks} ranks of {over} do not divide"
                    )

    def _name(self, end: str, axes: Sequence[str]) -> None:
        """Set the names of the axes of the parameters whose dotted names end in `end`."""
        numbers = [number for number, name in self.parameters.items() if f".{name}".endswith(f".{end}")]
        if not numbers:
            raise CircuitError(f"names: no parameter of {self.diagram.name} has a name that ends in {end}")
        for number in numbers:
            value = self.values[number]
            if len(axes) != len(value.axes):
                raise CircuitError(
                    f"names: {self.parameters[number]} has {len(value.axes)} axes, and {' '.join(axes)!r} names "
                    f"{len(axes)}"
                )
            self.values[number] = replace(value, axes=tuple(axes))
            self.axes[number] = [tuple(axes)]

    def _sizes(self) -> dict[str, dict[object, str]]:
        """Return the sizes of each axis by name, each with a tensor that has it; a group may hide its parts' sizes."""
        found: dict[str, dict[object, str]] = {}
        for number, labels in self.axes.items():
            for names in labels:
                for label, size in zip(names, self.values[number].sizes, strict=True):
                    parts = factors(label)
                    for part in parts:
                        if not part.isdigit():
                            known = found.setdefault(part, {})
                            if len(parts) == 1:
                                known.setdefault(size, self.what(number))
        return found

    def what(self, number: int) -> str:
        """Return what a tensor is called in messages."""
        value = self.values[number]
        name = self.parameters.get(number) or value.name
        return f"{name} ({value})" if name else f"the tensor {value}"

    def outermost(self, number: int, mesh_axis: str) -> str | None:
        """Return an axis of a tensor that is split over a mesh axis, by the names in the outermost box that has it."""
        over = self.choice.axes_over(mesh_axis)
        return next((each for label in self.values[number].axes for each in factors(label) if each in over), None)

    def dim_between(self, number: int, mesh_axis: str) -> int | None:
        """Return the dimension along which a mesh axis splits a tensor that is between modules; None if it is whole.

        The names in the outermost box that has it count: inside an attention its two ends have others.
        """
        axis = self.choice.between.get(mesh_axis)
        labels = self.values[number].axes if axis is not None else ()
        found = [dim for dim, label in enumerate(labels) if factors(label)[:1] == (axis,)]
        return found[0] if len(found) == 1 else None

    def dim(self, number: int, mesh_axis: str) -> tuple[int, str] | None:
        """Return the dimension along which a tensor is split over a mesh axis, by its names, and the name there.

        Raises:
            CircuitError: Two of its axes are split over the mesh axis, or one that is inside a group.
        """
        found: dict[int, str] = {}
        for axis in self.choice.axes_over(mesh_axis):
            for labels in self.axes.get(number, ()):
                for dim, label in enumerate(labels):
                    parts = factors(label)
                    if axis not in parts:
                        continue
                    outer = parts[: parts.index(axis)]
                    if not all(part.isdigit() for part in outer):
                        raise CircuitError(
                            f"{axis} is inside {label} of {self.what(number)}, and each rank holds one block of an "
                            f"axis: of a group only the first, {parts[0]}, can be split, or one after a number, (3 h k)"
                        )
                    found[inside(dim, prod([int(part) for part in outer]))] = axis
        if len(found) > 1:
            pairs = " and ".join([f"{axis} (axis {dim})" for dim, axis in found.items()])
            raise CircuitError(
                f"{self.what(number)} has {pairs}, and {mesh_axis} can split one of them: give one of the two another "
                "name (names={'weight': 'm n'}) or another mesh axis"
            )
        return next(iter(found.items()), None)


def _parameters(diagram: Diagram) -> dict[int, str]:
    """Return the dotted name of each parameter and buffer that the run reads, by number."""
    return {
        value.number: value.name
        for box in diagram.walk()
        for value in (*box.inputs, *box.parameters)
        if value.number in diagram.state or value.role in ("parameter", "buffer")
    }


__all__ = ["Named"]
