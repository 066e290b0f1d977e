"""Defects of a picture, each as a sentence that names both marks: what a reader would see, measured on the marks.

Each function takes a `Picture` and returns the defects of one kind; `defects` returns those of all kinds. They know the
convention of `circuits.drawing.marks` and nothing of the layout.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

from circuits.drawing.marks import Circle, Mark, Path, Picture, Point, Text
from tests.drawing.lines import LINES, coinciding_lines, lines_through_glyphs, loose_ends, rows
from tests.drawing.shapes import (
    Index,
    Rect,
    Segment,
    around,
    box,
    cut,
    data,
    glyphs,
    grown,
    inside,
    kind,
    name,
    outline,
    overlap,
    paths,
    segments,
    text_box,
    texts,
)

ALLOWED = 0.5
"""How far two marks may overlap, in units."""

# Labels ---------------------------------------------------------------------------------------------------------------


def overlapping_labels(picture: Picture) -> list[str]:
    """Return the pairs of texts that overlap."""
    found = texts(picture)
    index = Index([(number, text_box(text)) for number, text in enumerate(found)])
    defects = []
    for number, text in enumerate(found):
        rect = grown(text_box(text), -ALLOWED / 2)
        for other in index.near(rect):
            if other > number and overlap(rect, grown(text_box(found[other]), -ALLOWED / 2)):
                defects.append(f"{name(text)} overlaps {name(found[other])}")
    return defects


def labels_on_lines(picture: Picture) -> list[str]:
    """Return the texts that lie on a line: a wire, a cup, a comma, an arrow or a bracket, also one of their own."""
    lines = [*paths(picture, *LINES, "head", "bracket")]
    dots = [mark for mark in picture.marks if isinstance(mark, Circle) and kind(mark) == "dot"]
    index = Index([(line, grown(box(line), _half(line))) for line in [*lines, *dots]])
    defects = []
    for text in texts(picture):
        rect = grown(text_box(text), -ALLOWED)
        for line in index.near(rect):
            if isinstance(line, Circle) or any(cut(each, _widened(rect, line, each)) for each in segments(line)):
                defects.append(f"{name(text)} lies on {name(line)}")
    return defects


def _widened(rect: Rect, line: Path, segment: Segment) -> Rect:
    """Return a box, larger by half the width of a line on the sides from which the line could overlap it."""
    (x, y), (u, v) = segment
    across, along = [_half(line) * abs(step) / math.dist(*segment) for step in (v - y, u - x)]
    return rect[0] - across, rect[1] - along, rect[2] + across, rect[3] + along


def labels_on_glyphs(picture: Picture) -> list[str]:
    """Return the texts that lie on a glyph, or on the box of a memory, that is not their own."""
    memories = paths(picture, "memory")
    index = Index([(glyph, box(glyph)) for glyph in [*glyphs(picture), *memories]])
    defects = []
    for text in texts(picture):
        rect = grown(text_box(text), -ALLOWED)
        for glyph in index.near(rect):
            if not _own(text, glyph) and _covers(outline(glyph), rect):
                defects.append(f"{name(text)} lies on {name(glyph)}")
    return defects


def texts_out_of_glyphs(picture: Picture) -> list[str]:
    """Return the texts in a drawn outline that are wider or higher than it."""
    found = defaultdict(list)
    for glyph in glyphs(picture):
        if glyph.stroke or glyph.fill:
            found[data(glyph).get("box", "")].append(glyph)
    defects = []
    for text in texts(picture):
        left, top, right, bottom = rect = text_box(text)
        middle = (left + right) / 2, (top + bottom) / 2
        for glyph in found[data(text).get("box", "")] if kind(text) == "text" else ():
            around = grown(box(glyph), ALLOWED)
            fits = around[0] <= left and right <= around[2] and around[1] <= top and bottom <= around[3]
            if overlap(rect, box(glyph)) and inside(middle, outline(glyph)) and not fits:
                defects.append(f"{name(text)} is larger than {name(glyph)}")
    return defects


def _own(text: Text, glyph: Path | Circle) -> bool:
    """Return whether a text is the text of a glyph: inside an operation, or of a memory."""
    one, two = data(text), data(glyph)
    if kind(glyph) == "memory":
        return kind(text) == "memory" and one.get("value") == two.get("value")
    return kind(text) == "text" and one.get("box") == two.get("box")


def _covers(corners: Sequence[Point], rect: Rect) -> bool:
    """Return whether an outline and a box share an area."""
    left, top, right, bottom = rect
    for edge in pairwise([*corners, corners[0]]):
        if cut(edge, rect):
            return True
    return inside(((left + right) / 2, (top + bottom) / 2), corners)


def _half(line: Path | Circle) -> float:
    """Return how far the ink of a line reaches from its middle."""
    return line.width / 2 + (2.0 if isinstance(line, Path) and line.double else 0.0)


# Order and bounds -----------------------------------------------------------------------------------------------------


def boxes_out_of_order(picture: Picture) -> list[str]:
    """Return the pairs of boxes of which one reads what the other returns, and is not right of it or in a later row."""
    bands = rows(picture)
    groups: dict[str, list[Mark]] = defaultdict(list)
    for mark in picture.marks:
        if kind(mark) in ("glyph", "float") and "box" in data(mark):
            groups[data(mark)["box"]].append(mark)
    makers: dict[str, str] = {}
    for number, marks in groups.items():
        makers |= {value: number for mark in marks for value in data(mark).get("out", "").split()}
    defects = []
    for number, marks in groups.items():
        for value in sorted({value for mark in marks for value in data(mark).get("in", "").split()}):
            maker = makers.get(value, number)
            if maker != number and not _after(marks, groups[maker], bands):
                defects.append(f"{name(marks[0])} reads {value} and is not after {name(groups[maker][0])}")
    return defects


def _after(later: list[Mark], earlier: list[Mark], bands: list[Rect]) -> bool:
    """Return whether marks are in a later row than others, or right of them."""
    one, two = [around([corner for mark in marks for corner in _corners(box(mark))]) for marks in (later, earlier)]
    first, second = [_band(rect, bands) for rect in (two, one)]
    return second > first or (second == first and one[0] >= two[2] - ALLOWED)


def _corners(rect: Rect) -> tuple[Point, Point]:
    return rect[:2], rect[2:]


def _band(rect: Rect, bands: list[Rect]) -> int:
    """Return the number of the row in which a box is, or of the row below it."""
    return next((number for number, band in enumerate(bands) if rect[1] <= band[3]), len(bands))


def marks_out_of_bounds(picture: Picture) -> list[str]:
    """Return what is wrong with the picture as a whole: it is empty, or a mark is outside it or is no number."""
    defects = [] if [mark for mark in picture.marks if kind(mark) != "fence"] else ["the picture is empty"]
    frame = grown((0.0, 0.0, picture.width, picture.height), ALLOWED)
    for mark in picture.marks:
        if not all(math.isfinite(number) for number in _numbers(mark)):
            defects.append(f"{kind(mark)} {mark.data} has a place that is no number")
            continue
        rect = box(mark)
        if rect[0] < frame[0] or rect[1] < frame[1] or rect[2] > frame[2] or rect[3] > frame[3]:
            defects.append(f"{name(mark)} is outside the picture, which is {picture.width:.0f} × {picture.height:.0f}")
    return defects


def _numbers(mark: Mark) -> tuple[float, ...]:
    if isinstance(mark, Path):
        return (*mark.start, *[number for piece in mark.pieces for number in piece])
    return (mark.x, mark.y, mark.radius if isinstance(mark, Circle) else mark.size)


KINDS: dict[str, Callable[[Picture], list[str]]] = {
    "overlapping labels": overlapping_labels,
    "labels on lines": labels_on_lines,
    "labels on glyphs": labels_on_glyphs,
    "texts out of glyphs": texts_out_of_glyphs,
    "lines through glyphs": lines_through_glyphs,
    "coinciding lines": coinciding_lines,
    "loose ends": loose_ends,
    "boxes out of order": boxes_out_of_order,
    "out of bounds": marks_out_of_bounds,
}


def defects(picture: Picture) -> list[str]:
    """Return every defect of a picture, each with its kind."""
    broken = [f"out of bounds: {defect}" for defect in marks_out_of_bounds(picture) if defect.endswith("no number")]
    return broken or [f"{title}: {defect}" for title, find in KINDS.items() for defect in find(picture)]
