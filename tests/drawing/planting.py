"""Changes of single marks of a picture, with which a defect is planted in a good one."""

from collections.abc import Callable
from dataclasses import replace

from circuits.drawing.marks import Mark, Path, Picture
from tests.drawing.shapes import kind

Plant = Callable[[Picture], Picture]


def changed(which: str, number: int, change: Callable[[Mark], Mark | None]) -> Plant:
    """Return what changes the mark of a kind at a place among those of its kind, or removes it."""

    def plant(picture: Picture) -> Picture:
        found = [place for place, mark in enumerate(picture.marks) if kind(mark) == which]
        marks = list(picture.marks)
        new = change(marks[found[number]])
        marks[found[number] : found[number] + 1] = [] if new is None else [new]
        return replace(picture, marks=tuple(marks))

    return plant


def moved(x: float, y: float) -> Callable[[Mark], Mark]:
    """Return what moves a mark."""

    def move(mark: Mark) -> Mark:
        if not isinstance(mark, Path):
            return replace(mark, x=mark.x + x, y=mark.y + y)
        pieces = [tuple(n + (x, y)[place % 2] for place, n in enumerate(piece)) for piece in mark.pieces]
        return replace(mark, start=(mark.start[0] + x, mark.start[1] + y), pieces=tuple(pieces))

    return move


def ending(*points: tuple[float, ...]) -> Callable[[Mark], Mark]:
    """Return what gives a path other pieces after its start."""
    return lambda mark: replace(mark, pieces=points) if isinstance(mark, Path) else mark


def added(*marks: Mark) -> Plant:
    """Return what draws marks on top."""
    return lambda picture: replace(picture, marks=(*picture.marks, *marks))
