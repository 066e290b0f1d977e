"""Boxes, outlines and lines of the marks of a picture: what the judges in `geometry` and `rebuild` measure.

Nothing here knows how a picture is laid out: a shape is computed from one mark and the table of widths of letters.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Generic, TypeVar

from circuits.drawing.marks import Circle, Mark, Path, Picture, Point, Text
from circuits.drawing.widths import line, width

Rect = tuple[float, float, float, float]
"""A box by its left, top, right and bottom."""

Segment = tuple[Point, Point]

ASCENT, DESCENT = 0.72, 0.22
"""How far letters reach above and below the baseline, in sizes of the font."""

LEVEL = frozenset("abcdehiklmnorstuvwxzABCDEFGHIKLMNOPRSTUVWXYZ0123456789+−=.·×★Σ𝔼λκαδθω′ ")
"""Characters that do not reach below the baseline."""

CURVE = 24
"""In how many chords a cubic curve is measured: at most a few units each."""

WEIGHTS = [
    ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3) for t in [n / CURVE for n in range(1, CURVE + 1)]
]
"""How much each of the four points counts at the ends of the chords."""

Thing = TypeVar("Thing")


@lru_cache(20_000)
def data(mark: Mark) -> dict[str, str]:
    """Return what a mark stands for."""
    return dict(mark.data)


def kind(mark: Mark) -> str:
    """Return the kind of a mark, or an empty text."""
    return data(mark).get("kind", "")


@lru_cache(20_000)
def polyline(path: Path) -> list[Point]:
    """Return the points of a path, its curves in chords."""
    found = [path.start]
    for piece in path.pieces:
        found += [piece[:2]] if len(piece) == 2 else list(cubic(found[-1], piece))
    return [*found, path.start] if path.closed else found


def cubic(start: Point, piece: Sequence[float]) -> Iterator[Point]:
    """Yield points of a cubic curve after its start; its six numbers are two control points and its end."""
    (x, y), (x1, y1, x2, y2, x3, y3) = start, piece
    for a, b, c, d in WEIGHTS:
        yield a * x + b * x1 + c * x2 + d * x3, a * y + b * y1 + c * y2 + d * y3


@lru_cache(20_000)
def segments(path: Path) -> list[Segment]:
    """Return the chords of a path that are not points."""
    return [(one, two) for one, two in pairwise(polyline(path)) if one != two]


@lru_cache(20_000)
def outline(mark: Path | Circle) -> list[Point]:
    """Return the corners of the area of a mark; a stroke of one straight piece is as wide as its line."""
    if isinstance(mark, Circle):
        angles = [2 * math.pi * number / 48 for number in range(48)]
        return [(mark.x + mark.radius * math.cos(a), mark.y + mark.radius * math.sin(a)) for a in angles]
    points = polyline(mark)
    left, top, right, bottom = around(points)
    if left == right or top == bottom:
        left, top, right, bottom = grown(around(points), mark.width / 2)
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    return points[:-1] if points[0] == points[-1] else points


def around(points: Sequence[Point]) -> Rect:
    """Return the box around points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


@lru_cache(20_000)
def box(mark: Mark) -> Rect:
    """Return the box around a mark, the width of its line not counted."""
    if isinstance(mark, Text):
        return text_box(mark)
    return around(outline(mark) if isinstance(mark, Circle) else polyline(mark))


@lru_cache(20_000)
def text_box(text: Text) -> Rect:
    """Return the box around a text: wide as its letters, high as ascenders, descenders, bars and shifted letters."""
    wide = width(text.spans, text.size)
    left = text.x - {"start": 0.0, "middle": wide / 2, "end": wide}[text.anchor]
    places = list(line(text.spans, text.size))
    above = [place.rise + ASCENT * place.size for place in places]
    above += [place.bar[2] + 1.0 for place in places if place.span.over]
    below = [place.rise - (0.02 if LEVEL.issuperset(place.text) else DESCENT) * place.size for place in places]
    return left, text.y - max(above, default=0.0), left + wide, text.y - min(below, default=0.0)


def grown(rect: Rect, by: float) -> Rect:
    """Return a box with all sides moved outward; inward if `by` is negative."""
    return rect[0] - by, rect[1] - by, rect[2] + by, rect[3] + by


