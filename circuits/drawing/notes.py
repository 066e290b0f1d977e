"""The notes of a picture: a number or text beside each box, which is handed in as data.

What is drawn as one has one note: that of a learned map and of the rearrangement beside it is for both. In brackets,
it is for one repetition; where repetitions differ, all are listed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy

from circuits.diagram import Box, check_outline, heading_of, is_number, text_of
from circuits.drawing.contents import Item
from circuits.drawing.labels import axis_label
from circuits.drawing.marks import Span
from circuits.errors import CircuitError

LONGEST = 26
"""The most characters of a formula that are drawn, if it has a shorter form."""

_MOST = 4
"""The most repetitions whose notes are all written."""

Place = tuple[int, ...]
Spans = tuple[Span, ...]


class Notes:
    """The notes of the boxes of one diagram.

    Args:
        data: From the place of a box, or the path of a module, to a number or text; None for no notes.
        box: The outermost box of the diagram.

    Raises:
        CircuitError: It is no such data, or data of another diagram.
    """

    def __init__(self, data: Mapping[Any, Any] | None, box: Box) -> None:
        self._data: Mapping[Any, Any] = {} if data is None else data
        self._values: dict[str, tuple[Place, Any]] = {}
        if data is None:
            return
        if not isinstance(data, Mapping):
            raise CircuitError(
                "draw: notes has to be data from places or paths of boxes to numbers or texts, as "
                f"count(model).column('flops'), not {type(data).__name__}"
            )
        check_outline(data, box, "draw: notes")
        known: set[Any] = {"heading"}
        for place, inner in _placed(box, ()):
            keys = [place, *([inner.path] if inner.path or not place else [])]
            known.update(keys)
            for key in keys:
                if key in data:
                    self._values.setdefault(".".join(map(str, place)) or "root", (place, data[key]))
        missing = next((key for key in data if key not in known), None)
        if missing is not None:
            raise CircuitError(f"draw: notes has {missing!r}, which is neither the place nor the path of a box")

    def of(self, *repetitions: Sequence[str]) -> Spans:
        """Return the note of what is drawn as one.

        Args:
            *repetitions: For each repetition, the ids of the boxes.
        """
        found = [self._together([self._values[each] for each in ids if each in self._values]) for ids in repetitions]
        texts = list(dict.fromkeys(found))
        if len(texts) > 1:
            texts = found if len(found) <= _MOST else [*found[:2], (Span("…", "upright"),), found[-1]]
        return tuple([span for number, each in enumerate(texts) for span in (*_comma(number), *each)])

    def heading(self, some: bool) -> Spans:
        """Return the line that says what the notes are.

        Args:
            some: Whether some are in brackets.
        """
        if not self._values:
            return ()
        sizes = getattr(self._data, "sizes", "")
        at = f" at {sizes.replace('=', ' = ')}" if sizes else ""
        more = "; of one repetition in brackets" if some else ""
        return (Span(f"numbers: {heading_of(self._data)}{at}{more}", "sans"),)

    def _together(self, found: Sequence[tuple[Place, Any]]) -> Spans:
        """Return the note of several boxes."""
        values = [value for _, value in found]
        if len(found) > 1 and hasattr(self._data, "together"):
            values = [self._data.together([place for place, _ in found])]  # pyright: ignore[reportAttributeAccessIssue]
        elif len(found) > 1 and all(map(is_number, values)):
            values = [sum(values)]
        return tuple([span for number, each in enumerate(values) for span in (*_comma(number), *self._spans(each))])

    def _spans(self, value: Any) -> Spans:
        """Return one value as text."""
        text = text_of(self._data, value)
        if not (isinstance(value, sympy.Basic) and value.free_symbols):
            return (Span(text, "upright" if is_number(value) else "sans"),) if text else ()
        if len(text) > LONGEST and hasattr(self._data, "shorter"):
            forms = [text, *self._data.shorter(value)]  # pyright: ignore[reportAttributeAccessIssue]
            text = next((each for each in forms if len(each) <= LONGEST), forms[-1])
        return _formula(text)


def repeated_ids(bracket: Item, ids: Sequence[str]) -> list[list[str]]:
    """Return the ids of boxes of the first repetition in each repetition."""
    found = [list(ids) for _ in range(bracket.times)]
    for firsts in bracket.again:
        for number, each in enumerate(ids):
            if each == firsts[0] or each.startswith(f"{firsts[0]}."):
                for repetition, start in zip(found, firsts, strict=True):
                    repetition[number] = start + each[len(firsts[0]) :]
    return found


def _placed(box: Box, place: Place) -> Iterator[tuple[Place, Box]]:
    """Yield every box with its place."""
    yield place, box
    for number, inner in enumerate(box.boxes):
        yield from _placed(inner, (*place, number))


def _comma(number: int) -> Spans:
    return (Span(", ", "upright"),) if number else ()


_NAME = re.compile(r"[^\W\d]\w*(?![\w(])")
_UPRIGHT = re.compile(r"(\*\*\d+|[a-z]{2,}(?=\())")
"""A power, or the name of a function."""


def _formula(text: str) -> Spans:
    """Return a formula with letters as the axes have them and powers above the line: `4*k*x**2` as in mathematics."""
    found: list[Span] = []
    short = all(len(name) == 1 for name in _NAME.findall(text))
    for number, part in enumerate(_UPRIGHT.split(text)):
        power = part.startswith("**")
        upright = (Span(part[2:] if power else part, "upright", "sup" if power else ""),)
        factors = part.split("*") if short else [part]
        found += upright if number % 2 else [span for factor in factors for span in axis_label(factor)]
    return tuple(found)


__all__ = ["Notes", "Spans", "repeated_ids"]
