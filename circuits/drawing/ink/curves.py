"""Lines as plain pieces for every ink: the two lines of a pair of axes, and curves as points.

Nothing here knows a format. A piece is a point for a straight line, or two control points and a point for a cubic.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

from circuits.drawing.marks import Path, Point
from circuits.errors import CircuitError

GAP = 4.0
"""The distance between the two lines of a pair of axes, in units."""

_TURN = math.cos(math.radians(25))
"""A cubic that turns by more than 25 degrees is cut in two before it is moved to the side."""

Line = tuple[Point, list[tuple[Point, ...]]]
"""A first point and its pieces."""


def number(value: float) -> str:
    """Return a number with at most two decimals.

    >>> [number(value) for value in (2.0, 0.125, -0.001, 10.5)]
    ['2', '0.12', '0', '10.5']

    Args:
        value: A coordinate; what is not finite raises a `CircuitError`.
    """
    if not math.isfinite(value):
        raise CircuitError(f"a picture has the coordinate {value}")
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def lines(path: Path) -> list[Line]:
    """Return the lines that are drawn for a path: itself, or the two at its sides if it is double.

    Args:
        path: The mark.
    """
    plain: Line = (path.start, [tuple(zip(piece[::2], piece[1::2], strict=True)) for piece in path.pieces])
    if not path.double:
        return [plain]
    return [_moved(plain, -GAP / 2), _moved(plain, GAP / 2)]


def points(line: Line, parts: int = 16) -> Iterator[Point]:
    """Yield points of a line, with its curves as chords.

    Args:
        line: A first point and its pieces.
        parts: How many chords a cubic has.
    """
    before, pieces = line
    yield before
    for piece in pieces:
        if len(piece) == 3:
            yield from (_at(before, *piece, step / parts) for step in range(1, parts))
        before = piece[-1]
        yield before


def _mix(a: Point, b: Point, t: float) -> Point:
    """The point at share `t` between two."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)


def _split(cubic: tuple[Point, ...], t: float) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """The two parts of a cubic before and after `t`, by de Casteljau's rule."""
    rows = [cubic]
    while len(rows[-1]) > 1:
        rows.append(tuple(_mix(a, b, t) for a, b in pairwise(rows[-1])))
    return tuple(row[0] for row in rows), tuple(row[-1] for row in reversed(rows))


def _at(a: Point, b: Point, c: Point, d: Point, t: float) -> Point:
    """The point of a cubic at `t`."""
    s = 1 - t
    p, q, r, u = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
    return p * a[0] + q * b[0] + r * c[0] + u * d[0], p * a[1] + q * b[1] + r * c[1] + u * d[1]


def _bent(cubic: tuple[Point, ...], depth: int = 6) -> Iterator[tuple[Point, ...]]:
    """The parts of a cubic that turn little."""
    first, second = _split(cubic, 0.5)
    a, b, c = _normal(first), _normal(second), _normal(cubic[::-1])
    straight = min(a[0] * b[0] + a[1] * b[1], -b[0] * c[0] - b[1] * c[1]) >= _TURN
    if straight or not depth:
        yield cubic
    else:
        yield from _bent(first, depth - 1)
        yield from _bent(second, depth - 1)


def _normal(points: tuple[Point, ...]) -> Point:
    """The unit normal of the first step between two different points; none of no length."""
    for (x, y), (u, v) in pairwise(points):
        length = math.hypot(u - x, v - y)
        if length > 1e-9:
            return ((y - v) / length, (u - x) / length)
    return (0.0, 0.0)


def _joint(a: Point, b: Point) -> Point:
    """The step that is one to the side of both lines with these normals (their mitre), at most two long."""
    across = 1 + a[0] * b[0] + a[1] * b[1]
    return ((a[0] + b[0]) / max(across, 0.5), (a[1] + b[1]) / max(across, 0.5))


def _moved(line: Line, side: float) -> Line:
    """A line at a distance to the side of another, its curves in short parts."""
    start, pieces = line
    short: list[tuple[Point, ...]] = []
    before = start
    for piece in pieces:
        whole = (before, *piece)
        short += _bent(whole) if len(piece) == 3 else [whole]
        before = piece[-1]
    short = [piece for piece in short if _normal(piece) != (0.0, 0.0)]
    if not short:
        return line
    first = [_normal(piece) for piece in short]
    last = [(-x, -y) for x, y in (_normal(piece[::-1]) for piece in short)]
    steps = [first[0], *(_joint(a, b) for a, b in zip(last[:-1], first[1:], strict=True)), last[-1]]
    ends = [piece[0] for piece in short] + [short[-1][-1]]
    ends = [(x + u * side, y + v * side) for (x, y), (u, v) in zip(ends, steps, strict=True)]
    return ends[0], [_between(piece, a, b) for piece, (a, b) in zip(short, pairwise(ends), strict=True)]


def _between(piece: tuple[Point, ...], a: Point, b: Point) -> tuple[Point, ...]:
    """A piece moved to new ends, its control points at distances in proportion to the chord."""
    if len(piece) == 2:
        return (b,)
    (x, y), (x1, y1), (x2, y2), (u, v) = piece
    chord = math.hypot(u - x, v - y)
    scale = math.hypot(b[0] - a[0], b[1] - a[1]) / chord if chord else 1.0
    return (
        (a[0] + (x1 - x) * scale, a[1] + (y1 - y) * scale),
        (b[0] + (x2 - u) * scale, b[1] + (y2 - v) * scale),
        b,
    )


__all__ = ["GAP", "Line", "lines", "number", "points"]
