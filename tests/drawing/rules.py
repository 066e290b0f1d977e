"""Brackets around repeated boxes and the rules beside them, read from the drawing: how often, where, and sizes by λ."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circuits.drawing.marks import Point
from tests.drawing.elements import Element
from tests.drawing.shapes import Rect

LINE = re.compile(r"(.+)\[i\] = (.*)\(i = (-?\d+)…(-?\d+)\)")
RETURNED = re.compile(r"(.+)\[i\] is returned\(i = 1…(\d+)\)")
SOME = re.compile(r"(?:[^,]+\[\d+\],)*[^,]+\[\d+\](?:is|are)returned")


@dataclass(frozen=True)
class Bracket:
    """A pair of brackets.

    Attributes:
        times: How often what is inside is repeated, by each text at the brackets that says so.
        first, last: The row and x of the left and of the right bracket.
        top, bottom: Their ends; in one row, what is repeated lies between them.
    """

    times: tuple[int, ...]
    first: tuple[int, float]
    last: tuple[int, float]
    top: float
    bottom: float

    def holds(self, point: Point, at: tuple[int, float]) -> bool:
        """Return whether a place, with its row and x, is in the brackets."""
        level = self.first[0] != self.last[0] or self.top <= point[1] <= self.bottom
        return self.first < at < self.last and level


@dataclass(frozen=True)
class Rules:
    """Where brackets and rows are, and what the letters of the legend stand for.

    Attributes:
        brackets: By the id of the first box in each.
        rows: The lower edge of each row.
        sizes: The size, as text, of each number of each letter.
        returned: The names of the saved tensors that are returned: `C[2]`.
        strange: Lines of the legend that cannot be read.
    """

    brackets: Mapping[str, Bracket] = field(default_factory=dict)
    rows: tuple[float, ...] = ()
    sizes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    returned: frozenset[str] = frozenset()
    strange: tuple[str, ...] = ()

    def around(self, point: Point) -> list[str]:
        """Return the ids of the brackets around a place, the outermost first."""
        at = place_of(point, self.rows)
        found = [start for start, bracket in self.brackets.items() if bracket.holds(point, at)]
        return sorted(found, key=lambda start: self.brackets[start].first)

    def at(self, text: str, step: int) -> str:
        """Return a label in repetition λ = `step`: with the sizes that the legend gives in place of its letters."""

        def size(found: re.Match[str]) -> str:
            number = number_at(found[3], step)
            listed = self.sizes[found[2]].get(number, "?") if number is not None else "?"
            factor = found[1].rstrip("*")
            return f"{int(factor) * int(listed)}" if factor and listed.isdigit() else f"{found[1]}{listed}"

        letters = "|".join(sorted(map(re.escape, self.sizes), key=len, reverse=True))
        return re.sub(rf"((?:\d+\*)?)({letters})\[([^\]]*)\]", size, text) if letters else text


def plain(text: str) -> str:
    """Return a text of a drawing as it is compared: in ASCII and without blanks, which have no width of their own."""
    return text.translate({ord("−"): "-", ord("·"): "*", ord("′"): "'", ord(" "): None})


def number_at(formula: str, step: int) -> int | None:
    """Return the value of `λ`, `λ+1`, `5-λ` or `3` at λ = `step`; None for another text.

    >>> [number_at(each, 2) for each in ("λ", "λ-1", "5-λ", "3", "h")]
    [2, 1, 3, 3, None]
    """
    found = re.fullmatch(r"(-?\d+)|(?:(-?\d+)-)?λ([+-]\d+)?", plain(formula))
    if found is None:
        return None
    if found[1]:
        return int(found[1])
    return (int(found[2]) - step if found[2] else step) + int(found[3] or 0)


def place_of(point: Point, rows: Sequence[float]) -> tuple[int, float]:
    """Return the row and the x of a place."""
    return sum([bottom < point[1] for bottom in rows[:-1]]), point[0]


def rules(found: Sequence[Element]) -> Rules:
    """Return the rules of a drawing."""
    fences = {mark.rect[3] for mark in found if mark.kind == "fence" and mark.data["box"] == "root"}
    rows = tuple(sorted(fences))
    strokes: dict[str, list[Rect]] = {}
    times: dict[str, tuple[int, ...]] = {}
    for mark in found:
        if mark.kind == "bracket":
            start = mark.data["box"].partition("×")[0]
            said = re.fullmatch(r"(?:×|λ=)(\d+)", plain(mark.text))
            if mark.points:
                strokes.setdefault(start, []).append(mark.rect)
            elif said is not None and plain(mark.text) != "λ=1":
                times[start] = (*times.get(start, ()), int(said[1]))
    brackets = {}
    for start, rects in strokes.items():
        places = sorted([place_of(middle(rect), rows) for rect in rects])
        bounds = min(rect[1] for rect in rects), max(rect[3] for rect in rects)
        brackets[start] = Bracket(times.get(start, ()), places[0], places[-1], *bounds)
    sizes: dict[str, dict[int, str]] = {}
    returned: set[str] = set()
    strange = []
    for text in [plain(mark.marked) for mark in found if mark.kind == "legend"]:
        line, ends = re.fullmatch(plain(LINE.pattern), text), re.fullmatch(plain(RETURNED.pattern), text)
        if line is not None:
            numbers, members = range(int(line[3]), int(line[4]) + 1), line[2].split(",")
            sizes[line[1]] = dict(zip(numbers, members, strict=False))
            strange += [text] if len(numbers) != len(members) else []
        elif ends is not None:
            returned |= {f"{ends[1]}[{number}]" for number in range(1, int(ends[2]) + 1)}
        elif SOME.fullmatch(text):
            returned |= set(re.findall(r"[^,]+?\[\d+\]", text))
        else:
            strange.append(text)
    return Rules(brackets, rows, sizes, frozenset(returned), tuple(strange))


def middle(rect: Rect) -> Point:
    """Return the middle of a box."""
    return (rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2
