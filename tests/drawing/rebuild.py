"""The connections of a diagram, rebuilt from the SVG text of its drawing alone.

Lines are connected by where their ends are: two ends within `TOUCH`, an end on the side of a glyph, in a dot, on a cup,
at a memory or a row arrow. The `data-` attributes only say which box or which axis a connection that was found is of.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from circuits.drawing.marks import Point
from tests.drawing.elements import Element, elements
from tests.drawing.lines import GAP, TOUCH
from tests.drawing.rules import Rules, middle, plain, rules
from tests.drawing.shapes import Index, Rect, around, grown, sides

Axis = tuple[int, str]
"""One wire of a tensor: the number of the value, and the place of the axis as it is written."""


@dataclass(frozen=True)
class Joint:
    """One place where wires end and begin: what connects them, and the wires from top to bottom.

    Attributes:
        boxes: The ids of the boxes of which it is; an empty id for a copy; none where one wire meets another.
        kinds: The kinds of the marks that connect the wires: "glyph", "dot", "cup", "text", "memory", "row", "wire".
        ins: The wires that end here.
        outs: The wires that begin here.
        texts: The names of memories, and the texts of marks at the ends of wires.
        at: Where it is.
        made: The ids by which the wires that begin here name the box that makes them.
    """

    boxes: tuple[str, ...]
    kinds: tuple[str, ...]
    ins: tuple[Axis, ...]
    outs: tuple[Axis, ...]
    texts: tuple[str, ...] = ()
    at: Point = (0.0, 0.0)
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rebuilt:
    """What a drawing says.

    Attributes:
        joints: Where wires meet, from left to right and from top to bottom.
        titles: The title of each box with a glyph, by its id.
        shapes: The shapes of its glyphs.
        names: The names of each wire.
        steps: The marks that name what their box reads and returns: its id, the values read and the values returned.
        fences: The titles of the open boxes, by id.
        sources: The texts at the left of the wires of inputs, parameters and constants, by value.
        labels: Each label with its wire, as marked text, and its middle.
        rules: The brackets around repeated boxes, and the rules of sizes.
    """

    joints: tuple[Joint, ...]
    titles: dict[str, str]
    shapes: dict[str, tuple[str, ...]]
    names: dict[Axis, tuple[str, ...]]
    steps: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    fences: dict[str, str]
    sources: dict[int, str]
    labels: tuple[tuple[Axis, str, Point], ...]
    rules: Rules

    @property
    def boxes(self) -> set[str]:
        """The ids of the boxes that are drawn as an event."""
        named = {box for joint in self.joints for box in joint.boxes if box}
        return named | set(self.titles) | {box for box, _, _ in self.steps}


class Places:
    """The ends of lines as places: two ends within `TOUCH` are one place, and marks join places."""

    def __init__(self, points: list[Point]) -> None:
        self.parent = list(range(len(points)))
        self.points = points
        self.index = Index([(number, around([point])) for number, point in enumerate(points)])
        for number, point in enumerate(points):
            self.join([number, *[other for other in self.near(point, TOUCH) if other < number]])

    def near(self, point: Point, reach: float) -> list[int]:
        """Return the ends at most `reach` from a point."""
        found = self.index.near(grown(around([point]), reach))
        return [number for number in found if math.dist(point, self.points[number]) <= reach]

    def within(self, rect: Rect) -> list[int]:
        """Return the ends in a box."""
        return self.index.near(rect)

    def find(self, number: int) -> int:
        """Return the number of the place of an end."""
        while self.parent[number] != number:
            self.parent[number] = number = self.parent[self.parent[number]]
        return number

    def join(self, numbers: Iterable[int]) -> None:
        """Make several ends one place."""
        first, *rest = [self.find(number) for number in numbers] or [0]
        for other in rest:
            self.parent[self.find(other)] = self.find(first)


def rebuild(svg: str) -> Rebuilt:
    """Return what an SVG text says, by the ends of its lines."""
    found = elements(svg)
    titles = {mark.data["box"]: mark.data.get("title", "") for mark in found if mark.kind == "glyph"}
    shapes: dict[str, tuple[str, ...]] = {}
    for mark in found:
        if mark.kind == "glyph":
            shapes[mark.data["box"]] = (*shapes.get(mark.data["box"], ()), mark.data.get("shape", ""))
    steps = [
        (mark.data["box"], _numbers(mark.data.get("in", "")), _numbers(mark.data.get("out", "")))
        for mark in found
        if "box" in mark.data and ("in" in mark.data or "out" in mark.data)
    ]
    names: dict[Axis, tuple[str, ...]] = {}
    for mark in found:
        if mark.kind == "wire" and (said := mark.data.get("name")):
            known = names.setdefault(axis_of(mark), ())
            names[axis_of(mark)] = known if said in known else (*known, said)
    fences = {mark.data["box"]: mark.data.get("title", "") for mark in found if mark.kind == "fence"}
    sources = {int(mark.data["value"]): mark.text for mark in found if mark.kind == "source"}
    labels = tuple([(axis_of(mark), plain(mark.marked), middle(mark.rect)) for mark in found if mark.kind == "label"])
    said = tuple(dict.fromkeys(steps))
    return Rebuilt(tuple(joints(found)), titles, shapes, names, said, fences, sources, labels, rules(found))


def axis_of(mark: Element) -> Axis:
    """Return which wire a mark is of."""
    return int(mark.data["value"]), mark.data.get("axis", "")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple([int(number) for number in text.split()])


def joints(found: list[Element]) -> list[Joint]:
    """Return the places where wires meet."""
    lines = [mark for mark in found if mark.kind in ("wire", "cup", "row")]
    places = Places([end for line in lines for end in line.ends])
    marks: list[tuple[int, Element]] = []
    for number, line in enumerate(lines):
        if line.kind == "cup" or "box" in line.data:
            places.join([2 * number, 2 * number + 1])
            marks.append((2 * number, line))
    for mark in found:
        met = _met(mark, places)
        if mark.kind == "memory" and met:
            words = [each for each in found if each.kind == "memory" and each.text and _is_in(each.rect, mark.rect)]
            marks += [(number, each) for number in met for each in (mark, *words)]
        elif met:
            places.join(met)
            marks.append((met[0], mark))
    rows = [(2 * number, line) for number, line in enumerate(lines) if line.kind == "row"]
    marks += [(end + side, line) for end, line in rows for side in (0, 1)]
    _end_at_texts(found, lines, places, marks)
    return _joints(lines, places, marks)


def _met(mark: Element, places: Places) -> list[int]:
    """Return the ends that a dot, a glyph, a memory or the head of a row's arrow connects."""
    left, _, right, _ = mark.rect
    if mark.kind == "dot":
        return places.near(mark.points[0], (right - left) / 2 + TOUCH)
    if mark.kind == "head" and "box" not in mark.data:
        return places.within(grown(mark.rect, 2 * TOUCH))
    if mark.kind not in ("glyph", "memory") or not mark.points:
        return []
    near = places.within(grown(mark.rect, TOUCH))
    return [number for number in near if _on_side(places.points[number], mark)]


