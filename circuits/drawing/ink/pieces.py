"""The marks of a picture as the parts that a terminal can show.

Places are still those of the picture. A curve becomes strokes with corners; a glyph whose shape no line of text can
have becomes a sign (a triangle ◁, a circle ○, an arrow head ▸) or a box.
"""

import math
from collections.abc import Callable, Sequence

from circuits.drawing.ink.arrows import between_heads, row_arrows
from circuits.drawing.ink.curves import points
from circuits.drawing.ink.parts import (
    DOUBLE,
    HEAVY,
    LIGHT,
    Bend,
    Frame,
    Pieces,
    Sign,
    Stroke,
    Word,
    extent,
    left_of,
    middle_of,
    path_points,
)
from circuits.drawing.marks import Circle, Mark, Path, Point, Span, Text
from circuits.drawing.widths import width


def pieces_of(marks: Sequence[Mark], shown: Callable[[Span], str]) -> Pieces:
    """Return the pieces of marks.

    Args:
        marks: The marks of a picture, or of a part of it.
        shown: How a span is written in one line.
    """
    found = Pieces()
    titles = {dict(mark.data).get("box"): mark for mark in marks if ("kind", "title") in mark.data}
    between, rows = between_heads(marks, shown), row_arrows(marks)
    for mark in marks:
        kind = dict(mark.data).get("kind")
        word = between.get(id(mark))
        if id(mark) in between:
            found.words += [word] if word else []
        elif id(mark) in rows and isinstance(mark, Path):
            _row_arrow(found, mark, rows[id(mark)])
        elif isinstance(mark, Text):
            _word(found, mark, shown)
        elif isinstance(mark, Circle):
            _circle(found, mark)
        elif kind == "fence":
            found.frames.append(_fence(mark, titles.get(dict(mark.data).get("box"))))
        elif kind == "bracket" and not mark.closed:
            left, top, right, bottom = extent(mark)
            side = "(" if mark.start[0] > (left + right) / 2 else ")"
            found.frames.append(Frame((left + right) / 2, top, (left + right) / 2, bottom, side))
        elif mark.closed:
            _outline(found, mark, dict(mark.data).get("shape", ""))
        else:
            _line(found, mark, wire=kind in ("wire", "cup", "comma", None))
    return found


def _row_arrow(found: Pieces, mark: Path, y: float) -> None:
    """The line or the head of an arrow at the end of a row, in the row of its wire."""
    left, _, right, _ = extent(mark)
    if mark.closed:
        found.signs.append(Sign((left + right) / 2, y, "▸"))
    else:
        found.strokes.append(Stroke(True, y, left, right, DOUBLE if mark.double else LIGHT))


def _fence(mark: Mark, title: Mark | None) -> Frame:
    """The frame of a part, its upper side in the row of its title."""
    left, top, right, bottom = extent(mark)
    if isinstance(title, Text) and 0 < title.y - top < 2.5 * title.size:
        top = middle_of(title)
    return Frame(left, top, right, bottom)


# --- Texts ------------------------------------------------------------------------------------------------------------


def _word(found: Pieces, mark: Text, shown: Callable[[Span], str]) -> None:
    text = "".join(map(shown, mark.spans))
    if text.strip():
        left = left_of(mark)
        right = left + width(mark.spans, mark.size)
        if mark.role == "indextext":
            left, right, text = left - 7, right + 7, f"[{text}⟩"
        elif ("kind", "title") in mark.data:
            text = f" {text} "
        found.words.append(Word(left, max(right, left + 1), middle_of(mark), text, mark.anchor))


# --- Closed shapes ----------------------------------------------------------------------------------------------------


def _circle(found: Pieces, mark: Circle) -> None:
    if mark.stroke:
        found.strokes.append(Stroke(True, mark.y, mark.x - mark.radius, mark.x + mark.radius))
    found.signs.append(Sign(mark.x, mark.y, "○" if mark.stroke else "●"))


