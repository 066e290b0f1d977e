"""Dashed lines: the commas between the tensors of a tuple, half a wire's distance below the last wire of each.

A line is followed through the steps by the two things that it separates. It steps at 45°: down before a step that needs
the room, up behind it; and it ends where its two tensors are taken together, or go apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from circuits.drawing.layout.distances import reach_below
from circuits.drawing.layout.dots import ARC
from circuits.drawing.layout.frames import GAP, step_width
from circuits.drawing.layout.stations import Placed, Stations
from circuits.drawing.layout.sweep import Key
from circuits.drawing.marks import Mark, P, Path
from circuits.drawing.scene import Port, Step

SHORTEST = 10.0
"""The length of the shortest dashed line that is drawn."""

_STEP = 2.2
"""The largest step of a dashed line; a longer one would lie across the wires that it separates."""

_LOW = 1.6 * P
"""The largest step of a dashed line up where wires begin to bend, and down where they end to; a larger one would lie
along a wire there, and is at the other end of the bend."""


class Level(NamedTuple):
    """A horizontal piece of a dashed line."""

    left: float
    right: float
    y: float


Pair = tuple[int, int]
"""The tensors above and below a dashed line."""


def comma_marks(stations: Stations, start: float, right: float, stop: float) -> list[Mark]:
    """Return the dashed lines of a row.

    Args:
        stations: The columns of the row.
        start: Where its wires begin.
        right: The right edge of its last column.
        stop: Where its wires end.
    """
    lines = _Lines()
    heights = [height * P for height in stations.heights]
    left = start - 4
    for placed in stations.placed:
        x = placed.x
        lines.station(_gaps(placed.before, heights), left if placed is stations.placed[0] else x[0], x[1])
        lines.station(_gaps(placed.opened, heights), x[2], x[4])
        lines.event(placed, heights)
        lines.station(_gaps(placed.done, heights), x[7], x[8])
    lines.station(_gaps(stations.end, heights), right, stop)
    return [_path(line) for line in lines.all if line[-1].right - line[0].left >= SHORTEST]


class _Lines:
    """The dashed lines so far; `now` has those that can go on, by their tensors."""

    def __init__(self) -> None:
        self.all: list[list[Level]] = []
        self.now: dict[Pair, list[Level]] = {}

    def station(self, gaps: Mapping[Pair, float], left: float, right: float) -> None:
        """Go on between the tensors that are neighbours at a station; other lines have ended."""
        self.now = {pair: self._go_on(self.now.get(pair), Level(left, right, y)) for pair, y in gaps.items()}

    def _go_on(self, line: list[Level] | None, level: Level) -> list[Level]:
        """Return a line with a further level; without a line, or far from it, a new one begins."""
        if line is None or abs(line[-1].y - level.y) > _STEP * P:
            line = []
            self.all.append(line)
        if line and line[-1].y == level.y:
            line[-1] = Level(line[-1].left, max(level.right, line[-1].right), level.y)
        elif level.right > level.left or not line:
            line.append(level)
        return line

    def event(self, placed: Placed, heights: Sequence[float]) -> None:
        """Go on beside the steps of a column: below all that a step has, and not between its own tensors."""
        column, x = placed.column, placed.x
        steps = dict(column.steps)
        taken = {strand: number for number, step in column.steps for strand in step.ins}
        made = {strand: number for number, step in column.steps for strand in step.outs}
        low = {number: _bottom(step, placed, heights) for number, step in column.steps}
        after: dict[Pair, tuple[Pair, float]] = {}
        for (upper, lower), y in _gaps(placed.done, heights).items():
            sides = made.get(upper, -1 - upper), made.get(lower, -1 - lower)
            after[sides] = (upper, lower), max(y, low.get(sides[0], y) if sides[0] != sides[1] else y)
        now: dict[Pair, list[Level]] = {}
        for (upper, lower), y in _gaps(placed.at, heights).items():
            sides = taken.get(upper, -1 - upper), taken.get(lower, -1 - lower)
            line = self.now.get((upper, lower))
            if sides[0] == sides[1]:
                self._go_on(line, Level(x[5], _left(steps[sides[0]], placed, heights), y))
            elif sides in after:
                pair, lowest = after[sides]
                now[pair] = self._go_on(line, Level(x[5], x[7], max(y, lowest, low.get(sides[0], y))))
            else:
                self._go_on(line, Level(x[5], x[6] + 4, y))
        for (first, second), (pair, y) in after.items():
            if first == second:
                now[pair] = self._go_on(None, Level(_right(steps[first], x[6], x[7]), x[7], y))
        self.now = now


def _left(step: Step, placed: Placed, heights: Sequence[float]) -> float:
    """Return where the tensors of a step are taken together: at its box, or where its wires begin to bend.

    If it joins the wires of one cup alone, and these are straight, that is where the arc begins (Figure 20).
    """
    left, right = placed.x[6:8]
    if _is_box(step):
        return (left + right - step_width(step)) / 2 + GAP
    joined = [link for link in step.links if link.kind in ("cup", "join")]
    rows = [*_rows(joined[0].ins, step.ins, placed.at, heights)] if [each.kind for each in joined] == ["cup"] else []
    return left + ARC if rows and max(rows) - min(rows) < 1.5 * P + 0.1 else left + 4


def _right(step: Step, left: float, right: float) -> float:
    """Return where the tensors that a step makes are apart: behind its box, or behind the bends of its copies."""
    if any(link.shape == "bar" and len({index for index, _ in link.outs}) > 1 for link in step.links):
        return right
    return (left + right + step_width(step)) / 2 if _is_box(step) else min(left + 1.4 * P, right)


def _is_box(step: Step) -> bool:
    return any(link.kind == "glyph" and link.shape == "box" for link in step.links)


def _bottom(step: Step, placed: Placed, heights: Sequence[float]) -> float:
    """Return the height at which a dashed line passes below the glyphs of a step."""
    found = [0.0]
    for link in step.links:
        rows = [*_rows(link.ins, step.ins, placed.at, heights), *_rows(link.outs, step.outs, placed.done, heights)]
        reach = reach_below(link)
        found += [max(rows) + (reach + 0.1) * P] if rows and reach > 0.4 else []
    return max(found)


def _rows(
    ports: Sequence[Port], strands: Sequence[int], station: Mapping[Key, int], heights: Sequence[float]
) -> Iterator[float]:
    """Yield the heights of the wires of some ports that are drawn in the row."""
    for index, wire in ports:
        key = ("wire", strands[index], wire)
        if key in station:
            yield heights[station[key]]


def _gaps(station: Mapping[Key, int], heights: Sequence[float]) -> dict[Pair, float]:
    """Return the neighbouring tensors of a station, with the height of the dashed line between them."""
    found: dict[Pair, float] = {}
    last: tuple[Key, float] | None = None
    low: float | None = None
    for key, run in station.items():
        if key[0] == "bottom":
            low = heights[run]
        if key[0] != "wire":
            continue
        if last is not None and last[0][1] != key[1]:
            found[last[0][1], key[1]] = last[1] + P / 2 if low is None else low + P / 4
        last, low = (key, heights[run]), None
    return found


def _path(line: Sequence[Level]) -> Path:
    """Return a line of levels with slanted pieces: down at the end of a level, up at the beginning of the next."""
    points = [(line[0].left, line[0].y)]
    for level, following in zip(line, [*line[1:], None], strict=True):
        if following is None:
            points.append((level.right, level.y))
        elif following.y > level.y:
            drop = following.y - level.y
            end = following.left if drop <= _LOW else min(level.right + drop, following.left)
            points += [(max(end - drop, points[-1][0]), level.y), (end, following.y)]
        elif following.y < level.y:
            rise = level.y - following.y
            begin = level.right if rise <= _LOW else max(level.right, following.left - rise)
            points += [(begin, level.y), (min(begin + rise, following.right), following.y)]
    steps = [point for before, point in pairwise(points) if point != before]
    return Path(points[0], tuple(steps), width=1.6, dash="dashed", data=(("kind", "comma"),))


__all__ = ["comma_marks"]
