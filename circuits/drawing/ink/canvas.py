"""A sheet of characters: strokes that meet become the box-drawing character that joins them.

Of what is put on one place, a letter hides a sign, a sign a stroke, and a stroke the frame of a part.
"""

import unicodedata
from dataclasses import dataclass, field

from circuits.drawing.ink.parts import DOUBLE, HEAVY

UP, RIGHT, DOWN, LEFT = 0, 1, 2, 3

MEETINGS = {
    # (weight of the upright strokes, of the level ones): down+right, down+left, up+right, up+left, …, all four
    (1, 1): "┌┐└┘├┤┬┴┼",
    (1, 2): "╒╕╘╛╞╡╤╧╪",
    (2, 1): "╓╖╙╜╟╢╥╨╫",
    (2, 2): "╔╗╚╝╠╣╦╩╬",
    (1, 3): "┍┑┕┙┝┥┯┷┿",
    (3, 1): "┎┒┖┚┠┨┰┸╂",
    (3, 3): "┏┓┗┛┣┫┳┻╋",
}
_ORDER = [(DOWN, RIGHT), (DOWN, LEFT), (UP, RIGHT), (UP, LEFT), (UP, DOWN, RIGHT), (UP, DOWN, LEFT)]
_ORDER += [(DOWN, LEFT, RIGHT), (UP, LEFT, RIGHT), (UP, DOWN, LEFT, RIGHT)]
_PLACES = {frozenset(sides): place for place, sides in enumerate(_ORDER)}
_ROUND = dict(zip("┌┐└┘", "╭╮╰╯", strict=True))

UPRIGHT = set(" │║┃╎┆")
"""The characters of a row in which nothing stands: lines only pass through it."""


@dataclass
class _Cell:
    """The weights of the strokes from the middle of a place to its four sides."""

    sides: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    dash: bool = True
    square: bool = False

    @property
    def letter(self) -> str:
        """The character that joins the strokes."""
        upright = max(self.sides[UP], self.sides[DOWN])
        level = max(self.sides[LEFT], self.sides[RIGHT])
        if not upright:
            return "╌" if self.dash else " ─═━"[level]
        if not level:
            return "╎" if self.dash else " │║┃"[upright]
        known = MEETINGS.get((upright, level)) or MEETINGS[min(upright, DOUBLE), min(level, DOUBLE)]
        letter = known[_PLACES[frozenset(side for side in range(4) if self.sides[side])]]
        return letter if self.square else _ROUND.get(letter, letter)


class Canvas:
    """A sheet of characters by row and column."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], _Cell] = {}
        self._letters: dict[tuple[int, int], str] = {}
        self._behind: dict[tuple[int, int], str] = {}
        self._covered: set[tuple[int, int]] = set()

    def level(self, row: int, start: int, end: int, weight: int, dash: bool = False, square: bool = False) -> None:
        """Draw a stroke along a row, from the middle of one place to that of another."""
        for column in range(start, end):
            self._add((row, column), RIGHT, weight, dash, square)
            self._add((row, column + 1), LEFT, weight, dash, square)

    def upright(self, column: int, start: int, end: int, weight: int, dash: bool = False, square: bool = False) -> None:
        """Draw a stroke along a column, from the middle of one place to that of another."""
        for row in range(start, end):
            self._add((row, column), DOWN, weight, dash, square)
            self._add((row + 1, column), UP, weight, dash, square)
        if start == end and weight == HEAVY:
            self._add((start, column), UP, weight, dash, square)

    def _add(self, place: tuple[int, int], side: int, weight: int, dash: bool, square: bool) -> None:
        cell = self._cells.setdefault(place, _Cell())
        cell.sides[side] = max(cell.sides[side], weight)
        cell.dash &= dash
        cell.square |= square

    def write(self, row: int, column: int, text: str) -> None:
        """Write letters from a place to the right."""
        for letter in text:
            wide = columns(letter)
            if not wide:
                before = (row, column - 1)
                while before in self._covered:
                    before = (row, before[1] - 1)
                self._letters[before] = self._letters.get(before, " ") + letter
                continue
            self._letters[row, column] = letter
            self._covered |= {(row, column + 1)} if wide == 2 else set()
            column += wide

    def behind(self, row: int, column: int, letter: str) -> None:
        """Put a letter behind everything else."""
        self._behind[row, column] = letter

    def stroke(self, row: int, column: int) -> bool:
        """Return whether a stroke goes on to the right of a place."""
        cell = self._cells.get((row, column))
        return bool(cell and cell.sides[RIGHT])

    def cuts(self) -> tuple[set[int], set[int]]:
        """Return the columns before which no text may be cut: in a word, and then also those in a box."""
        words = {column for row, column in self._letters if (row, column - 1) in self._letters}
        words |= {column for _, column in self._covered}
        return words, words | {column for (_, column), cell in self._cells.items() if cell.square and cell.sides[LEFT]}

    @property
    def size(self) -> tuple[int, int]:
        """The number of rows and columns."""
        places = {*self._cells, *self._letters, *self._behind, *self._covered}
        return max((row for row, _ in places), default=-1) + 1, max((column for _, column in places), default=-1) + 1

    def lines(self, rows: int, start: int, end: int) -> list[str]:
        """Return the text of so many rows between two columns, without blanks at the ends."""
        lines = []
        for row in range(rows):
            places = [(row, column) for column in range(start, end) if (row, column) not in self._covered]
            lines.append("".join(map(self._letter, places)).rstrip())
        return lines

    def _letter(self, place: tuple[int, int]) -> str:
        if place in self._letters:
            return self._letters[place]
        return self._cells[place].letter if place in self._cells else self._behind.get(place, " ")


def columns(letter: str) -> int:
    """Return the number of columns that a character takes in a terminal: 0, 1 or 2.

    Args:
        letter: One character.
    """
    if unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


__all__ = ["MEETINGS", "UPRIGHT", "Canvas", "columns"]
