"""What can go wrong, and how an error points at it.

One tree of errors, so that `except CircuitError` catches every mistake this library can name, and one way to stand a
caret under the place. The words of each message are written where the mistake is found.
"""

import unicodedata

WIDEST = 100
"""No line of a message quotes more of a text than this many characters around its fault."""


class CircuitError(Exception):
    """Any mistake this library can name."""


class SignatureError(CircuitError, ValueError):
    """The text of a signature cannot be read, or does not fit the function it is written on."""


class ShapeError(CircuitError, TypeError):
    """The tensors do not fit the signature."""


def point(text: str, *spans: tuple[int, int]) -> str:
    """`text` with carets under each `(start, stop)` span, indented by four.

    An empty span is one caret between two characters; a long text is cut to the part around the first span.

    >>> print(point("y m -> y", (2, 3)))
        y m -> y
          ^
    """
    start = max(0, min((a for a, _ in spans), default=0) - WIDEST // 2)
    stop = start + WIDEST
    marked = {i for a, b in spans for i in range(max(a, start), min(max(b, a + 1), stop))}
    line, marks = "…" if start else "", " " if start else ""
    for i, letter in enumerate(text[start:stop].ljust(max(marked, default=0) + 1 - start), start):
        letter = letter if letter.isprintable() else " "
        line += letter
        marks += ("^" if i in marked else " ") * _width(letter)
    return f"    {line.rstrip()}{'…' if len(text) > stop else ''}\n    {marks}".rstrip()


def _width(letter: str) -> int:
    """How many columns a terminal gives a letter."""
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
