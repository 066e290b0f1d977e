"""The layout of a lifted call: the dimension of every lifted axis in every tensor, given each tensor's number of axes.

A plan states positions from the right. With the ranks of a call they become permutations and dimensions, the same for
every call with these ranks. A level is one lifted axis of a call: first the axes that `...` matches if it is lifted,
then those with names. This module does not use torch.
"""

from dataclasses import dataclass

from circuits.broadcasting.plan import AxisPositions, Plan

Ranks = tuple[int | None, ...]
"""The number of axes of each tensor of a call; None for a value that is not a tensor."""

Dims = tuple[int | None, ...]
"""The dimension of each level in one tensor; None if the tensor is shared along the level, as in vmap's `in_dims`."""


@dataclass(frozen=True)
class MissingDims:
    """The levels that a tensor does not have but its `...` has to match.

    Attributes:
        levels: The levels; each becomes a dimension of size 1 at this position.
        own: The number of axes of the tensor that follow its `...`.
        expand: Whether these dimensions are then expanded to the sizes of the levels. Those of an optional tensor keep
            size 1, since its `...` need only broadcast.
    """

    levels: tuple[int, ...]
    own: int
    expand: bool


@dataclass(frozen=True)
class Layout:
    """The layout of the tensors of a call: the inputs, then the optional tensors.

    Attributes:
        permutations: The permutation of each tensor into normal order; None if it needs none.
        dims: The dimension of each level in each tensor, after the permutation.
        size_sources: For each level, the index of a tensor that has it, and the dimension from which to read its size.
        missing: The levels that the `...` of each tensor lacks; None if it lacks none.
    """

    permutations: tuple[tuple[int, ...] | None, ...]
    dims: tuple[Dims, ...]
    size_sources: tuple[tuple[int, int], ...]
    missing: tuple[MissingDims | None, ...]


def compute_layout(plan: Plan, batched: bool, ranks: Ranks) -> Layout:
    """Return the layout of tensors with these ranks; if `batched`, the circuit's own `...` matches the levels."""
    tensors = (*plan.inputs, *plan.optional.values())
    leader = next((at for at, each in enumerate(plan.inputs) if each.lifted_rest and plan.lifts_rest), None)
    rest = None if leader is None else _rank_of_input(ranks[leader]) - tensors[leader].named
    permutations = [
        _permutation(rank, each, plan.lifts_rest, batched) for rank, each in zip(ranks, tensors, strict=True)
    ]
    dims = [_dims(rank, each, rest, batched) for rank, each in zip(ranks, tensors, strict=True)]
    missing: list[MissingDims | None] = [None] * len(tensors)
    for at, (rank, each, tensor_dims) in enumerate(zip(ranks, tensors, dims, strict=True)):
        is_input = at < len(plan.inputs)
        lacks_levels = rank is not None and None in tensor_dims and (is_input or rank > len(each.own))
        if batched and each.own_rest and lacks_levels:
            levels = tuple([level for level, dim in enumerate(tensor_dims) if dim is None])
            missing[at] = MissingDims(levels, len(each.own), expand=is_input)
    return Layout(tuple(permutations), tuple(dims), _size_sources(dims), tuple(missing))


def output_permutation(positions: AxisPositions, rank: int, lifts_rest: bool) -> tuple[int, ...] | None:
    """Return the permutation of an output from normal order to the lifted signature's; None if it needs none.

    >>> positions = AxisPositions((-1,), (-2,), named=2, in_order=True, lifted_rest=False, own_rest=False)
    >>> output_permutation(positions, 2, lifts_rest=False)
    (1, 0)
    """
    order = positions.normal_order(rank, lifts_rest)
    return None if order == tuple(range(rank)) else tuple([order.index(dim) for dim in range(rank)])


def _permutation(rank: int | None, positions: AxisPositions, lifts_rest: bool, batched: bool) -> tuple[int, ...] | None:
    """Return the permutation into normal order; None if it needs none, or if vmap maps the levels where they are."""
    if rank is None or (positions.in_order and not batched):
        return None
    order = positions.normal_order(rank, lifts_rest)
    return None if order == tuple(range(rank)) else order


def _dims(rank: int | None, positions: AxisPositions, count: int | None, batched: bool) -> Dims:
    """Return the dimension of each level in a permuted tensor; `count` axes are matched by a `...` that is lifted."""
    if rank is None:
        return (None,) * ((count or 0) + len(positions.lifted))
    rest = 0 if count is None or not positions.lifted_rest else rank - positions.named
    dims: list[int | None] = [*[None] * ((count or 0) - rest), *range(rest)]
    for position in positions.lifted:
        if position is None:
            dims.append(None)
            continue
        dims.append(rank + position if positions.in_order and not batched else rest)
        rest += 1
    return tuple(dims)


def _size_sources(dims: list[Dims]) -> tuple[tuple[int, int], ...]:
    """Return for each level the index of the first tensor that has it, and the dimension in that tensor."""
    found: list[tuple[int, int]] = []
    for level in range(len(dims[0]) if dims else 0):
        found.append(next((at, dim) for at, each in enumerate(dims) if (dim := each[level]) is not None))
    return tuple(found)


def _rank_of_input(rank: int | None) -> int:
    """Return the rank of an input with `...`: never None, since the check before the lift accepts only a tensor."""
    return rank or 0


__all__ = ["Dims", "Layout", "MissingDims", "Ranks", "compute_layout", "output_permutation"]
