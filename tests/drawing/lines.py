"""Defects of the lines of a picture: a wire through a glyph, two wires in one place, an end that meets nothing.

Each function takes a `Picture` and returns the defects of one kind, each as a sentence that names both marks.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator

from circuits.drawing.marks import Circle, Mark, Path, Picture, Point, Text
from tests.drawing.shapes import (
    Index,
    Rect,
    Segment,
    along,
    around,
    box,
    cut,
    data,
    depth,
    distance,
    glyphs,
    grown,
    kind,
    name,
    outline,
    paths,
    segments,
    sides,
)

TOUCH = 0.6
"""How near two points are that are drawn as one."""

ROW = 28.0
"""How far the marks of one row may be apart in height; rows are farther apart."""

GAP = 12.0
"""How far the end of a wire may be from the text that it belongs to: a name at its left, a mark at its end."""

LINES = ("wire", "cup", "comma", "row", "inner")
"""The kinds of lines that no label and no other glyph may touch."""


def lines_through_glyphs(picture: Picture) -> list[str]:
    """Return the lines that run inside the outline of a glyph: what it takes ends on its left or right side."""
    index = Index([(glyph, box(glyph)) for glyph in glyphs(picture)])
    defects = []
    for line in paths(picture, *LINES):
        found: dict[int, Path | Circle] = {}
        for segment in segments(line):
            for glyph in index.near(around(segment)):
                if id(glyph) not in found and _runs_inside(segment, glyph):
                    found[id(glyph)] = glyph
        defects += [f"{name(line)} runs through {name(glyph)}" for glyph in found.values()]
    return defects


def _runs_inside(segment: Segment, glyph: Path | Circle) -> bool:
    """Return whether a part of a segment is more than a line's width inside an outline."""
    part = cut(segment, box(glyph) if isinstance(glyph, Circle) else around(outline(glyph)))
    corners = outline(glyph)
    return part is not None and any(depth(point, corners) > 1.0 for point in along(part, 0.5))


def coinciding_lines(picture: Picture) -> list[str]:
    """Return the pairs of lines that run along each other for more than two units, less than one unit apart.

    Near an end that they share, where one leaves or continues the other, two lines may be as near for longer.
    """
    lines = paths(picture, *LINES)
    index = Index([((number, each), around(each)) for number, line in enumerate(lines) for each in segments(line)])
    shared: dict[tuple[int, int], list[Point]] = defaultdict(list)
    for number, line in enumerate(lines):
        for segment in segments(line):
            for other, near in index.near(grown(around(segment), 1.0)):
                if other > number and _parallel(segment, near):
                    points = along(segment, 0.25)
                    shared[number, other] += [point for point in points if distance(point, near) < 1.0]
    defects = []
    for (one, two), points in shared.items():
        left = _away_from_shared_ends(lines[one], lines[two], points)
        if len(left) > 1 and math.dist(_corner(left, min), _corner(left, max)) > 2.0:
            defects.append(f"{name(lines[one])} runs along {name(lines[two])}")
    return defects


def _corner(points: list[Point], choose: Callable[[Iterator[float]], float]) -> Point:
    """Return a corner of the box around points."""
    return choose(x for x, _ in points), choose(y for _, y in points)


def _parallel(one: Segment, two: Segment) -> bool:
    """Return whether two segments have nearly one direction: less than 15 degrees apart."""
    (a, b), (c, d) = [(end[0] - start[0], end[1] - start[1]) for start, end in (one, two)]
    return abs(a * d - b * c) < math.sin(math.radians(15)) * math.hypot(a, b) * math.hypot(c, d)


def _away_from_shared_ends(one: Path, two: Path, points: list[Point]) -> list[Point]:
    """Return the points that are not near an end that two lines share; near a shared end is at most a third of a line.

    So two lines from one dot to another are apart between them, and a short line that is drawn twice is found.
    """
    ends = [end for end in (one.start, one.end) if any(math.dist(end, x) < TOUCH for x in (two.start, two.end))]
    near = min(GAP, math.dist(one.start, one.end) / 3, math.dist(two.start, two.end) / 3) if len(ends) > 1 else GAP
    return [point for point in points if all(math.dist(point, end) > near for end in ends)]


# Ends -----------------------------------------------------------------------------------------------------------------


