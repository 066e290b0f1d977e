"""Columns of data that a view is handed: a number or text for the path of a module, or for the place of a box.

A plain mapping is enough. One that knows more says it by attributes, which `Data` lists; a cost has such columns. What
is handed in is data of one diagram: `check_outline` refuses it for another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import sympy

from circuits.diagram import cells
from circuits.diagram.boxes import Box
from circuits.diagram.rows import Row
from circuits.errors import CircuitError

Place = tuple[int, ...]
"""The place of a box: that of each box around it, and its own, among the boxes beside it."""

Outline = Mapping[Place, tuple[str, int]]
"""What the box at each place is called, and the number of its parameters."""


class Data(Protocol):
    """What a mapping from the places of boxes may say of itself besides its values.

    Attributes:
        heading: The heading of the column.
        outline: The boxes of the diagram of which it is.
        sizes: The sizes of axes of the inputs for which it holds, `y=1, m=128`.
    """

    heading: str
    outline: Outline
    sizes: str

    def together(self, places: Sequence[Place]) -> Any:
        """Return the value of several boxes that one row shows: of repeated layers."""
        ...

    def text(self, value: Any) -> str:
        """Return the text of a value."""
        ...

    def shorter(self, value: Any) -> Sequence[str]:
        """Return shorter texts of a value, the longest first."""
        ...


@runtime_checkable
class HasColumns(Protocol):
    """What has columns to hand in: a cost."""

    def columns(self) -> Sequence[Mapping[Any, Any]]:
        """Return the columns."""
        ...


def outline(box: Box, place: Place = ()) -> dict[Place, tuple[str, int]]:
    """Return what the box at each place is called, and the number of its parameters; no box inside one with a call."""
    found = {place: (f"{box.name} {box.label}".strip(), box.parameter_count)}
    for number, inner in enumerate(box.boxes if box.call is None else ()):
        found |= outline(inner, (*place, number))
    return found


def check_outline(data: Mapping[Any, Any], box: Box, what: str) -> None:
    """Raise CircuitError if data that knows its diagram is of another one.

    Args:
        data: What is handed in.
        box: The outermost box of the diagram that is shown.
        what: What is given, for the message.
    """
    there = getattr(data, "outline", None)
    if there is None:
        return
    here = outline(box)
    wrong = next((place for place in {**here, **there} if here.get(place) != there.get(place)), None)
    if wrong is not None:
        raise CircuitError(
            f"{what} is of another diagram: the box at {wrong} is {_words(here.get(wrong))} here, "
            f"{_words(there.get(wrong))} there; count this diagram: count(diagram)"
        )


def _words(found: tuple[str, int] | None) -> str:
    """Return what a box is, for a message."""
    return "none" if found is None else f"{found[0]!r} with {found[1]:,} parameters" if found[1] else f"{found[0]!r}"


def heading_of(data: Mapping[Any, Any]) -> str:
    """Return the heading of a column: the attribute or the entry `heading`."""
    return f"{getattr(data, 'heading', None) or data.get('heading') or 'data'}"


def is_number(value: Any) -> bool:
    """Return whether a value is a number or a formula."""
    return isinstance(value, (int, float, sympy.Basic)) and not isinstance(value, bool)


def text_of(data: Mapping[Any, Any], value: Any) -> str:
    """Return the text of one value."""
    if hasattr(data, "text"):
        return data.text(value)  # pyright: ignore[reportAttributeAccessIssue]
    return cells.quantity(value) if is_number(value) else f"{value}"


def value_of(data: Mapping[Any, Any]) -> Callable[[Row], Any]:
    """Return a function from a row to its number; numbers of repeated boxes are added unless the data know better.

    It returns a list of texts if they are no numbers, and None for a row without data.
    """

    def value(row: Row) -> Any:
        nodes = [] if row.unread else row.nodes
        if hasattr(data, "together"):
            places = [node.place for node in nodes if node.place in data]
            return data.together(places) if places else None  # pyright: ignore[reportAttributeAccessIssue]
        keys = [node.place if node.place in data else node.box.path for node in nodes]
        keys = [key for key, node in zip(keys, nodes, strict=True) if key or key == () or not node.place]
        found = [data[key] for key in dict.fromkeys(keys) if key in data]
        return None if not found else sum(found) if all(map(is_number, found)) else [f"{each}" for each in found]

    return value


__all__ = [
    "Data", "HasColumns", "Outline", "check_outline", "heading_of", "is_number", "outline", "text_of", "value_of",
]  # fmt: skip
