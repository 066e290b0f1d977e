"""A picture as text for a terminal: the same places in rows and columns, drawn with box-drawing characters.

What is left of something in the picture is left of it in the text, and what is above it above: rows and columns are
only as far apart as the words between them need, or as far as in the picture if there is room. Two wires that cross are
a ┼, or ╳ if they change places; wires that are joined have a ●. A pair of axes is a double line, an error a thick one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from circuits.drawing.ink.bends import Cross, Turned, turned
from circuits.drawing.ink.canvas import UPRIGHT, Canvas, columns
from circuits.drawing.ink.letters import drawn, shown, spelled
from circuits.drawing.ink.levels import Columns, Interval, rows
from circuits.drawing.ink.parts import DOUBLE, HEAVY, Pieces, Stroke, Word, extent
from circuits.drawing.ink.pieces import pieces_of
from circuits.drawing.marks import Mark, Picture, Point
from circuits.errors import CircuitError

_NARROWEST = 20
_APART = 30.0
"""Marks with so much between them have rows and columns of their own."""

_SEEN = 10.0
"""A line that is longer is seen between what stands at its ends."""


def terminal(picture: Picture, width: int | None, letters: Literal["unicode", "ascii"] = "unicode") -> str:
    """Return a picture as lines of text.

    Args:
        picture: What is drawn, and where.
        width: The most columns of a line; `None` for as many as the picture has. A picture that needs more goes on
            below itself: its lines end in ▸ and begin again with ▸.
        letters: "unicode" or "ascii".
    """
    if width is not None and (not isinstance(width, int) or width < _NARROWEST):
        raise CircuitError(f"width is {width!r}; it is a number of columns, {_NARROWEST} or more, or None")
    if letters not in ("unicode", "ascii"):
        raise CircuitError(f"letters is {letters!r}; it is 'unicode' or 'ascii'")
    parts: list[str] = []
    for band in _bands(picture.marks):
        parts += _lines(_drawn(pieces_of(band, spelled if letters == "ascii" else shown), width), width)
    text = "\n\n".join(parts) + "\n" if parts else ""
    return drawn(text) if letters == "ascii" else text


def _bands(marks: Sequence[Mark]) -> list[list[Mark]]:
    """The marks in groups from top to bottom, between which no mark reaches."""
    found: list[list[int]] = []
    reach = 0.0
    extents = [extent(mark) for mark in marks]
    for number in sorted(range(len(marks)), key=lambda number: extents[number][1]):
        if not found or extents[number][1] > reach + _APART:
            found.append([])
            reach = extents[number][3]
        found[-1].append(number)
        reach = max(reach, extents[number][3])
    return [[marks[number] for number in sorted(band)] for band in found]


# --- Places -----------------------------------------------------------------------------------------------------------


def _drawn(pieces: Pieces, width: int | None) -> Canvas:
    """The pieces on a sheet."""
    bends = turned(pieces.bends)
    strokes = pieces.strokes + bends.strokes
    turns = _turns(bends)
    pieces.signs[:] = [replace(sign, x=turns.get(_spot(sign.x, sign.y), sign.x)) for sign in pieces.signs]
    row = rows(_heights(pieces, strokes, bends.crosses), {stroke.at for stroke in strokes if stroke.level})
    column = _columns(pieces, strokes, bends, row).columns(width)
    canvas = Canvas()
    for frame in pieces.frames:
        _frame(canvas, (row[frame.top], row[frame.bottom]), (column[frame.left], column[frame.right]), frame.bracket)
    for stroke in strokes:
        _stroke(canvas, stroke, row, column)
    for cross in bends.crosses:
        _cross(canvas, cross, row, column)
    for sign in pieces.signs:
        canvas.write(row[sign.y], column[sign.x], sign.text)
    for word in pieces.words:
        room = column[word.right] - column[word.left] - _length(word)
        shift = {"start": 0, "middle": room // 2, "end": room}[word.anchor]
        canvas.write(row[word.y], column[word.left] + shift, word.text)
    return canvas


def _turns(bends: Turned) -> dict[Point, float]:
    """Where a dot is shown at which bends end or begin: the first of them leaves its row there, or the last enters."""
    found: dict[Point, float] = {}
    for bend, _, last in bends.turns:
        spot = _spot(*bend.end)
        found[spot] = max(last, found.get(spot, last))
    for bend, first, _ in reversed(bends.turns):
        spot = _spot(*bend.start)
        found[spot] = min(first, found.get(spot, first))
    return found


def _spot(x: float, y: float) -> Point:
    return round(x, 1), round(y, 1)


def _length(word: Word) -> int:
    return sum(map(columns, word.text))


def _heights(pieces: Pieces, strokes: Sequence[Stroke], crosses: Sequence[Cross]) -> dict[float, list[Interval]]:
    """The heights at which something stands, with what it covers from left to right."""
    found: dict[float, list[Interval]] = {}

    def add(y: float, left: float, right: float) -> None:
        found.setdefault(y, []).append((left, right))

    for stroke in strokes:
        for y in (stroke.at,) if stroke.level else (stroke.start, stroke.end):
            add(y, *((stroke.start, stroke.end) if stroke.level else (stroke.at, stroke.at)))
    for word in pieces.words:
        add(word.y, word.left, word.right)
    for sign in pieces.signs:
        add(sign.y, sign.x - 4, sign.x + 4)
    for frame in pieces.frames:
        add(frame.top, frame.left, frame.right)
        add(frame.bottom, frame.left, frame.right)
    for cross in crosses:
        for bend in (cross.falling, cross.rising):
            add(bend.start[1], bend.start[0], cross.last)
            add(bend.end[1], cross.turn, bend.end[0])
        add((cross.falling.start[1] + cross.falling.end[1]) / 2, cross.turn, cross.last)
    return found


def _columns(pieces: Pieces, strokes: Sequence[Stroke], bends: Turned, row: dict[float, int]) -> Columns:
    """The places from left to right, and how far apart they have to be."""
    places: list[float] = []
    for stroke in strokes:
        places += (stroke.start, stroke.end) if stroke.level else (stroke.at,)
    places += [sign.x for sign in pieces.signs]
    places += [x for frame in pieces.frames for x in (frame.left, frame.right)]
    needed: dict[Interval, int] = {}
    for word in pieces.words:
        needed[word.left, word.right] = max(needed.get((word.left, word.right), 0), _length(word))
    for stroke in pieces.strokes:
        if stroke.level and stroke.end - stroke.start > _SEEN:
            needed.setdefault((stroke.start, stroke.end), 2)
    for cross in bends.crosses:
        places += [bend_end[0] for bend in (cross.falling, cross.rising) for bend_end in (bend.start, bend.end)]
        height = row[cross.falling.end[1]] - row[cross.falling.start[1]]
        needed[cross.turn, cross.last] = max(needed.get((cross.turn, cross.last), 0), height + 1)
    upright = [turn for _, *turns in bends.turns for turn in turns] + [
        place for cross in bends.crosses for place in (cross.turn, cross.last)
    ]
    upright += [stroke.at for stroke in strokes if not stroke.level and not stroke.square and stroke.weight != HEAVY]
    return Columns(places, needed, upright)


# --- Drawing ----------------------------------------------------------------------------------------------------------


def _stroke(canvas: Canvas, stroke: Stroke, row: dict[float, int], column: dict[float, int]) -> None:
    draw, along, across = (canvas.level, column, row) if stroke.level else (canvas.upright, row, column)
    ends = along[stroke.start], along[stroke.end]
    draw(across[stroke.at], min(ends), max(ends), stroke.weight, stroke.dash, stroke.square)


def _frame(canvas: Canvas, ys: tuple[int, int], xs: tuple[int, int], bracket: str) -> None:
    """The dotted sides of a frame, or a tall bracket."""
    (top, bottom), (left, right) = ys, xs
    if bracket:
        upper, middle, lower = "⎛⎜⎝" if bracket == "(" else "⎞⎟⎠"
        for y in range(top, bottom + 1):
            canvas.behind(y, left, upper if y == top else lower if y == bottom else middle)
        return
    for y, corners in ((top, "┌┐"), (bottom, "└┘")):
        for x in range(left, right + 1):
            canvas.behind(y, x, corners[0] if x == left else corners[1] if x == right else "┄")
    for y in range(top + 1, bottom):
        canvas.behind(y, left, "┆")
        canvas.behind(y, right, "┆")


def _cross(canvas: Canvas, cross: Cross, row: dict[float, int], column: dict[float, int]) -> None:
    """Two wires that change places along the two diagonals of a square."""
    top, bottom, left = row[cross.falling.start[1]], row[cross.falling.end[1]], column[cross.turn]
    right = left + bottom - top
    for bend, first, last in ((cross.falling, top, bottom), (cross.rising, bottom, top)):
        canvas.level(first, column[bend.start[0]], left, bend.weight, bend.dash)
        canvas.level(last, right, column[bend.end[0]], bend.weight, bend.dash)
    one, two = ("╗╚" if cross.falling.weight == DOUBLE else "╮╰"), ("╝╔" if cross.rising.weight == DOUBLE else "╯╭")
    for x, y, letter in ((left, top, one[0]), (right, bottom, one[1]), (left, bottom, two[0]), (right, top, two[1])):
        canvas.write(y, x, letter)
    for step in range(1, bottom - top):
        canvas.write(top + step, left + step, "╲")
        canvas.write(bottom - step, left + step, "╳" if 2 * step == bottom - top else "╱")


# --- Lines ------------------------------------------------------------------------------------------------------------


def _lines(canvas: Canvas, width: int | None) -> Iterator[str]:
    """The text of a sheet: in one part, or in as many as its width needs."""
    height, whole = canvas.size
    kept = canvas.cuts() if width is not None and whole > width else (set[int](), set[int]())
    start = 0
    while start < whole:
        end = whole
        if width is not None and whole - start > width - (start > 0):
            room = width - 1 - (start > 0)
            parts = -(-(whole - start) // room)
            end = _cut(start, min(room, -(-(whole - start) // parts) + room // 10), room, kept)
        lines = canvas.lines(height, start, end)
        for row, text in enumerate(lines):
            before = "▸" if start and canvas.stroke(row, start - 1) else " " if start else ""
            after = "▸" if end < whole and canvas.stroke(row, end - 1) else ""
            lines[row] = (before + text + after).rstrip()
        yield "\n".join(_trimmed(lines))
        start = end


def _cut(start: int, wanted: int, room: int, kept: tuple[set[int], set[int]]) -> int:
    """The column at which a text goes on below: near the wanted number of columns, if it can be in no box or word."""
    tried = [*range(wanted, wanted // 2, -1), *range(wanted + 1, room + 1), *range(wanted // 2, 0, -1)]
    words, boxes = kept
    for forbidden in (boxes, words):
        for columns_before in tried:
            if start + columns_before not in forbidden:
                return start + columns_before
    return start + room


def _trimmed(lines: list[str]) -> list[str]:
    """Lines without empty ones at the ends, and without those that only repeat the upright lines above them."""
    kept = [line for before, line in pairwise(["", *lines]) if line != before or set(line) - UPRIGHT]
    filled = [number for number, line in enumerate(kept) if line]
    return kept[filled[0] : filled[-1] + 1] if filled else []


__all__ = ["terminal"]
