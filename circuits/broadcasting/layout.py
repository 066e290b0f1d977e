"""Where the axes of a call stand, once each tensor's number of axes is known: all that a lift need not ask twice.

A plan says where axes stand from the right. With the ranks of a call that becomes permutations and places, the same
for every call of those ranks. A level is one lifted axis of a call: first those that `...` stands for, then those with
names. Nothing on this floor knows torch.
"""

from dataclasses import dataclass

from circuits.broadcasting.plan import Move, Plan

Ranks = tuple[int | None, ...]
"""How many axes each tensor of a call has; None for what is no tensor."""

Stand = tuple[int | None, ...]
"""Where each level stands on one tensor; None where it lacks it and is shared."""


@dataclass(frozen=True)
class Gap:
    """What a tensor lacks of the levels that `...` takes: where a 1 is put, and how many axes of its own follow.

    A `whole` one is then as long as every level; an optional tensor keeps its 1, since it only has to broadcast.
    """

    at: tuple[int, ...]
    own: int
    whole: bool


@dataclass(frozen=True)
class Standing:
    """How the tensors of a call stand, in order.

    `orders` bring each into normal order, None where it is; `stands` say where its levels are then. `sizes` has for
    each level a tensor and its place there, to read its length off. `gaps` are what `...` lacks, None where it does
    not.
    """

    orders: tuple[tuple[int, ...] | None, ...]
    stands: tuple[Stand, ...]
    sizes: tuple[tuple[int, int], ...]
    gaps: tuple[Gap | None, ...]


def standing(plan: Plan, front: bool, ranks: Ranks) -> Standing:
    """How tensors of these ranks stand; `front` says that the circuit's own `...` takes the levels."""
    moves = (*plan.inputs, *plan.optional.values())
    leader = next((at for at, move in enumerate(plan.inputs) if move.rest and plan.leads), None)
    rest = None if leader is None else _known(ranks[leader]) - moves[leader].named
    orders = [_order(rank, move, plan.leads, front) for rank, move in zip(ranks, moves, strict=True)]
    stands = [_stand(rank, move, rest, front) for rank, move in zip(ranks, moves, strict=True)]
    gaps: list[Gap | None] = [None] * len(moves)
    for at, (rank, move, stand) in enumerate(zip(ranks, moves, stands, strict=True)):
        whole = at < len(plan.inputs)
        if front and move.loose and rank is not None and None in stand and (whole or rank > len(move.own)):
            gaps[at] = Gap(tuple([level for level, at in enumerate(stand) if at is None]), len(move.own), whole)
    return Standing(tuple(orders), tuple(stands), _sizes(stands), tuple(gaps))


def restoring(move: Move, rank: int, leads: bool) -> tuple[int, ...] | None:
    """The permutation that brings an answer from normal order to where the lifted signature has it; None for none.

    >>> restoring(Move((-1,), (-2,), named=2, keeps=True, rest=False, loose=False), 2, leads=False)
    (1, 0)
    """
    order = move.order(rank, leads)
    return None if order == tuple(range(rank)) else tuple([order.index(place) for place in range(rank)])


def _order(rank: int | None, move: Move, leads: bool, front: bool) -> tuple[int, ...] | None:
    """The permutation into normal order; None where it is there, or where vmap takes its axes wherever they stand."""
    if rank is None or (move.keeps and not front):
        return None
    order = move.order(rank, leads)
    return None if order == tuple(range(rank)) else order


def _stand(rank: int | None, move: Move, count: int | None, front: bool) -> Stand:
    """Where each level stands on a tensor as it is once ordered; `count` is how many `...` stands for, if lifted."""
    if rank is None:
        return (None,) * ((count or 0) + len(move.lifted))
    rest = 0 if count is None or not move.rest else rank - move.named
    stand: list[int | None] = [*[None] * ((count or 0) - rest), *range(rest)]
    for place in move.lifted:
        if place is None:
            stand.append(None)
            continue
        stand.append(rank + place if move.keeps and not front else rest)
        rest += 1
    return tuple(stand)


def _sizes(stands: list[Stand]) -> tuple[tuple[int, int], ...]:
    """A tensor that has each level, the first, and where."""
    found: list[tuple[int, int]] = []
    for level in range(len(stands[0]) if stands else 0):
        found.append(next((at, place) for at, stand in enumerate(stands) if (place := stand[level]) is not None))
    return tuple(found)


def _known(rank: int | None) -> int:
    """The rank of an input, which is always a tensor: it was checked before the lift runs."""
    return rank or 0


__all__ = ["Gap", "Ranks", "Stand", "Standing", "restoring", "standing"]
