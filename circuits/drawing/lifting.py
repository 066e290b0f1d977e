"""The axes of a tensor inside and outside `torch.vmap`: inside, the axes that vmap hides come first."""

from dataclasses import replace

from circuits.diagram import Value
from circuits.drawing.scene import Wire


def inside_axes(wires: tuple[Wire, ...], inside: Value, dim: int | None) -> tuple[Wire, ...]:
    """Return the wires of a tensor that enters vmap, with the places that its axes have inside.

    Args:
        wires: Its wires outside.
        inside: The tensor inside, whose last hidden axis is the new one.
        dim: The axis that vmap hides, among those that are not hidden outside; None if it hides none.
    """
    if dim is None or not inside.sizes:
        return wires
    return _moved(wires, inside.mapped - 1 + dim, inside.mapped - 1)


def outside_axes(wires: tuple[Wire, ...], inside: Value, outside: Value) -> tuple[Wire, ...]:
    """Return the wires of a result of vmap, with the places that its axes have outside.

    The place of the axis that was hidden is the one that gives the names and sizes outside.
    """
    if len(inside.sizes) != len(outside.sizes) or inside.mapped <= outside.mapped:
        return wires
    hidden = inside.mapped - 1
    for place in range(hidden, len(inside.sizes)):
        order = [*range(hidden), *range(hidden + 1, len(inside.sizes))]
        order.insert(place, hidden)
        if [inside.sizes[axis] for axis in order] == list(outside.sizes) and _same_names(inside, outside, order):
            return _moved(wires, hidden, place)
    return wires


def _same_names(inside: Value, outside: Value, order: list[int]) -> bool:
    """Return whether no axis has two names."""
    pairs = [(inside.axes[axis], name) for axis, name in zip(order, outside.axes, strict=True)]
    return all(one == two or one is None or two is None for one, two in pairs)


def _moved(wires: tuple[Wire, ...], old: int, new: int) -> tuple[Wire, ...]:
    """Return wires with the axis at place `old` moved to place `new`, and those between by one."""

    def place(axis: int) -> int:
        if axis == old:
            return new
        return axis + (new <= axis < old) - (old < axis <= new)

    return tuple([replace(wire, axes=tuple(sorted([place(axis) for axis in wire.axes]))) for wire in wires])


__all__ = ["inside_axes", "outside_axes"]
