"""What becomes of a tensor that is whole where an operation reads it beside tensors that are split."""

from circuits.diagram import Value
from circuits.sharding.axis_state import AxisState
from circuits.sharding.between import MismatchError
from circuits.sharding.following import blocks_of, inside
from circuits.sharding.mesh import factors
from circuits.sharding.moves import Move
from circuits.sharding.rules import operation_of, rule_of
from circuits.sharding.steps import Place

SHARING = frozenset(["einsum", "torch_einsum", "attention"])
"""The rules of operations that each rank may run on its part of a whole tensor, with gradients of that part."""


def split_too(state: AxisState, place: Place, value: Value, dim: int) -> None:
    """Split a tensor that is whole as the tensors beside it are, if that is possible."""
    number = value.number
    if number in state.slices:
        return
    label = state.named.values[number].axes[dim] if number in state.named.parameters else None
    dim = inside(dim, max([blocks_of(state.dims.get(each.number)) for each in place.box.inputs]))
    is_named = label is not None and not {*factors(label)[:1]} & state.named.choice.whole
    is_free = number in state.named.parameters and not is_named and state.steps.readers[number][0] is place
    between = state.between_at(place)
    if is_free and not state.is_data and not between:
        if state.named.values[number].sizes[dim] % (state.ranks * blocks_of(dim)):
            raise state.refused(place, f"{state.named.what(number)} cannot be split into {state.ranks} equal parts")
        state.dims[number], state.axis[number] = dim, state.axis_at(place)
    elif number in state.steps.with_gradient or state.is_data:
        first = next(iter(factors(value.axes[dim])), "")
        if _may_share(state, place, first):
            _share(state, place, value, first)
            return
        hint = _hint(state, place, first) if first and not first.isdigit() else ""
        error = state.refused(place, f"{state.named.what(number)} is whole, and what it meets is split{hint}")
        raise MismatchError(place, between, (value,), error) if between else error


def _hint(state: AxisState, place: Place, axis: str) -> str:
    """Return what would work where a tensor that has an axis is whole and meets parts."""
    hint = f": split {axis} over {state.mesh_axis} too"
    if rule_of(operation_of(place.box)) not in SHARING:
        return hint
    return f"{hint}, or keep it whole by {{'{axis}': None}}: each rank then takes what belongs to its part"


def _may_share(state: AxisState, place: Place, axis: str) -> bool:
    """Return whether each rank may take its part of an axis that is to be whole, as of keys for all its heads."""
    is_possible = rule_of(operation_of(place.box)) in SHARING and not state.is_data and state.between.axis is None
    return is_possible and bool(state.named.choice.whole) and (not axis or axis in state.named.choice.whole)


def _share(state: AxisState, place: Place, value: Value, axis: str) -> None:
    """Note that each rank takes its part of a whole tensor in an operation, and that its gradient is gathered."""
    at = next((each.path for each in reversed(place.around) if each.path), "")
    why, over = f"each takes a part of {axis or value}", state.mesh_axis
    gathered = Move(at, "inside", 0, over, "split", "whole", "backward", state.axis_at(place), why, 0, value)
    state.shared[id(place.box), value.number] = gathered
    whole = axis or f"the tensor {value}"
    state.notes.append(f"{whole} is whole on every rank of {over}, which uses its part alone")


__all__ = ["split_too"]
