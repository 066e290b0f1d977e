"""Kernels that take tensors split along axes which they read across, as ring attention does, in the plan of one axis.

The box of such a circuit is planned as one step: its inputs are split along these axes, all of them, its output too,
and what its ranks send is in the plan. What the kernel reads beside them, as masks, is whole on every rank.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from circuits.diagram import Box, Value
from circuits.errors import CircuitError
from circuits.naming import naming_rule
from circuits.sharding.mesh import factors
from circuits.sharding.moves import Move
from circuits.sharding.named import Named
from circuits.sharding.rules import NoPlacementError, Step, operation_of, outputs_of
from circuits.sharding.steps import Place, Steps

if TYPE_CHECKING:
    from circuits.sharding.one_axis import OneAxis


def reads_across(named: Named, steps: Steps, mesh_axis: str) -> bool:
    """Return whether the split of the inputs reaches a kernel along the axes that it reads across.

    Args:
        named: The names of axes, and the choice.
        steps: The operations, with such kernels as one.
        mesh_axis: The mesh axis.
    """
    dims: dict[int, int] = {}
    whole = kept_whole(steps)
    for value in named.diagram.inputs:
        found = None if value.number in whole else named.dim(value.number, mesh_axis)
        if found is not None:
            dims[value.number] = found[0]
    for place in steps.places:
        box = place.box
        if box.across is not None:
            given = [dims.get(value.number) for value in box.inputs]
            if any(dim == where for dim, where in zip(given, _dims(box), strict=False)):
                return True
            found = [given[0]] if given else []
        else:
            split = {value.number: dims[value.number] for value in box.inputs if value.number in dims}
            try:
                found = outputs_of(Step(box, operation_of(box), split, 1, lambda value, dim: None))
            except NoPlacementError:
                continue
        dims |= {value.number: dim for value, dim in zip(box.outputs, found, strict=True) if isinstance(dim, int)}
    return False


def kept_whole(steps: Steps) -> set[int]:
    """Return the numbers of the tensors that stay whole, whatever their axes: those of masks, and tables of positions.

    Kernels of this kind need masks whole, and with them what masks are computed from. Of a parameter that is indexed
    each rank may need any part.
    """
    found = {value.number for place in steps.places for value in _beside(place.box)}
    for place in reversed(steps.places):
        if place.box.across is None and any(value.number in found for value in place.box.outputs):
            found |= {value.number for value in place.box.inputs}
        if is_index(place.box):
            found |= {value.number for value in place.box.inputs if value.role == "parameter"}
    return found


def is_index(box: Box) -> bool:
    """Return whether an operation indexes a tensor."""
    return box.call is not None and naming_rule(box.call.function) == "index"


def plan_across(one: "OneAxis", place: Place) -> None:
    """Split the output of such a kernel as its inputs are, and plan what its ranks send.

    Raises:
        CircuitError: Not all inputs are split along these axes, they are split over several mesh axes, a mask is split
            or needs a gradient, or random numbers are drawn.
    """
    box, dims = place.box, _dims(place.box)
    tensors = box.inputs[: len(dims)]
    given = [one.dims.get(value.number) for value in tensors]
    if not any(value.number in one.dims for value in box.inputs):
        return
    if given != dims:
        raise _refused_split(one, place, given, dims)
    for axis in one.axis_at(place).split():
        if len(one.named.choice.over[axis]) > 1:
            raise one.refused(place, f"it reads across {axis}, which can be split over one mesh axis here")
    for value in _beside(box):
        if value.number in one.dims or value.number in one.steps.with_gradient:
            why = "is split" if value.number in one.dims else "needs a gradient"
            raise one.refused(place, f"{one.named.what(value.number)} {why}, and masks have to be whole and constant")
    signature, across = box.signature, box.across
    assert signature is not None  # noqa: S101
    assert across is not None  # noqa: S101
    for value, axes in zip(box.outputs, signature.outputs, strict=True):
        one.dims[value.number], one.axis[value.number] = len(value.axes) + across.dim(axes), one.axis_at(place)
    one.moves += _moves(one, place)


def _moves(one: "OneAxis", place: Place) -> Iterator[Move]:
    """Yield what the ranks send in a kernel."""
    box = place.box
    assert box.across is not None  # noqa: S101
    values = (*box.inputs[: len(_dims(box))], *box.outputs)
    sends = box.across.sends(ranks=one.ranks, dtype=values[0].dtype, **_options(box))
    at = next((each.path for each in reversed(place.around) if each.path), "")
    for source, target, pass_, times, why in sends:
        if pass_ == "forward" or values[-1].number in one.steps.with_gradient:
            sent = tuple([(value, count) for value, count in zip(values, times, strict=True) if count])
            route: Any = {"source": source, "target": target, "pass_": pass_, "why": why, "sent": sent}
            inside: Any = {"side": "inside", "index": 0, "axis": one.axis_at(place), "value": sent[0][0]}
            yield Move(at=at, mesh_axis=one.mesh_axis, bytes=0, **inside, **route)


def _refused_split(one: "OneAxis", place: Place, given: list[int | None], dims: list[int]) -> CircuitError:
    """Return the error for inputs that are not all split along the axes that the kernel reads across."""
    if any(dim not in (None, where) for dim, where in zip(given, dims, strict=True)):
        return one.refused(place, "it is split along other axes than those that its kernel can read across")
    where = given.index(None)
    value = place.box.inputs[where]
    label = value.axes[dims[where]]
    hint = f": split {factors(label)[0]} over {one.mesh_axis} too" if factors(label) else ""
    return one.refused(place, f"it reads across {one.axis_at(place)}, and {value} is whole{hint}")


def _dims(box: Box) -> list[int]:
    """Return the axis of each input of the signature along which it has to be split; none if a box has no such axes."""
    if box.across is None or box.signature is None:
        return []
    pairs = zip(box.inputs, box.signature.inputs, strict=False)
    return [len(value.axes) + box.across.dim(axes) for value, axes in pairs]


def _beside(box: Box) -> tuple[Value, ...]:
    """Return what a kernel reads beside the inputs of its signature."""
    return box.inputs[len(_dims(box)) :] if box.across is not None else ()


def _options(box: Box) -> dict[str, Any]:
    """Return the keyword arguments of a call that are plain values."""
    kwargs = box.given.parts[1]
    plain = (bool, int, float, str)
    return {key: each for key, each in zip(kwargs.keys, kwargs.parts, strict=True) if isinstance(each, plain)}


__all__ = ["is_index", "kept_whole", "plan_across", "reads_across"]