def loose_ends(picture: Picture) -> list[str]:
    """Return the ends of wires that meet nothing, and those of cups and row arrows that meet no wire.

    The wire of a tensor without axes may begin anywhere: it is what is left where all axes have ended.
    """
    lines = paths(picture, "wire", "cup", "row", "inner")
    ends = [(number, end) for number, line in enumerate(lines) for end in (line.start, line.end)]
    points = Index([(each, grown(around([each[1]]), TOUCH)) for each in ends])
    marks = [mark for mark in picture.marks if kind(mark) in ("glyph", "dot", "memory", "text", "head")]
    sources = [mark for mark in picture.marks if kind(mark) == "source"]
    things = Index([(mark, grown(box(mark), GAP)) for mark in marks])
    edges = _edges(picture)
    loose = []
    for line, (start, end) in _ends(lines):
        at = around([start])
        others = [each for number, each in points.near(at) if lines[number] is not line]
        met = any(math.dist(start, each) <= TOUCH for each in others)
        open_end = kind(line) == "wire" and any(_at_edge(start, edge) for edge in edges)
        if not (met or open_end or any(_meets(start, line, mark) for mark in [*things.near(at), *sources])):
            loose.append((line, f"the {end} of {name(line)} at ({start[0]:.1f}, {start[1]:.1f}) meets nothing"))
    loose = [(line, said) for line, said in loose if not (data(line).get("axis") == "scalar" and "the start" in said)]
    free = [id(line) for line, _ in loose if kind(line) == "row"]
    return [said for line, said in loose if kind(line) != "row" or free.count(id(line)) == 2]


def _ends(lines: list[Path]) -> Iterator[tuple[Path, tuple[Point, str]]]:
    for line in lines:
        yield line, (line.start, "start")
        yield line, (line.end, "end")


def _meets(end: Point, line: Path, mark: Mark) -> bool:
    """Return whether the end of a wire meets a glyph's side, a dot, or the text that names or closes it."""
    if kind(mark) == "dot" and isinstance(mark, Circle):
        return math.dist(end, (mark.x, mark.y)) <= mark.radius + TOUCH
    if not isinstance(mark, Text) and kind(mark) in ("glyph", "memory"):
        corners = outline(mark)
        left, top, right, bottom = around(corners)
        crossed = sides(corners, min(max(end[1], top), bottom)) if top - TOUCH <= end[1] <= bottom + TOUCH else None
        return crossed is not None and any(abs(end[0] - side) <= TOUCH for side in crossed)
    if kind(mark) == "source":
        return data(mark).get("value") == data(line).get("value") and end[0] <= box(mark)[2] + 2 * GAP
    if kind(mark) == "head":
        left, top, right, bottom = grown(box(mark), 2 * TOUCH)
        return left <= end[0] <= right and top <= end[1] <= bottom
    if kind(mark) in ("text", "memory"):
        left, top, right, bottom = box(mark)
        return top <= end[1] <= bottom and min(abs(end[0] - left), abs(end[0] - right)) <= GAP
    return False


def rows(picture: Picture) -> list[Rect]:
    """Return the boxes around the rows of a picture: groups of marks with nothing between them at any height."""
    found: list[Rect] = []
    for rect in sorted([box(mark) for mark in picture.marks if kind(mark)], key=lambda rect: rect[1]):
        if found and rect[1] <= found[-1][3] + ROW:
            last = found.pop()
            rect = min(last[0], rect[0]), last[1], max(last[2], rect[2]), max(last[3], rect[3])
        found.append(rect)
    return found


def _edges(picture: Picture) -> list[tuple[float, Rect]]:
    """Return the left edge of the first row and the right edge of the last, where inputs enter and results leave."""
    lines, found = paths(picture, "wire", "cup", "row"), rows(picture)
    edges = []
    for row, choose in ((found[:1], min), (found[-1:], max)):
        for each in row:
            boxes = [box(line) for line in lines]
            xs = [x for rect in boxes for x in rect[::2] if each[1] <= rect[1] and rect[3] <= each[3]]
            edges += [(choose(xs), each)] if xs else []
    return edges


def _at_edge(end: Point, edge: tuple[float, Rect]) -> bool:
    x, row = edge
    return abs(end[0] - x) <= TOUCH and row[1] - TOUCH <= end[1] <= row[3] + TOUCH