def overlap(one: Rect, two: Rect) -> bool:
    """Return whether two boxes share an area."""
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def cut(segment: Segment, rect: Rect) -> Segment | None:
    """Return the part of a segment inside a box, or None."""
    (x, y), (dx, dy) = segment[0], (segment[1][0] - segment[0][0], segment[1][1] - segment[0][1])
    low, high = 0.0, 1.0
    for step, inside in ((-dx, x - rect[0]), (dx, rect[2] - x), (-dy, y - rect[1]), (dy, rect[3] - y)):
        if step == 0 and inside < 0:
            return None
        if step < 0:
            low = max(low, inside / step)
        elif step > 0:
            high = min(high, inside / step)
    return ((x + low * dx, y + low * dy), (x + high * dx, y + high * dy)) if low <= high else None


def along(segment: Segment, step: float) -> Iterator[Point]:
    """Yield points of a segment, from end to end, at most `step` apart."""
    (x, y), (u, v) = segment
    count = max(1, math.ceil(math.dist(*segment) / step))
    for number in range(count + 1):
        yield x + (u - x) * number / count, y + (v - y) * number / count


def inside(point: Point, corners: Sequence[Point]) -> bool:
    """Return whether a point is inside an outline."""
    x, y = point
    found = False
    for (a, b), (c, d) in pairwise([*corners, corners[0]]):
        if (b > y) != (d > y) and x < a + (y - b) * (c - a) / (d - b):
            found = not found
    return found


def distance(point: Point, segment: Segment) -> float:
    """Return the distance of a point from a segment."""
    (x, y), (a, b), (c, d) = point, *segment
    length = (c - a) ** 2 + (d - b) ** 2
    t = max(0.0, min(1.0, ((x - a) * (c - a) + (y - b) * (d - b)) / length)) if length else 0.0
    return math.dist(point, (a + t * (c - a), b + t * (d - b)))


def depth(point: Point, corners: Sequence[Point]) -> float:
    """Return how far inside an outline a point is; 0 outside."""
    if not inside(point, corners):
        return 0.0
    return min([distance(point, side) for side in pairwise([*corners, corners[0]])])


def sides(corners: Sequence[Point], y: float) -> tuple[float, float] | None:
    """Return where a horizontal line meets the left and the right side of an outline; None above and below it."""
    found = []
    for (a, b), (c, d) in pairwise([*corners, corners[0]]):
        if min(b, d) <= y <= max(b, d):
            found += [a, c] if b == d else [a + (y - b) * (c - a) / (d - b)]
    return (min(found), max(found)) if found else None


class Index(Generic[Thing]):
    """Things by their boxes: which of them may be near a box.

    Args:
        items: The things with their boxes.
        cell: The size of the squares by which they are found.
    """

    def __init__(self, items: Sequence[tuple[Thing, Rect]], cell: float = 48.0) -> None:
        self.cell, self.boxes = cell, [(thing, grown(rect, 1e-6)) for thing, rect in items]
        self.found: dict[tuple[int, int], list[int]] = {}
        for number, (_, rect) in enumerate(self.boxes):
            for key in self._cells(rect):
                self.found.setdefault(key, []).append(number)

    def _cells(self, rect: Rect) -> Iterator[tuple[int, int]]:
        left, top, right, bottom = [math.floor(side / self.cell) for side in rect]
        for x in range(left, right + 1):
            for y in range(top, bottom + 1):
                yield x, y

    def near(self, rect: Rect) -> list[Thing]:
        """Return the things whose boxes touch a box, in their order."""
        numbers = {number for key in self._cells(rect) for number in self.found.get(key, ())}
        touching = [number for number in sorted(numbers) if overlap(self.boxes[number][1], rect)]
        return [self.boxes[number][0] for number in touching]


# Marks ----------------------------------------------------------------------------------------------------------------


def name(mark: Mark) -> str:
    """Return a mark in words: what it stands for and where it is."""
    left, top, right, bottom = box(mark)
    said = [f"{key} {value}" for key, value in mark.data if key not in ("kind", "box", "in", "out") and value]
    where = f"({left:.0f}, {top:.0f})–({right:.0f}, {bottom:.0f})"
    own = [f"box {value}" for key, value in mark.data if key == "box"]
    text = [repr(mark.plain)] if isinstance(mark, Text) else []
    return " ".join([kind(mark) or type(mark).__name__, *text, *said, *own, "at", where])


def paths(picture: Picture, *kinds: str) -> list[Path]:
    """Return the paths of these kinds, in the order in which they are drawn."""
    return [mark for mark in picture.marks if isinstance(mark, Path) and kind(mark) in kinds]


def texts(picture: Picture) -> list[Text]:
    """Return the texts that are drawn."""
    return [mark for mark in picture.marks if isinstance(mark, Text) and mark.plain.strip()]


def glyphs(picture: Picture) -> list[Path | Circle]:
    """Return the outlines of operations."""
    return [mark for mark in picture.marks if not isinstance(mark, Text) and kind(mark) == "glyph"]
