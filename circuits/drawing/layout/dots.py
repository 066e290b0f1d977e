"""Curves to and from common dots, chosen so that no two of them run along each other.

Wires that join, and copies of a wire, share a dot. They bend in S-curves whose middles are some distance apart; where
curves would run along each other, other distances and widths are tried, and the curves get more room.
"""

import math
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, pairwise, product
from typing import NamedTuple, TypeVar

from circuits.drawing.layout.crossing import Key, stays
from circuits.drawing.layout.lanes import ANGLE, LANE, Move, Pieces, beside, curve, curves_width
from circuits.drawing.marks import P, Point
from circuits.drawing.scene import Port, Step

ARC, APEX = 1.4 * P, 2.15 * P
"""Where the arc of a cup begins, from the left edge of a step, and where it ends if nothing beside it is near."""
FORK = 6.0
"""Where the dots of copies stand, from the left edge of a step."""

_SPACES = (1.0, 2.0, 0.5, 3.0, 0.0, 4.0, 6.0)
_SHIFTS = (0.0, 0.12, 0.25, 0.35)
_ROOMS = (0.0, 12.0, 24.0, 48.0)
_SHARED, _NEAR, _LONG, _MANY = 12.0, 1.2, 2.0, 24

K = TypeVar("K", bound=Hashable)
L = TypeVar("L", bound=Hashable)


class _Way(NamedTuple):
    """How curves bend: how far their middles are apart, the width of each, and the room that they need beside it.

    `shift` is how much nearer to the dots their middles are than halfway, in widths; with `equal` those that
    are equally high have one middle, and the highest bend nearest to the dots.
    """

    space: float
    wide: float
    shift: float = 0.0
    room: float = 0.0
    equal: bool = False


def leaving(moves: Mapping[K, Move], left: float, right: float) -> dict[K, Pieces]:
    """Return the pieces of wires that leave common dots at `left`; wires that keep their height have none.

    Args:
        moves: The height of each wire at its dot and after its bend.
        left, right: Where the dots are, and where the wires have to have bent.
    """
    way = _way(_relative(moves), round(right - left, 3), False, False)
    bent = {key: move for key, move in moves.items() if _bends(move)}
    aside = _aside(bent, way, False)
    stop = left + way.wide
    return {key: (curve(move, left, stop, aside[key]), (right, move[1])) for key, move in bent.items()}


def arriving(
    moves: Mapping[K, Move], left: float, right: float, arms: Mapping[int, Move] | None = None
) -> dict[K, Pieces]:
    """Return the pieces of wires that meet in common dots at `right`; wires that keep their height have none.

    Args:
        moves: The height of each wire before its bend and at its dot.
        left, right: Where the wires may begin to bend, and where the dots are.
        arms: The bends of wires to the cups beside them.
    """
    way = _way(_relative(moves), round(right - left, 3), True, False, _relative(arms or {}, moves))
    bent = {key: move for key, move in moves.items() if _bends(move)}
    aside = _aside(bent, way, True)
    start = right - way.wide
    return {key: ((start, move[0]), curve(move, start, right, aside[key])) for key, move in bent.items()}


def joining(step: Step, here: Mapping[Key, float]) -> dict[Port, Move]:
    """Return the height of each wire of a step that joins others, before its bend and at its dot.

    Args:
        step: The step.
        here: The height of each wire that enters.
    """
    joins = [link for link in step.links if link.kind == "join"]
    rows = {port: _height(step.ins, stays(step, link, here), here) for link in joins for port in link.ins}
    return {port: (_height(step.ins, port, here), row) for port, row in rows.items()}


def parting(step: Step, here: Mapping[Key, float], there: Mapping[Key, float]) -> dict[Port, Move]:
    """Return the height of each copy that a step makes, at its dot and after its bend.

    Args:
        step: The step.
        here, there: The height of each wire that enters, and of each that leaves.
    """
    forks = [link for link in step.links if link.kind == "fork"]
    rows = {port: _height(step.ins, link.ins[0], here) for link in forks for port in link.outs}
    return {port: (row, _height(step.outs, port, there)) for port, row in rows.items()}


def _height(strands: Sequence[int], port: Port, heights: Mapping[Key, float]) -> float:
    return heights["wire", strands[port[0]], port[1]]


def cupped(step: Step, here: Mapping[Key, float]) -> dict[int, Move]:
    """Return the height of each contracted wire before its bend and where its cup usually begins.

    Args:
        step: The step.
        here: The height of each wire that enters.
    """
    found: list[Move] = []
    for link in step.links:
        if link.kind == "cup":
            upper, lower = sorted([_height(step.ins, port, here) for port in link.ins])
            radius = min((lower - upper) / 2, 0.75 * P)
            found += [(upper, (upper + lower) / 2 - radius), (lower, (upper + lower) / 2 + radius)]
    return dict(enumerate(found))


def joins_length(step: Step, here: Mapping[Key, float]) -> float:
    """Return how far right of the left edge of a step the dots stand at which wires join."""
    moves = joining(step, here)
    arms = _relative(cupped(step, here), moves)
    usual = _usual(step, moves)
    return usual + _way(_relative(moves), usual, True, True, arms).room


def dots_room(step: Step, wide: float, here: Mapping[Key, float], there: Mapping[Key, float]) -> float:
    """Return by how much a step has to be wider than `wide`, so that no wires at its dots run along each other."""
    moves = joining(step, here)
    copies = _way(_relative(parting(step, here, there)), round(wide - FORK, 3), False, True)
    return joins_length(step, here) - _usual(step, moves) + copies.room


