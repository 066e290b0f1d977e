"""From a scene to a picture: the sweep, where its rows break, and the marks of all rows below each other."""

from collections.abc import Sequence
from dataclasses import replace

from circuits.drawing.labels import axis_label
from circuits.drawing.layout.breaking import row_starts, untouched
from circuits.drawing.layout.row import Edges, Row
from circuits.drawing.layout.slots import set_labels, set_places
from circuits.drawing.layout.stations import Stations
from circuits.drawing.layout.sweep import Column, Sweep
from circuits.drawing.marks import Circle, Mark, P, Path, Picture, Span, Text
from circuits.drawing.options import Options
from circuits.drawing.scene import Scene
from circuits.drawing.widths import width as text_width

_MARGIN, _BETWEEN, _EDGE = 14.0, 1.4 * P, 110.0
_LONGER = 1.15  # by how much a row may be wider than the usual width, where a break would cost more
_SMALL, _LINE = 12.0, 16.0  # the size of the words of an error, and the distance of their lines


def picture_of(scene: Scene, options: Options) -> Picture:
    """Return the picture of a scene.

    Args:
        scene: What is drawn.
        options: The width of a row, and whether sizes are shown.
    """
    sweep = Sweep(scene)
    rows = _rows(sweep, options)
    top, width = _MARGIN, 0.0
    marks: list[Mark] = []
    for row in rows:
        upper = min([_top(mark) for mark in row.marks], default=0.0)
        lower = max([_bottom(mark) for mark in row.marks], default=0.0)
        marks += [moved(mark, _MARGIN, top - upper) for mark in row.marks]
        top += lower - upper + _BETWEEN
        width = max(width, row.width)
    for line in scene.legend:
        spans = axis_label(line)
        marks.append(Text(_MARGIN, top, spans, _SMALL, role="label", data=(("kind", "legend"),)))
        width = max(width, text_width(spans, _SMALL))
        top += _LINE
    if scene.notes:
        marks.append(Text(_MARGIN, top, scene.notes, _SMALL, role="note", data=(("kind", "notes"),)))
        width = max(width, text_width(scene.notes, _SMALL))
        top += _LINE
    top += _LINE if scene.legend or scene.notes else 0.0
    for number, line in enumerate(_wrapped(scene.error, max(width, 400.0))):
        top += _LINE if number else 0.0
        spans = (Span(line, "sans"),)
        marks.append(Text(_MARGIN, top, spans, _SMALL, role="error", data=(("kind", "error"),)))
        width = max(width, text_width(spans, _SMALL))
    top += _BETWEEN if scene.error else 0.0
    return Picture(width + 2 * _MARGIN, top - _BETWEEN + _MARGIN, tuple(marks), scene.title)


def equation(closed: Picture, inside: Picture) -> Picture:
    """Return the picture of a closed box, `=`, and below it what is inside (Figures 26 and 27)."""
    sign = Text(closed.width + 10, closed.height / 2 + 8, (Span("=", "upright"),), 28.0, data=(("kind", "equals"),))
    below = [moved(mark, 0.0, closed.height) for mark in inside.marks]
    width = max(closed.width + 40, inside.width)
    return Picture(width, closed.height + inside.height, (*closed.marks, sign, *below), inside.title)


def _wrapped(text: str, width: float) -> list[str]:
    """Return the words of an error in lines of at most this width, where words allow it."""
    lines: list[str] = []
    for line in text.splitlines():
        found = ""
        for word in line.split():
            longer = f"{found} {word}".strip()
            if found and text_width((Span(longer, "sans"),), _SMALL) > width:
                lines.append(found)
                longer = word
            found = longer
        lines += [found] if found else []
    return lines


def _rows(sweep: Sweep, options: Options) -> list[Row]:
    """Return the rows of a picture."""
    columns = sweep.columns
    starts = row_starts(
        columns, _widths(sweep, options), options.row_width, _EDGE, _LONGER if options.width is None else 1.0
    )
    parts = [columns[start:stop] for start, stop in zip(starts, [*starts[1:], len(columns)], strict=True)]
    skipped = [untouched(part) if 0 < number < len(parts) - 1 else frozenset() for number, part in enumerate(parts)]
    names = _memory_names(skipped, sweep.scene)
    rows = []
    for number, part in enumerate(parts):
        after = skipped[number + 1] if number + 1 < len(parts) else frozenset[int]()
        before = skipped[number - 1] if number else frozenset[int]()
        edges = Edges(
            {strand: name for strand, name in sweep.scene.inputs if name} if number == 0 else {},
            number == 0,
            number == len(parts) - 1,
            {strand: names[strand] for strand in sorted(before - skipped[number])},
            {strand: names[strand] for strand in sorted(after - skipped[number])},
            skipped[number],
            {strand: name for strand, name in sweep.scene.outputs if name} if number == len(parts) - 1 else {},
        )
        rows.append(Row(part, sweep.groups, sweep.strands, edges, options.show_sizes))
    return rows


def _memory_names(skipped: Sequence[frozenset[int]], scene: Scene) -> dict[int, str]:
    """Return a name for each tensor that is saved and loaded: C1, C2, ... in the order in which they are saved.

    The letter is one with which no other name begins.
    """
    order = dict.fromkeys([strand for each in skipped for strand in sorted(each)])
    saved = [link.text for step in scene.steps() for link in step.links if link.shape == "memory"]
    used = {span.text[0] for text in saved for span in text[1:]}
    letter = next(each for each in "CDEFGHIJKLMNOPQRSTUVWXYZΓ" if each not in used)
    return {strand: f"{letter}{number}" for number, strand in enumerate(order, start=1)}


def _widths(sweep: Sweep, options: Options) -> list[float]:
    """Return the width of each column, from a layout of short pieces, so that the time stays proportional."""
    found: list[float] = []
    for start in range(0, len(sweep.columns), 40):
        part: Sequence[Column] = sweep.columns[start : start + 40]
        stations = Stations(part, sweep.groups, frozenset())
        set_labels(stations)
        set_places(stations, sweep.groups, 0.0, options.show_sizes)
        found += [placed.x[-1] - placed.x[0] for placed in stations.placed]
    return found


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


__all__ = ["equation", "moved", "picture_of"]
