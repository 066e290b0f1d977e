"""The elements of an SVG text, read as XML: their lines as end points, their places, and their `data-` attributes.

Nothing of the picture from which it was written is used. A pair of axes is two lines in one element, and its ends are
in the middle between those of the lines.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

from circuits.drawing.marks import Point
from tests.drawing.shapes import Rect, around, cubic

NAMESPACE = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Element:
    """One element that stands for something.

    Attributes:
        data: Its `data-` attributes, without that prefix.
        points: The points of a path, its curves in chords, one line after another; the centre of a circle.
        ends: The first and the last point of a path; of a pair, in the middle between its lines.
        rect: The box around it.
        text: The characters of a text.
        marked: The same with those below the line in brackets: `c[λ−1]`.
        closed: Whether a path is closed.
    """

    data: dict[str, str]
    points: tuple[Point, ...] = ()
    ends: tuple[Point, ...] = ()
    rect: Rect = (0.0, 0.0, 0.0, 0.0)
    text: str = ""
    marked: str = ""
    closed: bool = False

    @property
    def kind(self) -> str:
        """The kind of the mark."""
        return self.data.get("kind", "")


def elements(svg: str) -> list[Element]:
    """Return the elements with a kind, in the order in which they are drawn."""
    return list(_elements(ElementTree.fromstring(svg)))


def _elements(node: ElementTree.Element) -> Iterator[Element]:
    for child in node:
        data = {key.removeprefix("data-"): value for key, value in child.attrib.items() if key.startswith("data-")}
        tag = child.tag.removeprefix(NAMESPACE)
        if "kind" not in data:
            yield from _elements(child)
        elif tag == "path":
            yield _path(child, data)
        elif tag == "circle":
            x, y, radius = [float(child.get(key, "0")) for key in ("cx", "cy", "r")]
            yield Element(data, ((x, y),), ((x, y),), (x - radius, y - radius, x + radius, y + radius))
        else:
            yield Element(data, rect=_text_rect(child), text="".join(_texts(child)), marked=_marked(child))


def _path(node: ElementTree.Element, data: dict[str, str]) -> Element:
    """Return a path with the ends of its lines."""
    lines = [_line(part) for part in re.findall(r"M[^M]+", node.get("d", ""))]
    firsts, lasts = [line[0] for line in lines], [line[-1] for line in lines]
    ends = (_middle(firsts), _middle(lasts))
    points = tuple([point for line in lines for point in line])
    return Element(data, points, ends, around(points), closed="Z" in node.get("d", ""))


def _line(text: str) -> list[Point]:
    """Return the points of one line, its curves in chords."""
    found: list[Point] = []
    for command, numbers in re.findall(r"([MLC])([^MLCZ]*)", text):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        step = 6 if command == "C" else 2
        for first in range(0, len(values), step):
            piece = values[first : first + step]
            found += [(piece[0], piece[1])] if step == 2 else cubic(found[-1], piece)
    return found


def _middle(points: list[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _texts(node: ElementTree.Element) -> Iterator[str]:
    """Yield the characters of a text element, without titles."""
    for each in node.iter():
        if each.tag != f"{NAMESPACE}title":
            yield each.text or ""


def _marked(node: ElementTree.Element) -> str:
    """Return the characters of a text element, those below its line in brackets."""
    spans = [each for each in node if "y" in each.attrib] or [node]
    line = max(spans, key=lambda each: float(each.get("font-size", "0")))
    found = ""
    for each in spans:
        below = float(each.get("y", "0")) > float(line.get("y", "0")) + 0.5
        found += f"[{''.join(_texts(each))}]" if below else "".join(_texts(each))
    return found.replace("][", "")


def _text_rect(node: ElementTree.Element) -> Rect:
    """Return the box around a text, by the width that its spans are given."""
    corners: list[Point] = []
    for each in node.iter():
        if "textLength" in each.attrib:
            x, y, wide, size = [float(each.get(key, "0")) for key in ("x", "y", "textLength", "font-size")]
            x -= {"middle": wide / 2, "end": wide}.get(each.get("text-anchor", ""), 0.0)
            corners += [(x, y - 0.72 * size), (x + wide, y + 0.22 * size)]
    return around(corners)


def without_colours(svg: str) -> str:
    """Return an SVG text without the values of its colours: what themes may change."""
    return re.sub(r'\b(fill|stroke)="[^"]*"', r'\1=""', svg)
