"""Pictures joined to one: beside each other with a sign between, as in an equation, or one below the other.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 9 to 11, 17 and 18.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from circuits.drawing.layout.picture import moved
from circuits.drawing.marks import Mark, P, Picture, Span, Text
from circuits.drawing.widths import width

SIGN_SIZE, ABOVE_SIZE = 24.0, 13.0
"""The sizes of the font of a sign, and of the words above it."""


@dataclass(frozen=True)
class Sign:
    """What stands between two pictures.

    Attributes:
        text: The sign, such as `=` or `↦`.
        above: Words above it, such as `def`; empty for none.
    """

    text: str = "="
    above: str = ""

    @property
    def width(self) -> float:
        """The width that it takes, with a gap on both sides."""
        return 2 * P + max(width(self._spans(self.text), SIGN_SIZE), width(self._spans(self.above), ABOVE_SIZE))

    def marks(self, middle: float, height: float) -> tuple[Text, ...]:
        """Return the sign as marks, around a point."""
        data = (("kind", "sign"),)
        sign = Text(middle, height + SIGN_SIZE / 3, self._spans(self.text), SIGN_SIZE, "middle", "title", data)
        words = Text(middle, height - SIGN_SIZE / 2, self._spans(self.above), ABOVE_SIZE, "middle", "title", data)
        return (sign, words) if self.above else (sign,)

    @staticmethod
    def _spans(text: str) -> tuple[Span, ...]:
        return (Span(text, "upright"),) if text else ()


def beside(parts: Sequence[Picture | Sign]) -> Picture:
    """Return pictures and signs from left to right, with their middles at one height.

    The marks of the pictures have the number of their picture as `part`, because boxes and values have numbers of their
    own in each.
    """
    height = max((each.height for each in parts if isinstance(each, Picture)), default=0.0)
    marks: list[Mark] = []
    x, number = 0.0, 0
    for each in parts:
        if isinstance(each, Sign):
            marks += each.marks(x + each.width / 2, height / 2)
        else:
            marks += [_part(moved(mark, x, (height - each.height) / 2), number) for mark in each.marks]
            number += 1
        x += each.width
    titles = [each.title if isinstance(each, Picture) else each.text for each in parts]
    return Picture(x, height, tuple(marks), " ".join([title for title in titles if title]))


def below(pictures: Sequence[Picture], gap: float = P) -> Picture:
    """Return pictures one below the other; `part` is the number of the picture, then its number there if it has one."""
    marks: list[Mark] = []
    y = 0.0
    for number, each in enumerate(pictures):
        marks += [_part(moved(mark, 0.0, y), number) for mark in each.marks]
        y += each.height + gap
    return Picture(
        max((each.width for each in pictures), default=0.0),
        max(y - gap, 0.0),
        tuple(marks),
        "; ".join([each.title for each in pictures if each.title]),
    )


def _part(mark: Mark, number: int) -> Mark:
    """Return a mark with the number of its picture in `part`."""
    inner = "".join([f".{value}" for name, value in mark.data if name == "part"])
    rest = tuple([pair for pair in mark.data if pair[0] != "part"])
    return replace(mark, data=(*rest, ("part", f"{number}{inner}")))


__all__ = ["Sign", "below", "beside"]
