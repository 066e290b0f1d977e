"""Dashed lines: the commas between the tensors of a tuple, half a wire's distance below the last wire of each.

They step down at 45° where the tensor above gets wider, and end where its wires are taken together with the next.
"""

from collections.abc import Sequence
from typing import NamedTuple

from circuits.drawing.layout.runs import Station
from circuits.drawing.layout.sweep import Column, Key
from circuits.drawing.marks import Mark, P, Path


class Piece(NamedTuple):
    """A horizontal piece of a dashed line."""

    left: float
    right: float
    y: float


def pieces_of(station: Station, left: float, right: float, heights: Sequence[float]) -> list[Piece]:
    """Return the pieces between neighbouring tensors of a station.

    Args:
        station: The things from top to bottom, each with its run.
        left, right: Where the pieces begin and end.
        heights: The height of each run.
    """
    return [Piece(left, right, y) for _, _, y in _gaps(station, heights)] if right > left else []


def event_pieces(
    column: Column, at: Station, done: Station, x: Sequence[float], heights: Sequence[float]
) -> list[Piece]:
    """Return the pieces beside the steps of a column: below all that a step has, and none between its own tensors.

    Args:
        column: The column.
        at, done: The stations before and after its steps.
        x: The left edge of the slot of bends, and the left and right edges of the slot of the steps.
        heights: The height of each run.
    """
    taken = {strand: number for number, step in column.steps for strand in step.ins}
    made = {strand: number for number, step in column.steps for strand in step.outs}
    after = [(made.get(upper, -1 - upper), made.get(lower, -1 - lower), y) for upper, lower, y in _gaps(done, heights)]
    found = []
    for upper, lower, y in _gaps(at, heights):
        first, second = taken.get(upper, -1 - upper), taken.get(lower, -1 - lower)
        if first == second:
            found.append(Piece(x[0], x[1] + 4, y))
            continue
        later = [low for one, two, low in after if (one, two) == (first, second)]
        found.append(Piece(x[0], x[2], max([y, *later])))
    for upper, lower, y in _gaps(done, heights):
        if made.get(upper, -1) == made.get(lower, -2):
            found.append(Piece(x[1] + 1.4 * P, x[2], y))
    return [piece for piece in found if piece.right > piece.left]


def _gaps(station: Station, heights: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return the neighbouring tensors of a station, with the height of the dashed line between them."""
    found = []
    last: tuple[Key, float] | None = None
    low: float | None = None
    for key, run in station:
        if key[0] == "bottom":
            low = heights[run]
        if key[0] != "wire":
            continue
        if last is not None and last[0][1] != key[1]:
            y = last[1] + P / 2 if low is None else low + P / 4
            found.append((last[0][1], key[1], y))
        last, low = (key, heights[run]), None
    return found


def comma_marks(pieces: Sequence[Piece]) -> list[Mark]:
    """Return dashed lines from pieces that meet end to end, with a slanted piece where the height changes."""
    lines: list[list[Piece]] = []
    for piece in sorted(pieces):
        near = [
            line for line in lines if abs(line[-1].right - piece.left) < 0.02 and abs(line[-1].y - piece.y) < 2.2 * P
        ]
        best = min(near, key=lambda line: abs(line[-1].y - piece.y), default=None)
        if best is None:
            lines.append([piece])
        elif best[-1].y == piece.y:
            best[-1] = Piece(best[-1].left, piece.right, piece.y)
        else:
            best.append(piece)
    return [_line(line) for line in lines]


def _line(line: Sequence[Piece]) -> Path:
    points = []
    for piece, following in zip(line, [*line[1:], None], strict=True):
        room = piece.right - piece.left
        slant = 0.0 if following is None else min(abs(following.y - piece.y), room)
        points += [(piece.left, piece.y)] if not points else []
        points += [(piece.right - slant, piece.y)]
        points += [(piece.right, following.y)] if following is not None else []
    steps = [point for number, point in enumerate(points) if number and point != points[number - 1]]
    return Path(points[0], tuple(steps), width=1.6, dash="dashed", data=(("kind", "comma"),))


__all__ = ["Piece", "comma_marks", "event_pieces", "pieces_of"]
