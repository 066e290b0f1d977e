"""Kernels that take tensors split along axes which they read across, as ring attention does, in the plan of one axis.

The box of such a circuit is planned as one step: its inputs are split along these axes, all of them, its output too,
and what its ranks send is in the plan. What the kernel reads beside them, as masks, is whole on every rank.
"""

from collections.abc import Iterator, Mapping, Set
from typing import Any

from circuits.diagram import Box, Value
from circuits.naming import naming_rule
from circuits.sharding.mesh import factors
from circuits.sharding.moves import Move
from circuits.sharding.named import Named
from circuits.sharding.rules import NoPlacementError, Step, operation_of, outputs_of
from circuits.sharding.steps import Place, Steps


def reads_across(named: Named, steps: Steps, mesh_axis: str) -> bool:
    """Return whether the split of the inputs reaches a kernel along the axes that it reads across.

    Args:
        named: The names of axes, and the choice.
        steps: The operations, with such kernels as one.
        mesh_axis: The mesh axis.
    """
    if all(place.box.across is None for place in steps.places):
        return False
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
            if any(dim == where is not None for dim, where in zip(given, _summed(box), strict=False)):
                return True
            outputs = given[:1] * len(box.outputs)
        else:
            split = {value.number: dims[value.number] for value in box.inputs if value.number in dims}
            try:
                outputs = outputs_of(Step(box, operation_of(box), split, 1, lambda value, dim: None))
            except NoPlacementError:
                continue
        dims |= {value.number: dim for value, dim in zip(box.outputs, outputs, strict=True) if isinstance(dim, int)}
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


def outputs_across(
    box: Box, dims: Mapping[int, int], over: tuple[str, ...], named: Named, with_gradient: Set[int]
) -> list[int | None]:
    """Return the dimension along which each output of such a kernel is split.

    Args:
        box: The box of the circuit.
        dims: The dimension along which each tensor is split, by number.
        over: The mesh axes of the axis that is split.
        named: The names of axes.
        with_gradient: The numbers of the tensors that a gradient flows through.

    Raises:
        NoPlacementError: Not all inputs are split along these axes, they are split over several mesh axes, or a mask is
            split or needs a gradient.
    """
    if not any(value.number in dims for value in box.inputs):
        return [None for _ in box.outputs]
    expected = _dims(box)
    given = [dims.get(value.number) for value in box.inputs[: len(expected)]]
    if any(dim not in (None, where) for dim, where in zip(given, expected, strict=True)):
        raise NoPlacementError("it is split along other axes than those that its kernel can read across")
    for value in _beside(box):
        if value.number in dims or value.number in with_gradient:
            why = "is split" if value.number in dims else "needs a gradient"
            raise NoPlacementError(f"{named.what(value.number)} {why}; beside a sequence that is split, masks may not")
    if None in given:
        value, dim = next((v, d) for v, d, found in zip(box.inputs, expected, given, strict=False) if found is None)
        first = factors(value.axes[dim])[:1]
        hint = f": split {first[0]} over {over[0]} too" if first else ""
        raise NoPlacementError(f"it reads across what is split, and {value} is whole{hint}")
    if len(over) > 1:
        raise NoPlacementError(f"its kernel reads across one mesh axis, not over {' '.join(over)}")
    signature: Any = box.signature
    across: Any = box.across
    return [len(value.axes) + across.dim(axes) for value, axes in zip(box.outputs, signature.outputs, strict=True)]


def moves_across(place: Place, mesh_axis: str, ranks: int, axis: str, with_gradient: Set[int]) -> Iterator[Move]:
    """Yield what the ranks of a mesh axis send in such a kernel, whose inputs are split along `axis`."""
    box = place.box
    values = (*box.inputs[: len(_dims(box))], *box.outputs)
    across: Any = box.across
    at = next((each.path for each in reversed(place.around) if each.path), "")
    for source, target, pass_, times, why in across.sends(ranks=ranks, dtype=values[0].dtype, **_options(box)):
        if pass_ == "forward" or values[-1].number in with_gradient:
            sent = tuple(zip(values, times, strict=True))
            first = next((value for value, count in sent if count), values[0])
            yield Move(at, "inside", 0, mesh_axis, source, target, pass_, axis, why, 0, first, sent)


def dims_inside(kernel: Box, dims: Mapping[int, int]) -> dict[int, int]:
    """Return the axis, by number, along which each tensor is split that such a kernel computes from its inputs."""
    found: dict[int, int] = {}
    for box in kernel.walk():
        if box.call is not None and any(value.number in found or value.number in dims for value in box.inputs):
            named = {value.number: _dim_inside(kernel, value) for value in box.outputs if value.number not in dims}
            found |= {number: dim for number, dim in named.items() if dim is not None}
    return found


def _dim_inside(kernel: Box, value: Value) -> int | None:
    """Return the axis along which a tensor inside such a kernel is split: that of the output, or else of an input."""
    signature: Any = kernel.signature
    across: Any = kernel.across
    kept = {name for axes in signature.outputs for term in axes for name in term.names} & {*across.axes}
    for names in (kept, {*across.axes} - kept):
        for dim, label in enumerate(value.axes):
            if names & {*factors(label)}:
                return dim
    return None


def _dims(box: Box) -> list[int]:
    """Return the axis of each input of the signature along which it has to be split; none if a box has no such axes."""
    if box.across is None or box.signature is None:
        return []
    pairs = zip(box.inputs, box.signature.inputs, strict=False)
    return [len(value.axes) + box.across.dim(axes) for value, axes in pairs]


def _summed(box: Box) -> list[int | None]:
    """Return the axis of each input as `_dims` does, but None where the output has it, as it has that of queries.

    Where inputs are split along such axes alone, nothing is read across.
    """
    signature, across = box.signature, box.across
    if signature is None or across is None:
        return []
    kept = {name for axes in signature.outputs for term in axes for name in term.names} & {*across.axes}
    named = zip(_dims(box), signature.inputs, strict=False)
    return [None if kept & {name for term in axes for name in term.names} else dim for dim, axes in named]


def _beside(box: Box) -> tuple[Value, ...]:
    """Return what a kernel reads beside the inputs of its signature."""
    return box.inputs[len(_dims(box)) :] if box.across is not None else ()


def _options(box: Box) -> dict[str, Any]:
    """Return the keyword arguments of a call that are plain values."""
    kwargs = box.given.parts[1]
    plain = (bool, int, float, str)
    return {key: each for key, each in zip(kwargs.keys, kwargs.parts, strict=True) if isinstance(each, plain)}


__all__ = ["dims_inside", "is_index", "kept_whole", "moves_across", "outputs_across", "reads_across"]
