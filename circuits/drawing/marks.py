"""The marks of a picture as frozen data: strokes, circles and texts, each with its role and what it stands for.

Layout computes marks; ink writes them as SVG, TikZ or terminal text. One unit is a pixel of the SVG; the distance `P`
between two wires of one tensor is 24 units. x grows to the right, y downward. A role says what a mark is drawn for
("wire", "fence2", "label"), and a theme gives each role its colour, so that a theme never changes the geometry.

The `data` of a mark says what it stands for. `kind` is always there:

    wire      a path of one axis of one tensor: value (its number), axis (its place in the tensor; two for a pair),
              name (its label), and made (the id of the box that makes it, if it begins there; empty for a copy)
    cup       the half circle in which two contracted wires end: box, value and axis of the first
    unit      the half circle in which two wires begin: box
    dot       where a wire is copied, or where wires join: box
    label     the name or size above a wire: value, axis
    glyph     the outline of an operation: box (its id), shape ("box", "solid", "letter", "triangle", ...), title, and
              in and out (numbers of the tensors read and returned); no stroke and no fill if it is a bare letter. A
              wire that the operation takes ends on the left or right side of the outline, and no other wire crosses it
    text      a text inside a glyph, or at the end of a wire (Σ, Max): box
    float     a text or arrow head above the wires (➤R➤), which touches none: box, in, out
    fence     the background of an open circuit or module: box, title
    title     the title of a fence: box
    comma     the dashed line between two tensors of a tuple
    source    the name at the left of the wires of an input, a parameter or a constant: value
    memory    a tensor saved or loaded by name: value
    inner     the wire from a window to its end: box
    head      the head of an arrow: of a row, or at the end of a wire
    row       the arrow with which a wire goes on in the next row: value, axis
    bracket   the bracket around repeated boxes, and its texts: box
    error     the words of an error: box
    legend    what letters stand for
    note      the note above an operation or closed box, or beside the title of a fence: box, title
    notes     what the notes are
    equals    the = between a closed box and its inside
    sign      a sign or an arrow between two pictures of one figure, with its words

Marks of a picture that is joined of several have `part`, the number of theirs.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 8 to 28.
"""

from dataclasses import dataclass
from typing import Literal

P = 24.0
"""The distance between neighbouring wires of one tensor, in units."""

Data = tuple[tuple[str, str], ...]
"""What a mark stands for, as names and texts (kind, box, value, axis, ...): the `data-` attributes of the SVG."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Span:
    """A piece of text in one style.

    Attributes:
        text: The characters, not escaped.
        style: "italic" (serif, for axes), "bold" (serif bold, for learned maps and pairs), "upright" (serif) or "sans".
        shift: "sub" or "sup" for smaller text below or above the line, else empty.
        over: Whether a bar is drawn over the text (position axes).
    """

    text: str
    style: Literal["italic", "bold", "upright", "sans"] = "italic"
    shift: Literal["", "sub", "sup"] = ""
    over: bool = False


@dataclass(frozen=True)
class Path:
    """A line of straight and cubic pieces, open or closed.

    Attributes:
        start: The first point.
        pieces: The other points: two numbers for a straight piece to that point, six for a cubic curve (two control
            points, then the end point).
        stroke: The role that gives the colour of the line; empty for no line.
        fill: The role that gives the colour inside; empty for none.
        width: The width of the line.
        dash: "dashed", "dotted", or empty for a solid line.
        closed: Whether the line returns to its first point.
        double: Whether two parallel lines are drawn, as for a pair of axes.
        data: What the mark stands for.
    """

    start: Point
    pieces: tuple[tuple[float, ...], ...]
    stroke: str = "wire"
    fill: str = ""
    width: float = 1.2
    dash: Literal["", "dashed", "dotted"] = ""
    closed: bool = False
    double: bool = False
    data: Data = ()

    @property
    def end(self) -> Point:
        """The last point."""
        return (self.pieces[-1][-2], self.pieces[-1][-1]) if self.pieces else self.start


@dataclass(frozen=True)
class Circle:
    """A circle by its centre and radius; `stroke`, `fill`, `width` and `data` as for a path."""

    x: float
    y: float
    radius: float
    stroke: str = "wire"
    fill: str = ""
    width: float = 1.2
    data: Data = ()


@dataclass(frozen=True)
class Text:
    """A line of text.

    Attributes:
        x, y: Where it stands: `y` is the baseline, `x` the place of `anchor`.
        spans: Its pieces, from left to right.
        size: The size of the font.
        anchor: Which part of the text is at `x`.
        role: The role that gives its colour.
        data: What the mark stands for.
    """

    x: float
    y: float
    spans: tuple[Span, ...]
    size: float = 15.0
    anchor: Literal["start", "middle", "end"] = "start"
    role: str = "label"
    data: Data = ()

    @property
    def plain(self) -> str:
        """The characters without styles."""
        return "".join(span.text for span in self.spans)


Mark = Path | Circle | Text


@dataclass(frozen=True)
class Picture:
    """A whole drawing: its size, its marks in the order in which they are drawn, and its title (for readers)."""

    width: float
    height: float
    marks: tuple[Mark, ...]
    title: str = ""


ROLES = (
    "paper",  # the background
    "wire",  # an axis
    "cotangent",  # an axis of a gradient
    "error",  # the axes that clash, and the words of the error
    "faint",  # scalars, lifted wires' bands: secondary lines
    "glyph",  # outlines of triangles, circles, boxes
    "ink",  # filled black parts: dots, bars, arrow heads
    "inside",  # the fill of outlined glyphs
    "window",  # the fill of the trapezoid of a convolution
    "star",  # the fill of the box of a convolution that keeps sizes
    "index",  # the fill of the pentagon
    "indextext",  # the text in it
    "memory",  # the fill behind → C
    "label",  # names and sizes of axes
    "title",  # titles of fences
    "note",  # the notes of boxes, and what they are
    "bracket",  # the brackets around repeated boxes
    *(f"fence{number}" for number in range(8)),  # the tinted background of an open circuit or module
    *(f"box{number}" for number in range(8)),  # the fill of a closed one
)
"""Every role that a mark may have."""

__all__ = ["ROLES", "Circle", "Data", "Mark", "P", "Path", "Picture", "Point", "Span", "Text"]
