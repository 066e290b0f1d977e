"""Bends: how wires go to other heights between the same two places, so that no two of them run along each other.

Few wires bend in S-curves, one beside the other. Where such curves would run along each other, because they cross at a
small angle, all wires of the place go up and down on lanes instead: straight, with round corners, each on its own lane.
"""

import math
from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import TypeVar

from circuits.drawing.marks import P

LANE = 5.0
"""The distance of the middles of neighbouring S-curves."""
STRAIGHT, ROUND = 6.0, 8.0
"""The distance of lanes, and the radius of their corners."""
ANGLE = math.radians(20)
"""The smallest angle at which two curves cross."""
_NEAR, _SAMPLES, _MANY = 2.0, 24, 40

K = TypeVar("K", bound=Hashable)
Move = tuple[float, float]
"""The height of a wire before and after its bend."""
Pieces = tuple[tuple[float, ...], ...]


def bends(moves: Mapping[K, Move], left: float, right: float) -> dict[K, Pieces]:
    """Return the pieces with which each wire goes from `left` to `right`; wires that keep their height have none.

    Args:
        moves: The height of each wire before and after.
        left, right: Where the wires begin and end to bend.
    """
    found: dict[K, Pieces] = {}
    for bent in _clusters(moves):
        order = _order(bent, right - left)
        if order is None:
            aside = beside(bent)
            found |= {key: (curve(bent[key], left, right, aside[key]),) for key in bent}
        else:
            middle, lane = (left + right) / 2, min(STRAIGHT, (right - left) / (len(order) + 1))
            places = {key: middle + (number - (len(order) - 1) / 2) * lane for number, key in enumerate(order)}
            found |= {key: _straight(bent[key], places[key], right) for key in bent}
    return found


def bends_width(moves: Mapping[K, Move]) -> float:
    """Return the width that the bends of some wires need; 0 if all keep their height."""
    widths = [0.0]
    for bent in _clusters(moves):
        order = _order(bent, curves_width(bent))
        widths.append(curves_width(bent) if order is None else (len(order) - 1) * STRAIGHT + 2 * ROUND + 4)
    return max(widths)


def _clusters(moves: Mapping[K, Move]) -> list[dict[K, Move]]:
    """Return the wires that change their height, in groups that have no height in common."""
    bent = _bent(moves)
    found: list[dict[K, Move]] = []
    low = -math.inf
    for key in sorted(bent, key=lambda key: min(bent[key])):
        if min(bent[key]) > low:
            found.append({})
        found[-1][key] = bent[key]
        low = max(low, *bent[key])
    return found


def _bent(moves: Mapping[K, Move]) -> dict[K, Move]:
    return {key: move for key, move in moves.items() if abs(move[1] - move[0]) > 0.005}


def curves_width(bent: Mapping[K, Move]) -> float:
    """Return the width of S-curves: more for higher ones, and for several beside each other."""
    highest = max([abs(after - before) for before, after in bent.values()])
    down = sum([after > before for before, after in bent.values()])
    return P * min(1.2 + 0.2 * highest / P, 3.5) + (max(down, len(bent) - down) - 1) * LANE


def beside(bent: Mapping[K, Move], space: float = LANE) -> dict[K, float]:
    """Return how far the middle of each curve is to the right of the middle of all; neighbours are `space` apart.

    Of wires that go down the lowest bends first, and of those that go up the highest: so they do not cross each other.
    """
    found: dict[K, float] = {}
    for way in (1, -1):
        mine = [key for key, (before, after) in bent.items() if (after > before) == (way > 0)]
        mine.sort(key=lambda key: tuple([-way * height for height in bent[key]]))
        found |= {key: (number - (len(mine) - 1) / 2) * space for number, key in enumerate(mine)}
    return found


def _order(bent: Mapping[K, Move], wide: float) -> list[K] | None:
    """Return the wires in the order of their lanes; None if S-curves of this width are apart.

    A wire leaves its height before another one arrives there.
    """
    if len(bent) < 2:
        return None
    aside = beside(bent)
    if len(bent) <= _MANY and not any(_along(bent, pair, aside, wide) for pair in combinations(bent, 2)):
        return None
    left = sorted(bent, key=lambda key: aside[key])
    if len(bent) > _MANY:
        return left
    order: list[K] = []
    while left:
        free = [
            key for key in left if not any(abs(bent[other][0] - bent[key][1]) < 2 for other in left if other != key)
        ]
        order.append(free[0] if free else left[0])
        left.remove(order[-1])
    return order


def _along(bent: Mapping[K, Move], pair: tuple[K, K], aside: Mapping[K, float], wide: float) -> bool:
    """Return whether the S-curves of two wires run along each other, at some heights between their ends."""
    moves = [bent[key] for key in pair]
    top, bottom = max(map(min, moves)), min(map(max, moves))
    length = 0.0
    for number in range(_SAMPLES if bottom > top else 0):
        y = top + (bottom - top) * (number + 0.5) / _SAMPLES
        (x, slope), (u, other) = [_at(bent[key], aside[key], wide, y) for key in pair]
        across = abs(math.atan(slope) - math.atan(other))
        if min(across, math.pi - across) < ANGLE:
            steep = abs(math.sin(math.atan(slope)))
            length += (bottom - top) / _SAMPLES / max(steep, 0.1) if abs(x - u) * steep < _NEAR else 0.0
    return length > _NEAR


def _at(move: Move, aside: float, wide: float, y: float) -> tuple[float, float]:
    """Return where an S-curve has a height, from its left end, and its slope there."""
    share = (y - move[0]) / (move[1] - move[0])
    t = 0.5 - math.sin(math.asin(max(-1.0, min(1.0, 1 - 2 * share))) / 3)
    middle = wide / 2 + max(min(aside, wide / 2), -wide / 2)
    x = 3 * t * (1 - t) * middle + t**3 * wide
    across = 3 * middle * (1 - t) ** 2 + 3 * (wide - middle) * t**2
    return x, 6 * t * (1 - t) * (move[1] - move[0]) / max(across, 1e-6)


def curve(move: Move, left: float, right: float, aside: float) -> tuple[float, ...]:
    """Return an S-curve that begins and ends horizontally."""
    middle = (left + right) / 2 + max(min(aside, (right - left) / 2), (left - right) / 2)
    return (middle, move[0], middle, move[1], right, move[1])


def _straight(move: Move, lane: float, right: float) -> Pieces:
    """Return a way to a lane, along it, and on to the right, with round corners."""
    (before, after), way = move, math.copysign(1.0, move[1] - move[0])
    corner = min(ROUND, abs(after - before) / 2)
    across = min(ROUND, right - lane)
    soft = 0.45 * corner
    return (
        (lane - across, before),
        (lane - 0.45 * across, before, lane, before + way * soft, lane, before + way * corner),
        (lane, after - way * corner),
        (lane, after - way * soft, lane + 0.45 * across, after, lane + across, after),
        (right, after),
    )


__all__ = ["ANGLE", "LANE", "Move", "Pieces", "bends", "bends_width", "beside", "curve", "curves_width"]
