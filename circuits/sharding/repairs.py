"""How a plan is mended where an operation cannot read a tensor between modules as it is, and what that communicates."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from circuits.diagram import Box, Value
from circuits.sharding.between import Change, MismatchError, Target, numbers_at, pattern_of
from circuits.sharding.gradients import is_split
from circuits.sharding.moves import Move
from circuits.sharding.one_axis import OneAxis
from circuits.sharding.steps import Place, argument_wires, is_module


def changes_for(one: OneAxis, found: MismatchError) -> list[Change]:
    """Return changes with which an operation can read its inputs: of one module, and of all in the same situation.

    Args:
        one: The plan over one mesh axis as far as it was made.
        found: The operation, and what it needs.

    Raises:
        CircuitError: There are none.
    """
    known = {(each.path, each.side, each.index) for each in one.between.changes}
    possible = [
        *[(each, value) for value in found.split for each in _splitting(one, found.place, value)],
        *[(each, value) for value in found.whole for each in _gathering(one, found.place, value)],
    ]
    for change, value in possible:
        if (change.path, change.side, change.index) not in known:
            alike = _alike(one, change, value)
            return [each for each in alike if (each.path, each.side, each.index) not in known]
    raise found.error from None


def _alike(one: OneAxis, change: Change, value: Value) -> list[Change]:
    """Return a change for each repeated module whose tensor at this place is read alike."""
    diagram, expected = one.named.diagram, _reading(one, value.number)
    found = [change]
    for box in diagram.walk():
        if box.path != change.path and is_module(diagram, box) and pattern_of(box.path) == pattern_of(change.path):
            numbers = numbers_at(diagram, box, change.side)
            if change.index < len(numbers) and _reading(one, numbers[change.index]) == expected:
                found.append(replace(change, path=box.path))
    return found


def _reading(one: OneAxis, number: int) -> list[tuple[str, str]]:
    """Return what reads a tensor: the operations, and the modules around them, with `*` for numbers."""
    readers = one.steps.readers.get(number, ())
    return sorted([(each.box.label, pattern_of(each.around[-1].path)) for each in readers])


def _splitting(one: OneAxis, place: Place, value: Value) -> Iterator[Change]:
    """Yield changes after which each rank has its part of a whole tensor: where it is returned, or given."""
    if one.named.dim_between(value.number, one.mesh_axis) is None:
        return
    yield from _returned(one, value, "split")
    for box in _given(one, place, value):
        yield Change(box.path, "arguments", _argument(one, box, value), "split")


def _gathering(one: OneAxis, place: Place, value: Value) -> Iterator[Change]:
    """Yield changes after which a tensor is whole: an input as it is given, or where it is given, or returned.

    A module that gathers it needs the whole in all of its operations; the fewest modules are taken.
    """
    inputs = argument_wires(one.named.diagram, one.named.diagram.box)
    if value.number in inputs:
        yield Change("", "arguments", inputs.index(value.number), "whole")
    readers = [each for each in one.steps.readers[value.number] if _needs_whole(one, each, place)]
    modules = [box for box in _given(one, place, value) if _reads_whole(one, box, value, place)]
    if modules and all(any(box is modules[0] for box in each.around) for each in readers):
        yield Change(modules[0].path, "arguments", _argument(one, modules[0], value), "whole")
    if len(readers) == len(one.steps.readers[value.number]):
        yield from _returned(one, value, "whole")
    for box in modules:
        yield Change(box.path, "arguments", _argument(one, box, value), "whole")


def _needs_whole(one: OneAxis, reader: Place, place: Place) -> bool:
    """Return whether an operation cannot read a part: `place`, and what has a parameter that is split."""
    return reader is place or any(
        each.number in one.named.parameters and each.number in one.dims for each in reader.box.inputs
    )


def _reads_whole(one: OneAxis, box: Box, value: Value, place: Place) -> bool:
    """Return whether all operations of a module that read a tensor need it whole, and the module does not return it."""
    inside = [each for each in one.steps.readers[value.number] if any(outer is box for outer in each.around)]
    returned = any(output.number == value.number for output in box.outputs)
    return not returned and all(_needs_whole(one, each, place) for each in inside)


def _given(one: OneAxis, place: Place, value: Value) -> list[Box]:
    """Return the modules around an operation that are given a tensor, the outermost first."""
    diagram = one.named.diagram
    modules = [box for box in place.around if is_module(diagram, box) and box is not diagram.box]
    return [box for box in modules if value.number in argument_wires(diagram, box)]


def _argument(one: OneAxis, box: Box, value: Value) -> int:
    return argument_wires(one.named.diagram, box).index(value.number)


def _returned(one: OneAxis, value: Value, target: Target) -> Iterator[Change]:
    """Yield the change of a tensor where the innermost module returns it, if one does."""
    place = one.steps.maker(value.number)
    module = None if place is None else one.between.module_of(place, value)
    if module is not None:
        index = [output.number for output in module.outputs].index(value.number)
        yield Change(module.path, "results", index, target)


def change_moves(one: OneAxis) -> list[Move]:
    """Return what the changes communicate, in both passes.

    Raises:
        CircuitError: A gradient would be a sum over ranks in one operation, and whole in another.
    """
    found: list[Move] = []
    for (change, *_), (box, value, dim) in one.between.made.items():
        inside = [
            each for each in one.steps.readers.get(value.number, ())
            if any(outer is box for outer in each.around) == (change.side == "arguments")
        ]  # fmt: skip
        found += _moves(one, change, box, value, dim, inside)
    return found


def _moves(
    one: OneAxis, change: Change, box: Box, value: Value, dim: int | None, readers: Sequence[Place]
) -> Iterator[Move]:
    """Yield the moves of one change; `readers` are the operations that read the tensor as it is afterwards."""
    axis, over = str(one.between.axis), one.mesh_axis
    has_gradient = value.number in one.steps.with_gradient
    place = change.side, change.index
    if dim is not None:
        why = f"it meets parts of {axis}"
        yield Move(box.path, *place, over, "whole", "split", "forward", axis, why, 0, value, dim=dim)
        if has_gradient:
            why = f"each takes a part of {axis}"
            yield Move(box.path, *place, over, "split", "whole", "backward", axis, why, 0, value)
        return
    why = f"all of {axis} is needed"
    yield Move(box.path, *place, over, "split", "whole", "forward", axis, why, 0, value)
    partly = [each for each in readers if is_split(one, each)]
    if has_gradient and partly:
        if len(partly) < len(readers):
            other = next(each for each in readers if each not in partly)
            raise one.refused(
                partly[0],
                f"{one.named.what(value.number)} is gathered at {box.path}, where {other.name} reads it too, which is "
                "not split: make one of the two a module of its own",
            )
        split = one.axis_at(partly[0])
        why = f"parts of {split} come from it"
        yield Move(box.path, *place, over, "partial", "split", "backward", split, why, 0, value)


__all__ = ["change_moves", "changes_for"]
