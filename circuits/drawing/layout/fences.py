"""The marks of groups: fences with their titles, and brackets around what is repeated."""

from collections.abc import Mapping, Sequence

from circuits.drawing.layout.frames import SMALL
from circuits.drawing.layout.slots import BESIDE, BRACKET, PAD, TITLE_FONT, title_width
from circuits.drawing.layout.stations import Placed
from circuits.drawing.layout.sweep import Key
from circuits.drawing.layout.titles import clear_place
from circuits.drawing.marks import Mark, P, Path, Span, Text
from circuits.drawing.scene import Group
from circuits.drawing.widths import width as text_width


def fence_marks(
    placed: Sequence[Placed],
    groups: Sequence[Group],
    heights: Sequence[float],
    width: float,
    lines: Sequence[Mark],
) -> list[Mark]:
    """Return the backgrounds, titles and brackets of the groups of a row, outer ones first.

    A group that begins in a row above or goes on in a row below reaches to the edge of the row.

    Args:
        placed: The columns of the row.
        groups: All groups.
        heights: The height of each run.
        width: The width of the row.
        lines: The wires and dashed lines, which no title touches.
    """
    spans: dict[int, list[Placed]] = {}
    for each in placed:
        for key in each.opened:
            if key[0] == "top":
                spans.setdefault(key[1], []).append(each)
    found: list[Mark] = []
    titles: list[Mark] = []
    for number in sorted(spans):
        first, last, group = spans[number][0], spans[number][-1], groups[number]
        left = _left(first, number, groups)
        right = _right(last, number, groups)
        rows = [heights[first.opened[edge, number, 0]] for edge in ("top", "bottom")]
        if group.times > 1:
            titles += _bracket(group, left, right, rows[0], rows[1])
            continue
        edges = (0.0 if left is None else left, width if right is None else right)
        found.append(_fence(group, edges, rows))
        titles += _title(group, edges, rows[0] + 0.65 * P, lines)
    return [*found, *titles]


def _title(group: Group, edges: tuple[float, float], y: float, lines: Sequence[Mark]) -> list[Text]:
    """Return the title of a fence, and the note beside it."""
    spans = (Span(group.title, "sans"),)
    rows = (y - 0.8 * TITLE_FONT, y + 0.3 * TITLE_FONT)
    x = edges[0] + 6
    if group.title:
        x = clear_place(x, edges[1] - 2, rows, title_width(group), lines)
    found = [Text(x, y, spans, TITLE_FONT, role="title", data=(("kind", "title"), ("box", group.box)))]
    if group.title and group.noted:
        data = (("kind", "note"), ("box", group.box), ("title", group.title))
        found.append(Text(x + text_width(spans, TITLE_FONT) + BESIDE, y, group.noted, SMALL, role="note", data=data))
    return found


def _left(first: Placed, number: int, groups: Sequence[Group]) -> float | None:
    """Return the left edge of a group; None if it begins in a row above."""
    opens = first.column.opens
    if number not in opens:
        return None
    around = opens[: opens.index(number)]
    return first.x[2] + 3 + sum([BRACKET if groups[each].times > 1 else PAD for each in around])


def _right(last: Placed, number: int, groups: Sequence[Group]) -> float | None:
    """Return the right edge of a group; None if it goes on in a row below."""
    closes = last.column.closes
    if number not in closes:
        return None
    around = closes[closes.index(number) + 1 :]
    return last.x[8] - 3 - sum([BRACKET if groups[each].times > 1 else PAD for each in around])


def _fence(group: Group, edges: tuple[float, float], rows: Sequence[float]) -> Path:
    left, right = edges
    top, bottom = rows
    data = (("kind", "fence"), ("box", group.box), ("title", group.title))
    corners = ((right, top), (right, bottom), (left, bottom))
    stroke, width = ("error", 1.4) if group.error else ("faint", 0.6)
    return Path((left, top), corners, stroke, group.fill, width, closed=True, data=data)


def _bracket(group: Group, left: float | None, right: float | None, top: float, bottom: float) -> list[Mark]:
    """Return the curved strokes around repeated boxes, with the range of λ, and whose weights they have."""
    data = (("kind", "bracket"), ("box", group.box), ("times", f"{group.times}"))
    marks: list[Mark] = []
    size = 12.0
    if left is not None:
        x = left + BRACKET - 8
        marks.append(_stroke((x, top), (x, bottom), -9.0, data))
        for number, y in ((1, bottom + 12), (group.times, top - 4)):
            spans = (Span("λ", "italic"), Span(f" = {number}", "upright"))
            marks.append(Text(x - 2, y, spans, size, "middle", "bracket", data))
    if right is not None:
        x = right - BRACKET + 8
        marks.append(_stroke((x, top), (x, bottom), 9.0, data))
        marks.append(Text(x + 3, top - 4, (Span(f"× {group.times}", "upright"),), size, "middle", "bracket", data))
        if group.note:
            marks.append(Text(x + 8, bottom + 12, (Span(group.note, "sans"),), 10.0, "end", "bracket", data))
    return marks


def _stroke(
    start: tuple[float, float], end: tuple[float, float], bow: float, data: tuple[tuple[str, str], ...]
) -> Path:
    third = (end[1] - start[1]) / 4
    piece = (start[0] + bow, start[1] + third, end[0] + bow, end[1] - third, *end)
    return Path(start, (piece,), "bracket", width=2.6, data=data)


def heights_of(station: Mapping[Key, int], heights: Sequence[float]) -> dict[Key, float]:
    """Return the height of each thing at a station."""
    return {key: heights[run] for key, run in station.items()}


__all__ = ["fence_marks", "heights_of"]
