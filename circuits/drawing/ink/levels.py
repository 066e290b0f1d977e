"""Rows and columns for places: whole numbers in the order of the places, far enough apart for what stands there."""

from collections.abc import Container, Iterable, Mapping, Sequence

Interval = tuple[float, float]

_CLOSE = 7.0
"""Heights within so much may share a row, if nothing on one is above something on the other."""

_BESIDE = 6.0
"""What shares a row is at least so far apart."""

_COLUMN = 7.0
"""How many units a column has if there is room."""


def rows(levels: Mapping[float, Sequence[Interval]], wires: Container[float]) -> dict[float, int]:
    """Return the row of each height.

    Args:
        levels: The heights at which something stands, each with the intervals from left to right that it covers.
        wires: The heights of wires: between two neighbours there is an empty row.
    """
    found: dict[float, int] = {}
    row, first, last = 0, 0.0, 0.0
    covered: list[Interval] = []
    for y in sorted(levels):
        intervals = _joined(levels[y])
        if not found:
            first = y
        elif y - last > 1.5 and (y - first > _CLOSE or _meet(covered, intervals)):
            row += 2 if y - last > 60 or (y - last > 20 and y in wires and last in wires) else 1
            first, covered = y, []
        last = y
        covered = _joined([*covered, *intervals])
        found[y] = row
    return found


def _joined(intervals: Iterable[Interval]) -> list[Interval]:
    """Intervals without those that overlap: in order, from left to right."""
    found: list[Interval] = []
    for left, right in sorted(intervals):
        if found and left <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], right))
        else:
            found.append((left, right))
    return found


def _meet(some: Sequence[Interval], others: Sequence[Interval]) -> bool:
    """Whether an interval of one list overlaps one of the other, or nearly does."""
    place = 0
    for left, right in others:
        while place < len(some) and some[place][1] + _BESIDE <= left:
            place += 1
        if place < len(some) and some[place][0] < right + _BESIDE:
            return True
    return False


class Columns:
    """The columns of places.

    Args:
        places: Where something begins or ends.
        needed: How many columns there are at least between two places.
        upright: Places of strokes that share their column with nothing else.
    """

    def __init__(self, places: Iterable[float], needed: Mapping[Interval, int], upright: Iterable[float]) -> None:
        self._places = sorted({*places, *upright, *(end for pair in needed for end in pair)})
        self._upright = set(upright)
        self._ends: dict[float, list[tuple[float, int]]] = {}
        for (left, right), count in needed.items():
            self._ends.setdefault(right, []).append((left, count))

    def columns(self, width: int | None) -> dict[float, int]:
        """Return the column of each place: as wide as the places are if that fits, narrower if not.

        Args:
            width: How many columns there are, `None` for any number. Places may need more.
        """
        natural = self._solved(1.0)
        if width is None or not natural or max(natural.values()) < width:
            return natural
        low, high, best = 0.0, 1.0, self._solved(0.0)
        for _ in range(12):
            middle = (low + high) / 2
            tried = self._solved(middle)
            if max(tried.values()) < width:
                low, best = middle, tried
            else:
                high = middle
        return best

    def _solved(self, scale: float) -> dict[float, int]:
        """The columns at a scale: each place as far to the left as those before it allow."""
        found: dict[float, float] = {}
        before: float | None = None
        for place in self._places:
            column = 0.0
            if before is not None:
                gap = place - before
                apart = gap >= 3 or place in self._upright or before in self._upright
                column = found[before] + max(scale * gap / _COLUMN, 1.0 if apart else 0.0)
            column = max([column, *(found[left] + count for left, count in self._ends.get(place, ()))])
            found[place] = column
            before = place
        return {place: int(column + 1e-6) for place, column in found.items()}


__all__ = ["Columns", "Interval", "rows"]
