"""Where the bends of wires turn: an upright stroke each, in an order in which no two wires lie on one another.

Wires that bend between the same places share a group of columns. In a row that one wire leaves and another enters, the
one that leaves turns first. Two wires that change places cross in the middle; where more wait for each other in a ring,
one of them turns twice: it first goes a little aside, and past all the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuits.drawing.ink.parts import Bend, Stroke

_STEP = 0.01
"""The distance between two strokes of a group, in units: far less than between any other places."""

_ASIDE = 9.7
"""How far a wire that turns twice goes at first: less than to the next wire."""

_SAME = 1.5
"""Heights that differ by less are one row."""


@dataclass(frozen=True)
class Cross:
    """Two wires that change places between `turn` and `last`."""

    turn: float
    last: float
    falling: Bend
    rising: Bend


@dataclass(frozen=True)
class Turned:
    """The strokes of bends, the pairs that cross, and where other bends leave and enter rows."""

    strokes: list[Stroke]
    crosses: list[Cross]
    turns: list[tuple[Bend, float, float]]


def turned(bends: Sequence[Bend]) -> Turned:
    """Return the bends as strokes.

    Args:
        bends: The bends of a picture, each from left to right.
    """
    found = Turned([], [], [])
    for group, low, high in _groups(bends):
        middle = (low + high) / 2
        taken: list[tuple[float, float, int]] = []
        late: list[tuple[float, float, int]] = []
        pairs = _pairs(group)
        for falling, rising in pairs:
            slot = _slot(falling, taken)
            found.crosses.append(Cross(middle + _STEP * slot, middle + _STEP * (slot + 1), falling, rising))
        rest = [bend for bend in group if all(bend not in pair for pair in pairs)]
        for bend, detour in _ordered(rest):
            place = middle + _STEP * _slot(bend, taken)
            last = high - _STEP * (1 + _slot(bend, late)) if detour else place
            found.strokes.extend(_strokes(bend, place, last))
            found.turns.append((bend, place, last))
    return found


def _slot(bend: Bend, taken: list[tuple[float, float, int]]) -> int:
    """The first column of a group after those of earlier bends at the same heights, which then holds this bend."""
    top, bottom = sorted([bend.start[1], bend.end[1]])
    slot = max([slot + 1 for low, high, slot in taken if low <= bottom + _SAME and top <= high + _SAME], default=0)
    taken.append((top, bottom, slot))
    return slot


def _groups(bends: Sequence[Bend]) -> Iterator[tuple[list[Bend], float, float]]:
    """Groups of bends that have a common place, with the ends of what they have in common."""
    group: list[Bend] = []
    low = high = 0.0
    for bend in sorted(bends, key=lambda bend: (bend.start[0] + bend.end[0], bend.start[1], bend.end[1])):
        left, right = max(low, bend.start[0]), min(high, bend.end[0])
        middle = (bend.start[0] + bend.end[0]) / 2
        if group and left + 1 < right and abs((low + high) / 2 - middle) < 12:
            low, high = left, right
        else:
            if group:
                yield group, low, high
            group, low, high = [], bend.start[0], bend.end[0]
        group.append(bend)
    if group:
        yield group, low, high


def _pairs(group: Sequence[Bend]) -> list[tuple[Bend, Bend]]:
    """The pairs that change places: the first of each falls."""
    found: list[tuple[Bend, Bend]] = []
    for bend in group:
        for other in group:
            same = _same(bend.start, other.end) and _same(bend.end, other.start)
            if same and bend.start[1] < bend.end[1] and not any(bend in pair or other in pair for pair in found):
                found.append((bend, other))
    return found


def _same(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[1] - b[1]) < _SAME


def _ordered(bends: Sequence[Bend]) -> Iterator[tuple[Bend, bool]]:
    """The bends in the order of their turns, each with whether it has to turn twice."""
    left = sorted(bends, key=lambda bend: -bend.start[1] if bend.end[1] > bend.start[1] else bend.start[1])
    while left:
        free = [bend for bend in left if not any(_same(other.start, bend.end) for other in left if other is not bend)]
        bend = (free or left)[0]
        yield bend, not free
        left.remove(bend)


def _strokes(bend: Bend, place: float, last: float) -> list[Stroke]:
    """A bend as strokes, with one turn or with two."""
    (x, y), (u, v) = bend.start, bend.end

    def level(at: float, a: float, b: float) -> Stroke:
        return Stroke(True, at, a, b, bend.weight, bend.dash)

    def upright(at: float, a: float, b: float) -> Stroke:
        return Stroke(False, at, min(a, b), max(a, b), bend.weight, bend.dash)

    if place == last:
        return [level(y, x, place), upright(place, y, v), level(v, place, u)]
    aside = min(_ASIDE, abs(v - y) / 2)
    middle = y + aside if v > y else y - aside
    first = [level(y, x, place), upright(place, y, middle), level(middle, place, last)]
    return [*first, upright(last, middle, v), level(v, last, u)]


__all__ = ["Cross", "Turned", "turned"]
