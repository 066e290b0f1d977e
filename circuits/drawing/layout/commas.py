"""Dashed lines: the commas between the tensors of a tuple, half a wire's distance below the last wire of each.

They step down at 45° where the tensor above gets wider, and end where its wires are taken together with the next.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from circuits.drawing.layout.frames import step_width
from circuits.drawing.layout.runs import Station
from circuits.drawing.layout.stations import Placed
from circuits.drawing.layout.sweep import Key
from circuits.drawing.marks import Mark, P, Path
from circuits.drawing.scene import Step


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


def event_pieces(placed: Placed, heights: Sequence[float]) -> list[Piece]:
    """Return the pieces beside the steps of a column: below all that a step has, and none between its own tensors.

    Args:
        placed: The column.
        heights: The height of each run.
    """
    column, x = placed.column, placed.x
    taken = {strand: number for number, step in column.steps for strand in step.ins}
    made = {strand: number for number, step in column.steps for strand in step.outs}
    below = {strand: overhang(step, strand) for _, step in column.steps for strand in (*step.ins, *step.outs)}
    after = {
        (made.get(upper, -1 - upper), made.get(lower, -1 - lower)): y
        for upper, lower, y in _gaps(list(placed.done.items()), heights, below)
    }
    found = [Piece(x[4], x[5], y) for _, _, y in _gaps(list(placed.opened.items()), heights)]
    for upper, lower, y in _gaps(list(placed.at.items()), heights, below):
        pair = (taken.get(upper, -1 - upper), taken.get(lower, -1 - lower))
        stop = x[7] if pair in after and pair[0] != pair[1] else x[6] + 4
        found.append(Piece(x[5], stop, max(y, after.get(pair, y)) if pair[0] != pair[1] else y))
    steps = dict(column.steps)
    for (first, second), y in after.items():
        if first == second:
            found.append(Piece(_glyph_end(steps[first], x[6], x[7]), x[7], y))
    return [piece for piece in found if piece.right > piece.left]


def _glyph_end(step: Step, left: float, right: float) -> float:
    """Return where the tensors that a step makes are apart: behind its box, or behind the bends of its copies."""
    boxed = any(link.kind == "glyph" and link.shape == "box" for link in step.links)
    return (left + right + step_width(step)) / 2 if boxed else min(left + 1.4 * P, right)


def overhang(step: Step, strand: int) -> float:
    """Return how far the glyphs of a step reach below the last wire of a tensor that it reads or makes, at most."""
    reach = {"triangle": 0.7, "letter": 0.7, "box": 0.4, "circle": 0.42, "pentagon": 0.42, "star": 0.4, "bar": 0.3}
    reach |= {"window": 1.25, "transposed": 1.25}
    places = [place for side in (step.ins, step.outs) for place, each in enumerate(side) if each == strand]
    glyphs = [link for link in step.links if any(port[0] in places for port in (*link.ins, *link.outs))]
    return max([reach.get(link.shape, 0.35 if link.text else 0.0) for link in glyphs], default=0.0)


def _gaps(
    station: Station, heights: Sequence[float], overhangs: Mapping[int, float] | None = None
) -> list[tuple[int, int, float]]:
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
            below = max(0.5, (overhangs or {}).get(last[0][1], 0.0) + 0.12)
            y = last[1] + below * P if low is None else low + P / 4
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