def _usual(step: Step, moves: Mapping[Port, Move]) -> float:
    """Return where dots usually stand: under the apex of a cup, if there is one (Figures 17 and 21)."""
    cups = any(link.kind == "cup" for link in step.links)
    return (APEX if cups else 1.5 * P) + LANE * max(sum([_bends(move) for move in moves.values()]) - 1, 0)


def _bends(move: Move) -> bool:
    return abs(move[1] - move[0]) > 0.005


def _aside(bent: Mapping[K, Move], way: _Way, arrives: bool) -> dict[K, float]:
    """Return how far the middle of each curve is to the right of halfway."""
    way_in = 1 if arrives else -1
    if not way.equal:
        return {key: aside + way_in * way.shift * way.wide for key, aside in beside(bent, way.space).items()}
    highs = {key: round(abs(after - before), 1) for key, (before, after) in bent.items()}
    order = sorted(set(highs.values()))
    places = {high: number - (len(order) - 1) / 2 for number, high in enumerate(order)}
    return {key: way_in * (places[high] * way.space + way.shift * way.wide) for key, high in highs.items()}


def _relative(moves: Mapping[K, Move], others: Mapping[L, Move] | None = None) -> tuple[Move, ...]:
    """Return the moves from the height of the first one (of others) on: equal for equal steps at other heights."""
    first = next(iter((moves if others is None else others).values()), (0.0, 0.0))[0]
    return tuple([(round(before - first, 2), round(after - first, 2)) for before, after in moves.values()])


@lru_cache(4096)
def _way(moves: tuple[Move, ...], length: float, arrives: bool, grows: bool, arms: tuple[Move, ...] = ()) -> _Way:
    """Return the first way in which no curves run along each other, or the one in which they do least."""
    bent = {place: move for place, move in enumerate(moves) if _bends(move)}
    usual = min(curves_width(bent), length) if bent else length
    best = _Way(LANE, usual)
    if not bent or len(moves) > _MANY:
        return best
    least, tried = math.inf, set[tuple[float, float, tuple[float, ...]]]()
    fixed = _drawn(arms, _Way(0.0, ARC), ARC, False)
    for more in _ROOMS if grows and not arms else _ROOMS[:1]:
        widths = dict.fromkeys([usual, length + more])
        for wide, shift, equal, space in product(widths, _SHIFTS, (False, True), _SPACES):
            way = _Way(space * LANE, wide, shift, more, equal)
            same = wide, more, tuple(_aside(bent, way, arrives).values())
            if same in tried:
                continue
            tried.add(same)
            together = _together([*_drawn(moves, way, length + more, arrives), *fixed], arrives, least)
            if together < least:
                best, least = way, together
            if not together:
                return best
    return best


def _drawn(moves: Sequence[Move], way: _Way, length: float, arrives: bool) -> list[list[Point]]:
    """Return the curves of some wires in short chords, from left to right."""
    aside = _aside({place: move for place, move in enumerate(moves) if _bends(move)}, way, arrives)
    begin = length - way.wide if arrives else 0.0
    found = []
    for place, (before, after) in enumerate(moves):
        count = max(24, math.ceil(abs(after - before) / 4))
        middle = way.wide / 2 + max(min(aside.get(place, 0.0), way.wide / 2), -way.wide / 2)
        points = [(begin * number / 4, before) for number in range(4)] if begin > 0 else []
        for number in range(count + 1):
            t = number / count
            x, share = 3 * t * (1 - t) * middle + t**3 * way.wide, t * t * (3 - 2 * t)
            points.append((begin + x, before + (after - before) * share))
        found.append([*points, (length, after)] if begin + way.wide < length else points)
    return found


def _together(curves: Sequence[list[Point]], arrives: bool, enough: float) -> float:
    """Return how long curves run along each other in all, away from the dots that they share; at most `enough`."""
    total = 0.0
    for one, two in combinations(curves, 2):
        if min(one[0][1], one[-1][1]) > max(two[0][1], two[-1][1]) + _NEAR:
            continue  # curves rise or fall all the way
        if min(two[0][1], two[-1][1]) > max(one[0][1], one[-1][1]) + _NEAR:
            continue
        dots = [points[-1] if arrives else points[0] for points in (one, two)]
        shared = dots[0] if math.dist(*dots) < 0.01 else None
        long = sum([_along(chord, two, shared) for chord in pairwise(one)])
        total += long if long > _LONG else 0.0
        if total >= enough:
            break
    return total


def _along(chord: tuple[Point, Point], other: Sequence[Point], shared: Point | None) -> float:
    """Return the length of a chord if it runs along another curve, else 0."""
    (x, y), (u, v) = chord
    middle, height = (x + u) / 2, (y + v) / 2
    place = bisect_right(other, (middle, math.inf), 1, len(other) - 1)
    (a, b), (c, d) = other[place - 1], other[place]
    if abs((c - a) * (height - b) - (d - b) * (middle - a)) >= _NEAR * math.hypot(c - a, d - b):
        return 0.0
    if shared is not None and math.dist((middle, height), shared) <= _SHARED:
        return 0.0
    angle = abs(math.atan2(v - y, u - x) - math.atan2(d - b, c - a))
    return math.dist(*chord) if angle < ANGLE else 0.0


__all__ = ["APEX", "ARC", "FORK", "arriving", "cupped", "dots_room", "joining", "joins_length", "leaving", "parting"]
