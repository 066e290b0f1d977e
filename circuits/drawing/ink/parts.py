"""What a terminal can show: level and upright strokes, bends, words, signs and frames, at the places of the picture."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from circuits.drawing.ink.curves import points
from circuits.drawing.marks import Circle, Mark, Path, Point, Text
from circuits.drawing.widths import width

LIGHT, DOUBLE, HEAVY = 1, 2, 3


@dataclass(frozen=True)
class Stroke:
    """A straight line: `at` is its height if it is level, its place from the left if not."""

    level: bool
    at: float
    start: float
    end: float
    weight: int = LIGHT
    dash: bool = False
    square: bool = False


@dataclass(frozen=True)
class Bend:
    """A line that goes on to the right at another height."""

    start: Point
    end: Point
    weight: int = LIGHT
    dash: bool = False


@dataclass(frozen=True)
class Word:
    """A text: its left and right end, the height of its middle, and which part of it keeps its place."""

    left: float
    right: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Sign:
    """One character."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Frame:
    """A dotted rectangle around a part, or a tall bracket if its left and right side are the same."""

    left: float
    top: float
    right: float
    bottom: float
    bracket: str = ""


@dataclass
class Pieces:
    """What is shown."""

    strokes: list[Stroke] = field(default_factory=list)
    bends: list[Bend] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


def extent(mark: Mark) -> tuple[float, float, float, float]:
    """Return the left, upper, right and lower end of a mark.

    Args:
        mark: Any mark.
    """
    if isinstance(mark, Circle):
        return mark.x - mark.radius, mark.y - mark.radius, mark.x + mark.radius, mark.y + mark.radius
    if isinstance(mark, Text):
        left = left_of(mark)
        return left, mark.y - 0.8 * mark.size, left + width(mark.spans, mark.size), mark.y + 0.25 * mark.size
    places = list(path_points(mark))
    xs, ys = [x for x, _ in places], [y for _, y in places]
    return min(xs), min(ys), max(xs), max(ys)


def path_points(path: Path) -> Iterator[Point]:
    """Yield points of a path, with its curves as chords.

    Args:
        path: The mark.
    """
    return points((path.start, [tuple(zip(piece[::2], piece[1::2], strict=True)) for piece in path.pieces]))


def left_of(mark: Text) -> float:
    """Return the left end of a text.

    Args:
        mark: The text.
    """
    return mark.x - width(mark.spans, mark.size) * {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.anchor]


def middle_of(mark: Text) -> float:
    """Return the height of the middle of small letters.

    Args:
        mark: The text.
    """
    return mark.y - mark.size / 3


__all__ = [
    "DOUBLE",
    "HEAVY",
    "LIGHT",
    "Bend",
    "Frame",
    "Pieces",
    "Sign",
    "Stroke",
    "Word",
    "extent",
    "left_of",
    "middle_of",
    "path_points",
]
