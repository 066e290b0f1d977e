"""What a reader sees in a drawing: labels from top to bottom, boxes, rows, and the colours of wires."""

import re

from circuits import Drawing
from circuits.drawing.marks import Mark, Path, Text
from tests.drawing.shapes import data, kind


def of_kind(drawing: Drawing, *kinds: str) -> list[Mark]:
    """Return the marks of some kinds, in the order in which they are drawn."""
    return [mark for mark in drawing.picture.marks if kind(mark) in kinds]


def texts(drawing: Drawing, *kinds: str) -> list[str]:
    """Return the texts of some kinds, in the order in which they are drawn; without a kind, all texts."""
    marks = of_kind(drawing, *kinds) if kinds else drawing.picture.marks
    return [mark.plain for mark in marks if isinstance(mark, Text)]


def at_the_left(drawing: Drawing) -> list[str]:
    """Return the labels at the left edge of a drawing of one row, from top to bottom."""
    first = min(mark.x for mark in _labels(drawing))
    return [mark.plain for mark in _labels(drawing) if mark.x - first < 1]


def at_the_right(drawing: Drawing) -> list[str]:
    """Return the labels at the right edge of a drawing of one row, from top to bottom."""
    last = max(mark.x for mark in _labels(drawing))
    return [mark.plain for mark in _labels(drawing) if last - mark.x < 1]


def _labels(drawing: Drawing) -> list[Text]:
    labels = [mark for mark in of_kind(drawing, "label") if isinstance(mark, Text)]
    return sorted(labels, key=lambda label: label.y)


def rows(drawing: Drawing) -> int:
    """Return the number of rows: the outermost fence is drawn once in each."""
    return len([mark for mark in of_kind(drawing, "fence") if data(mark)["box"] == "root"])


def opened(drawing: Drawing) -> set[str]:
    """Return the ids of the open boxes."""
    return {data(mark)["box"] for mark in of_kind(drawing, "fence")}


def closed(drawing: Drawing) -> set[str]:
    """Return the ids of the boxes that are drawn as one: operations and closed circuits or modules."""
    named = {data(mark).get("box", "") for mark in of_kind(drawing, "glyph", "float", "cup", "dot", "text")}
    made = {data(mark).get("made", "") for mark in of_kind(drawing, "wire")}
    return {box for box in named | made if re.fullmatch(r"root|[\d.]+", box)}


def colours(drawing: Drawing, kind_: str = "wire") -> list[str]:
    """Return the role of the line of each mark of a kind, in the order in which they are drawn."""
    return [mark.stroke for mark in of_kind(drawing, kind_) if isinstance(mark, Path)]


def brackets(drawing: Drawing) -> dict[str, list[str]]:
    """Return how often what is in each bracket is repeated, and the words about its weights, by the id of its box."""
    found: dict[str, list[str]] = {}
    for mark in of_kind(drawing, "bracket"):
        said = found.setdefault(data(mark)["box"].partition("×")[0], [data(mark)["times"]])
        said += [mark.plain] if isinstance(mark, Text) and "weights" in mark.plain else []
    return found
