"""Arrow heads and what belongs to them: words between two heads above the wires, and arrows at the ends of rows.

Marks are found by their places: each is entered in a grid of squares, so that the search costs no more for many.
"""

from collections.abc import Callable, Iterator, Sequence

from circuits.drawing.ink.parts import Word, extent, left_of, middle_of
from circuits.drawing.marks import Mark, Path, Point, Span, Text
from circuits.drawing.widths import width

_SQUARE = 24.0
_NEAR = 14.0


class _Grid:
    """Marks by a point of each."""

    def __init__(self, places: Sequence[tuple[Point, Mark]]) -> None:
        self._squares: dict[tuple[int, int], list[tuple[Point, Mark]]] = {}
        for (x, y), mark in places:
            self._squares.setdefault((int(x // _SQUARE), int(y // _SQUARE)), []).append(((x, y), mark))

    def near(self, place: Point, high: float) -> Iterator[tuple[float, Mark]]:
        """The marks near a place, with how far to the right they are."""
        x, y = place
        column, row = int(x // _SQUARE), int(y // _SQUARE)
        for square in [(column + right, row + down) for right in (-1, 0, 1) for down in (-1, 0, 1)]:
            for (u, v), mark in self._squares.get(square, ()):
                if abs(u - x) <= _NEAR and abs(v - y) <= high:
                    yield u - x, mark


def _heads(marks: Sequence[Mark]) -> list[tuple[Point, Mark]]:
    """The arrow heads, each with its middle."""
    found: list[tuple[Point, Mark]] = []
    for mark in marks:
        if isinstance(mark, Path) and mark.closed and mark.fill == "ink":
            left, top, right, bottom = extent(mark)
            if max(right - left, bottom - top) < 16:
                found.append((((left + right) / 2, (top + bottom) / 2), mark))
    return found


def between_heads(marks: Sequence[Mark], shown: Callable[[Span], str]) -> dict[int, Word | None]:
    """Return the words that stand between two heads, by the identity of their text; and `None` for the heads.

    Args:
        marks: The marks of a picture.
        shown: How a span is written in one line.
    """
    grid = _Grid(_heads(marks))
    found: dict[int, Word | None] = {}
    for mark in marks:
        if not isinstance(mark, Text) or ("kind", "float") not in mark.data:
            continue
        left = left_of(mark)
        right, y = left + width(mark.spans, mark.size), middle_of(mark)
        before = [head for far, head in grid.near((left, y), 6) if far < 0]
        after = [head for far, head in grid.near((right, y), 6) if far > 0]
        if len(before) == len(after) == 1:
            text = f"▸ {''.join(map(shown, mark.spans)).strip()} ▸"
            found[id(mark)] = Word(extent(before[0])[0], extent(after[0])[2], y, text, "middle")
            found |= {id(before[0]): None, id(after[0]): None}
    return found


def row_arrows(marks: Sequence[Mark]) -> dict[int, float]:
    """Return the heights of the wires that go on in another row, by the identity of each arrow's line and head.

    Args:
        marks: The marks of a picture.
    """
    grid = _Grid(_heads(marks))
    found: dict[int, float] = {}
    for mark in marks:
        if isinstance(mark, Path) and not mark.closed and ("kind", "row") in mark.data and mark.pieces:
            leaves = abs(mark.pieces[0][1] - mark.start[1]) < 0.01
            found[id(mark)] = mark.start[1] if leaves else mark.end[1]
            found |= {id(head): found[id(mark)] for _, head in grid.near(mark.end, 10)}
    return found


__all__ = ["between_heads", "row_arrows"]