def _outline(found: Pieces, mark: Path, shape: str) -> None:
    left, top, right, bottom = extent(mark)
    middle = (top + bottom) / 2
    if shape == "pentagon" or not (mark.stroke or mark.fill):
        return  # its text is a word with brackets
    if mark.fill == "ink" and right - left < 7 < bottom - top:
        found.strokes.append(Stroke(False, (left + right) / 2, top, bottom, HEAVY))
    elif mark.fill == "ink" and max(right - left, bottom - top) < 16:
        found.signs.append(Sign((left + right) / 2, middle, _head(mark)))
    elif shape == "triangle" and bottom - top < 48:
        found.strokes.append(Stroke(True, middle, left, right, DOUBLE if mark.double else LIGHT))
        found.signs.append(Sign(left + (right - left) / 3, middle, "◁"))
    else:
        weight = HEAVY if mark.width > 2 else LIGHT
        found.strokes += [Stroke(True, y, left, right, weight, square=True) for y in (top, bottom)]
        found.strokes += [Stroke(False, x, top, bottom, weight, square=True) for x in (left, right)]
        found.signs += [Sign(left + (right - left) / 3, middle, "◁")] if shape == "triangle" else []


def _head(mark: Path) -> str:
    """The sign of an arrow head: its tip is the first point."""
    xs, ys = ([place[axis] for place in path_points(mark)] for axis in (0, 1))
    level = (max(xs) + min(xs)) / 2 - mark.start[0]
    upright = (max(ys) + min(ys)) / 2 - mark.start[1]
    if abs(level) >= abs(upright):
        return "▸" if level <= 0 else "◂"
    return "▾" if upright < 0 else "▴"


# --- Lines ------------------------------------------------------------------------------------------------------------


def _line(found: Pieces, mark: Path, wire: bool) -> None:
    weight = DOUBLE if mark.double else HEAVY if mark.stroke == "error" or (mark.width > 2 and not mark.dash) else LIGHT
    dash = bool(mark.dash)
    before = mark.start
    for piece in mark.pieces:
        places = list(zip(piece[::2], piece[1::2], strict=True))
        if wire or len(piece) == 6 or _straight(before, places[-1]):
            _piece(found, before, places, weight, dash)
        else:
            slope = (places[-1][1] - before[1]) * (places[-1][0] - before[0])
            centre = ((before[0] + places[-1][0]) / 2, (before[1] + places[-1][1]) / 2)
            found.signs.append(Sign(*centre, "╲" if slope > 0 else "╱"))
        before = places[-1]


def _straight(a: Point, b: Point) -> bool:
    return abs(a[0] - b[0]) < 1 or abs(a[1] - b[1]) < 1


def _piece(found: Pieces, start: Point, places: list[Point], weight: int, dash: bool) -> None:
    """A straight piece or a curve as strokes, or as a bend if it goes on to the right at another height."""
    (x, y), (u, v) = start, places[-1]
    leaves = _is_level(start, *places)
    arrives = _is_level(*reversed([start, *places]))

    def level(at: float, a: float, b: float) -> Stroke:
        return Stroke(True, at, min(a, b), max(a, b), weight, dash)

    def upright(at: float, a: float, b: float) -> Stroke:
        return Stroke(False, at, min(a, b), max(a, b), weight, dash)

    if abs(y - v) < 1 and leaves:
        found.strokes.append(level(y, x, u))
    elif abs(x - u) < 1 and not leaves:
        found.strokes.append(upright(x, y, v))
    elif leaves and arrives:
        xs = [place[0] for place in points((start, [tuple(places)]))]
        apex = max(xs) if max(xs) > max(x, u) + 3 else min(xs) if min(xs) < min(x, u) - 3 else math.nan
        if math.isnan(apex):
            first, last = sorted([start, places[-1]])
            found.bends.append(Bend(first, last, weight, dash))
        else:
            found.strokes += [level(y, x, apex), upright(apex, y, v), level(v, apex, u)]
    elif leaves:
        found.strokes += [level(y, x, u), upright(u, y, v)]
    elif arrives:
        found.strokes += [upright(x, y, v), level(v, x, u)]
    else:
        middle = (y + v) / 2
        found.strokes += [upright(x, y, middle), level(middle, x, u), upright(u, middle, v)]


def _is_level(*places: Point) -> bool:
    """Whether a line leaves its first point to the left or right; a slanting straight line does."""
    x, y = places[0]
    for u, v in places[1:]:
        if abs(u - x) > 0.01 or abs(v - y) > 0.01:
            return abs(u - x) >= abs(v - y) or (len(places) == 2 and abs(u - x) > 1)
    return True


__all__ = ["pieces_of"]