def _is_in(inner: Rect, outer: Rect) -> bool:
    """Return whether the middle of a box is in another one."""
    x, y = middle(inner)
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def _on_side(end: Point, mark: Element) -> bool:
    """Return whether an end is on the left or right side of an outline."""
    left, top, right, bottom = mark.rect
    if len(mark.points) == 1:
        return abs(math.dist(end, mark.points[0]) - (right - left) / 2) <= TOUCH
    crossed = sides(mark.points, min(max(end[1], top), bottom))
    return crossed is not None and any(abs(end[0] - side) <= TOUCH for side in crossed)


def _end_at_texts(found: list[Element], lines: list[Element], places: Places, marks: list[tuple[int, Element]]) -> None:
    """Join the ends of wires that meet nothing else with the mark that stands there: Σ, an arrow head, a memory."""
    used = {places.find(number) for number, _ in marks}
    count: dict[int, int] = defaultdict(int)
    for number in range(2 * len(lines)):
        count[places.find(number)] += 1
    ended = [mark for mark in found if mark.kind in ("text", "memory") or (mark.kind == "head" and "box" in mark.data)]
    index = Index([(mark, grown(mark.rect, GAP)) for mark in ended])
    for number, (x, y) in enumerate(places.points):
        if count[places.find(number)] == 1 and places.find(number) not in used:
            near = [mark for mark in index.near(around([(x, y)])) if mark.rect[1] <= y <= mark.rect[3]]
            best = min(near, key=lambda mark: min(abs(x - mark.rect[0]), abs(x - mark.rect[2])), default=None)
            marks += [] if best is None else [(number, best)]


def _joints(lines: list[Element], places: Places, marks: list[tuple[int, Element]]) -> list[Joint]:
    """Return each place with the wires that end and begin there."""
    ins: dict[int, list[tuple[float, Axis]]] = defaultdict(list)
    outs: dict[int, list[tuple[float, Axis]]] = defaultdict(list)
    made: dict[int, dict[str, None]] = defaultdict(dict)
    corner: dict[int, Point] = {}
    for number, line in enumerate(lines):
        if line.kind == "wire" and "box" not in line.data:
            left, right = sorted((2 * number, 2 * number + 1), key=lambda end: places.points[end][0])
            for end, side in ((left, outs), (right, ins)):
                place = places.find(end)
                side[place].append((places.points[end][1], axis_of(line)))
                if side is outs and "made" in line.data:
                    made[place][line.data["made"]] = None
                corner[place] = min(corner.get(place, places.points[end]), places.points[end])
    connected: dict[int, list[Element]] = defaultdict(list)
    for number, mark in marks:
        connected[places.find(number)].append(mark)
    found = []
    for place in sorted(corner, key=lambda place: corner[place]):
        of = connected[place]
        boxes = dict.fromkeys([mark.data["box"] for mark in of if "box" in mark.data])
        kinds = dict.fromkeys([mark.kind for mark in of])
        texts = dict.fromkeys([plain(mark.marked) for mark in of if mark.kind in ("text", "memory") and mark.text])
        wires = [tuple([axis for _, axis in sorted(side[place])]) for side in (ins, outs)]
        found.append(
            Joint(tuple(boxes), tuple(kinds), wires[0], wires[1], tuple(texts), corner[place], tuple(made[place]))
        )
    return found
