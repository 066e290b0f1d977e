"""Pictures made by hand, for the tests of the inks: one of each mark, and one with a given name everywhere."""

from circuits.drawing.marks import Circle, Data, Mark, Path, Picture, Span, Text


def data(**values: object) -> Data:
    """The data of a mark; `in_` stands for `in`."""
    return tuple((name.rstrip("_"), str(value)) for name, value in values.items())


def wire(*points: tuple[float, float], double: bool = False) -> Path:
    return Path(points[0], points[1:], double=double, data=data(kind="wire", value=1, axis=0, name="y"))


def curve(x: float, y: float, u: float, v: float, double: bool = False) -> Path:
    """An S-curve with level ends."""
    middle = (x + u) / 2
    return Path((x, y), ((middle, y, middle, v, u, v),), double=double, data=data(kind="wire", value=1, axis=0))


def cup(x: float, y: float, v: float, double: bool = False) -> Path:
    """A half circle from the height `y` to the height `v`, open at the left."""
    r, m = (v - y) / 2, (v + y) / 2
    c = 0.5523 * r
    pieces = ((x + c, y, x + r, m - c, x + r, m), (x + r, m + c, x + c, v, x, v))
    return Path((x, y), pieces, double=double, data=data(kind="cup", box="cup", value=1, axis=1))


def box(x: float, y: float, wide: float, high: float, stroke: str = "glyph", fill: str = "", **values: object) -> Path:
    corners = ((x + wide, y), (x + wide, y + high), (x, y + high))
    return Path((x, y), corners, stroke, fill, closed=True, data=data(**values))


def words(
    x: float, y: float, *spans: Span, role: str = "label", size: float = 15, middle: bool = False, box: str = ""
) -> Text:
    """A label; the title of a box if it says which."""
    kind = data(kind="title", box=box) if box else data(kind="label")
    return Text(x, y, spans, size, "middle" if middle else "start", role, kind)


TRIANGLE = data(kind="glyph", box="s", shape="triangle")


def sample() -> Picture:
    """One of each mark."""
    marks: list[Mark] = [
        box(60, 10, 430, 250, "", "fence4", kind="fence", box="a", title="Attention"),
        box(200, 34, 130, 150, "", "fence7", kind="fence", box="a.b", title="Softmax"),
        words(265, 26, Span("Attention", "sans"), role="title", size=14, middle=True, box="a"),
        words(265, 50, Span("Softmax", "sans"), role="title", size=14, middle=True, box="a.b"),
        wire((20, 70), (240, 70)),
        curve(240, 70, 330, 142),
        wire((330, 142), (520, 142)),
        wire((20, 94), (200, 94)),
        Path((20, 118), ((200, 118),), width=2, dash="dashed", data=data(kind="comma")),
        wire((20, 142), (200, 142)),
        cup(200, 94, 142),
        wire((20, 166), (300, 166)),
        Path((300, 166), ((324, 149), (324, 183)), "glyph", "inside", closed=True, data=TRIANGLE),
        wire((324, 166), (490, 166)),
        words(30, 67, Span("y", over=True)),
        words(30, 91, Span("k")),
        words(30, 139, Span("λ"), Span("5−λ", shift="sub")),
        words(30, 163, Span("x", "bold", over=True), Span("i", shift="sub"), Span("2", "upright", shift="sup")),
        words(500, 139, Span("Σ′", "upright")),
        wire((20, 210), (100, 210), double=True),
        curve(100, 210, 150, 330, double=True),
        wire((150, 330), (300, 330), double=True),
        wire((100, 210), (250, 210), double=True),
        cup(250, 210, 234, double=True),
        wire((340, 300), (400, 300), (400, 340), (500, 340), double=True),
        Circle(100, 210, 4, "", "ink", data=data(kind="dot", box="d")),
        box(420, 280, 60, 40, "glyph", "box1", kind="glyph", box="z", shape="box", title="GELU", in_="", out="7"),
        words(450, 304, Span("GELU", "sans"), role="title", size=14, middle=True),
        Path((20, 360), ((200, 360),), "cotangent", dash="dotted", data=data(kind="wire")),
    ]
    return Picture(540, 380, tuple(marks), "A sample")


def named(name: str) -> Picture:
    """A picture in which `name` is the title, a label, and the title of a box."""
    glyph = box(40, 10, 60, 40, kind="glyph", box=name, shape="box", title=name)
    label = Text(0, 20, (Span(name),), data=data(kind="label", name=name))
    other = Text(0, 40, (Span(name, "bold", over=True), Span(name, "sans", "sub")), anchor="end", data=label.data)
    return Picture(140, 60, (glyph, label, other), name)
