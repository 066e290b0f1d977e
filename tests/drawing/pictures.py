"""A small picture made by hand, without a defect: two rows, in which every kind of mark is drawn once.

row 1   query and key; a fence with a box f that takes k and k, y passes above it; R; a copy to memory
row 2   the tensor goes on: y and j are contracted in a cup; C is loaded; its z leaves and its x ends at Σ
"""

from circuits.drawing.marks import Circle, Mark, Path, Picture, Point, Span, Text


def wire(value: int, axis: int, name: str, *points: Point, box: str = "") -> Path:
    """Return a straight wire through points."""
    data = [("kind", "wire"), ("value", str(value)), ("axis", str(axis)), ("name", name)]
    data += [("box", box)] if box else []
    return Path(points[0], tuple(points[1:]), data=tuple(data))


def branch(value: int, axis: int, name: str, start: Point, end: Point, box: str) -> Path:
    """Return a wire that leaves to the right and falls in an S to another row."""
    middle = (start[0] + end[0]) / 2
    piece = (middle, start[1], middle, end[1], *end)
    return Path(start, (piece,), data=wire(value, axis, name, start, end, box=box).data)


def label(value: int, axis: int, name: str, x: float, y: float) -> Text:
    """Return the name of an axis above its wire at a height `y`."""
    return Text(x, y - 5, (Span(name),), data=(("kind", "label"), ("value", str(value)), ("axis", str(axis))))


def words(text: str, kind: str, x: float, y: float, anchor: str = "start", **data: str) -> Text:
    """Return a text of a kind."""
    span = Span(text, "sans" if kind == "title" else "italic")
    where = "middle" if anchor == "middle" else "end" if anchor == "end" else "start"
    return Text(x, y, (span,), 12 if kind == "title" else 15, where, data=(("kind", kind), *data.items()))


def rectangle(kind: str, left: float, top: float, right: float, bottom: float, fill: str, **data: str) -> Path:
    """Return a closed rectangle of a kind."""
    around = ((right, top), (right, bottom), (left, bottom))
    stroke = "glyph" if kind == "glyph" else ""
    return Path((left, top), around, stroke, fill, closed=True, data=(("kind", kind), *data.items()))


def comma(left: float, right: float, y: float) -> Path:
    """Return the dashed line between two tensors."""
    return Path((left, y), ((right, y),), dash="dashed", data=(("kind", "comma"),))


def dot(box: str, x: float, y: float) -> Circle:
    """Return the dot of a copy."""
    return Circle(x, y, 3, "", "ink", data=(("kind", "dot"), ("box", box)))


def arrow(value: int, axis: int, start: Point, end: Point) -> Path:
    """Return an arrow with which a wire goes on in the next row."""
    piece = (end[0], start[1], end[0], start[1], *end)
    return Path(start, (piece,), data=(("kind", "row"), ("value", str(value)), ("axis", str(axis))))


def first_row() -> list[Mark]:
    """Return the marks of the first row, the backgrounds first."""
    return [
        rectangle("fence", 120, 10, 290, 160, "fence0", box="0", title="Attend"),
        words("Attend", "title", 126, 26, box="0"),
        words("Q", "source", 14, 76, "middle", value="0"),
        words("K", "source", 14, 125, "middle", value="1"),
        *[wire(0, 0, "y", (30, 60), (150, 60)), label(0, 0, "y", 34, 60)],
        *[wire(0, 1, "k", (30, 84), (150, 84)), label(0, 1, "k", 34, 84)],
        comma(30, 150, 96),
        *[wire(1, 0, "k", (30, 120), (150, 120)), label(1, 0, "k", 34, 120)],
        wire(0, 0, "y", (150, 60), (190, 60), box="0.0"),
        rectangle("glyph", 150, 76, 190, 128, "inside", box="0.0", shape="box", title="f", **{"in": "0 1", "out": "2"}),
        words("f", "text", 170, 106, "middle", box="0.0"),
        *[wire(2, 0, "y", (190, 60), (225, 60)), wire(3, 0, "y", (225, 60), (300, 60)), label(3, 0, "y", 262, 60)],
        *[wire(2, 1, "j", (190, 84), (225, 84)), wire(3, 1, "j", (225, 84), (300, 84)), label(3, 1, "j", 262, 84)],
        words("R", "float", 220, 44, box="0.1", **{"in": "2", "out": "3"}),
        *[dot("c", 300, 60), branch(3, 0, "y", (300, 60), (350, 120), "c"), wire(3, 0, "y", (300, 60), (400, 60))],
        *[dot("c", 300, 84), branch(3, 1, "j", (300, 84), (350, 144), "c"), wire(3, 1, "j", (300, 84), (400, 84))],
        rectangle("memory", 350, 110, 390, 154, "memory", value="3"),
        words("→ C", "memory", 370, 136, "middle", value="3"),
        *[arrow(3, 0, (400, 60), (408, 70)), arrow(3, 1, (400, 84), (408, 94))],
    ]


def second_row() -> list[Mark]:
    """Return the marks of the second row."""
    cup = Path((120, 240), ((136, 240, 136, 264, 120, 264),), data=(("kind", "cup"), ("box", "1"), ("value", "3")))
    return [
        *[arrow(3, 0, (30, 230), (40, 240)), arrow(3, 1, (30, 254), (40, 264))],
        *[wire(3, 0, "y", (40, 240), (120, 240)), label(3, 0, "y", 46, 240)],
        *[wire(3, 1, "j", (40, 264), (120, 264)), label(3, 1, "j", 46, 264), cup],
        rectangle("memory", 200, 270, 240, 314, "memory", value="4"),
        words("C →", "memory", 220, 296, "middle", value="4"),
        *[wire(4, 0, "z", (240, 280), (400, 280)), label(4, 0, "z", 380, 280)],
        *[wire(4, 1, "x", (240, 304), (300, 304)), label(4, 1, "x", 250, 304)],
        words("Σ", "text", 304, 309, box="2"),
    ]


def good() -> Picture:
    """Return the picture."""
    return Picture(420, 330, (*first_row(), *second_row()), "Attend")
