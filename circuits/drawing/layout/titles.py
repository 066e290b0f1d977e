"""Where the title of a fence stands: at its left, or right of the lines that cross it there."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from circuits.drawing.marks import Mark, Path, Point

_CHORDS, _ROOM = 16, 3.0


def clear_place(left: float, right: float, rows: tuple[float, float], wide: float, lines: Sequence[Mark]) -> float:
    """Return the left edge of a title: the first place at which no line crosses it; `left` if there is none.

    Args:
        left, right: Between which the title has to stand.
        rows: Its top and bottom.
        wide: Its width.
        lines: The wires and dashed lines.
    """
    crossings = sorted([span for line in lines if isinstance(line, Path) for span in _crossings(line, rows)])
    x = left
    for begin, end in crossings:
        if begin - _ROOM < x + wide and end + _ROOM > x:
            x = end + _ROOM
    return x if x + wide <= right else left


def _crossings(line: Path, rows: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Yield from where to where each part of a line is between two heights."""
    at = line.start
    for piece in line.pieces:
        heights = [at[1], *piece[1::2]]
        if min(heights) <= rows[1] and max(heights) >= rows[0]:
            for (x, y), (u, v) in pairwise(_points(at, piece)):
                if min(y, v) <= rows[1] and max(y, v) >= rows[0]:
                    shares = [0.0, 1.0] if y == v else [min(max((row - y) / (v - y), 0.0), 1.0) for row in rows]
                    found = [x + (u - x) * share for share in shares]
                    yield min(found), max(found)
        at = piece[-2], piece[-1]


def _points(start: Point, piece: Sequence[float]) -> list[Point]:
    """Return the ends of the chords of a piece: straight, or a cubic curve."""
    if len(piece) == 2:
        return [start, (piece[0], piece[1])]
    (x, y), (a, b, c, d, u, v) = start, piece
    found = []
    for number in range(_CHORDS + 1):
        t = number / _CHORDS
        one, two, three, four = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        found.append((one * x + two * a + three * c + four * u, one * y + two * b + three * d + four * v))
    return found


__all__ = ["clear_place"]
