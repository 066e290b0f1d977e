"""Where rows break: at the places of least total cost, by a dynamic programme as for the lines of a paragraph.

The cost of a row grows with the square of the room that it leaves, with the fences that its break cuts, and with the
number of wires that have to be continued; a short last row costs too.
"""

from collections.abc import Sequence

from circuits.drawing.layout.sweep import Column

_CUT, _WIRE, _SHORT = 0.6, 0.06, 0.5


def row_starts(
    columns: Sequence[Column], widths: Sequence[float], limit: float, edge: float, longer: float
) -> list[int]:
    """Return the first column of each row.

    Args:
        columns: The columns of the sweep.
        widths: The width of each.
        limit: The largest width of a row.
        edge: The width of the labels and arrows at the two edges of a row.
        longer: How many times the limit a row may be wide, at a cost.
    """
    count = len(columns)
    breaks = [_break_cost(column) for column in columns]
    best = [0.0] + [float("inf")] * count
    starts = [0] * (count + 1)
    for stop in range(1, count + 1):
        total = edge
        for start in range(stop - 1, -1, -1):
            total += widths[start]
            if total > limit * longer and start < stop - 1:
                break
            cost = (
                best[start] + _row_cost(total, limit, stop == count and start > 0) + (breaks[start] if start else 0.0)
            )
            if cost < best[stop]:
                best[stop], starts[stop] = cost, start
    found, stop = [], count
    while stop > 0:
        found.append(starts[stop])
        stop = starts[stop]
    return found[::-1]


def _row_cost(width: float, limit: float, last: bool) -> float:
    """Return the cost of a row of this width: the more room it leaves, the more it costs; the last may be shorter."""
    if width > limit:
        return 0.3 + (width - limit) / limit
    room = (limit - width) / limit
    if last:
        return _SHORT * max(room - 0.6, 0.0) * 2
    return room * room + 0.05


def _break_cost(column: Column) -> float:
    """Return the cost of a break before a column: for each fence it cuts but the outermost, and each wire."""
    fences = sum([key[0] == "top" and key[1] != 0 for key in column.before])
    wires = sum([key[0] == "wire" for key in column.before])
    return _CUT * fences + _WIRE * wires


def untouched(columns: Sequence[Column]) -> frozenset[int]:
    """Return the strands that pass all these columns without being read or entering a group."""
    before = {key[1] for key in columns[0].before if key[0] == "wire"}
    after = {key[1] for key in columns[-1].done if key[0] == "wire"}
    entered = {strand for column in columns for strand in column.outer}
    return frozenset((before & after) - entered)


__all__ = ["row_starts", "untouched"]
