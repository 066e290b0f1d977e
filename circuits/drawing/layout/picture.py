"""From a scene to a picture: the sweep, its rows, and the marks of all rows below each other."""

from dataclasses import replace

from circuits.drawing.layout.row import Row
from circuits.drawing.layout.sweep import Sweep
from circuits.drawing.marks import Circle, Mark, Path, Picture, Text
from circuits.drawing.options import Options
from circuits.drawing.scene import Scene

_MARGIN = 14.0


def picture_of(scene: Scene, options: Options) -> Picture:
    """Return the picture of a scene.

    Args:
        scene: What is drawn.
        options: The width of a row, and whether sizes are shown.
    """
    sweep = Sweep(scene)
    names = dict(scene.inputs)
    row = Row(sweep, sweep.columns, options.show_sizes, names)
    top = min([_top(mark) for mark in row.marks], default=0.0)
    bottom = max([_bottom(mark) for mark in row.marks], default=0.0)
    marks = [moved(mark, _MARGIN, _MARGIN - top) for mark in row.marks]
    return Picture(row.width + 2 * _MARGIN, bottom - top + 2 * _MARGIN, tuple(marks), scene.title)


def moved(mark: Mark, x: float, y: float) -> Mark:
    """Return a mark at another place."""
    if isinstance(mark, Path):
        pieces = tuple(
            [tuple([value + (y if place % 2 else x) for place, value in enumerate(piece)]) for piece in mark.pieces]
        )
        return replace(mark, start=(mark.start[0] + x, mark.start[1] + y), pieces=pieces)
    return replace(mark, x=mark.x + x, y=mark.y + y)


def _top(mark: Mark) -> float:
    if isinstance(mark, Path):
        return min([mark.start[1], *[piece[-1] for piece in mark.pieces]])
    return mark.y - (mark.radius if isinstance(mark, Circle) else 0.8 * mark.size if isinstance(mark, Text) else 0.0)


def _bottom(mark: Mark) -> float:
    if isinstance(mark, Path):
        return max([mark.start[1], *[piece[-1] for piece in mark.pieces]])
    return mark.y + (mark.radius if isinstance(mark, Circle) else 0.25 * mark.size)


__all__ = ["moved", "picture_of"]
