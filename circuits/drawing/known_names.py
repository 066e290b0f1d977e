"""Names in `open`, `close` and `hide` that nothing in the diagram has are refused: a misspelt one would do nothing."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from circuits.diagram import Box, Diagram
from circuits.drawing.contents import is_named
from circuits.drawing.labels import box_title
from circuits.drawing.options import Options, words_of
from circuits.drawing.wires import axis_names
from circuits.errors import CircuitError

SUGGESTED = 5
"""The largest number of names that a message suggests."""


def check_names(diagram: Diagram, options: Options) -> None:
    """Check that boxes or axes of the diagram have the names in `open`, `close` and `hide`.

    `order` and `pairs` are not checked: one list of axes serves many models.

    Raises:
        CircuitError: If a name is that of no box, or of no axis.
    """
    if not (options.opened or options.closed or options.hidden):
        return
    boxes = list(diagram.box.walk())
    open_or_closed = [box for box in boxes if box.kind != "operation"]
    for option, names in (("open", options.opened), ("close", options.closed)):
        for name in names:
            if not any(is_named(box, (name,)) for box in open_or_closed):
                titles = [box_title("", box.label) for box in open_or_closed]
                like = [each for box in open_or_closed for each in (box.label, box.name, box.path)]
                raise _unknown(option, name, "circuit or module", titles, like)
    axes = list(dict.fromkeys(_axes(boxes)))
    for name in options.hidden:
        if name not in axes:
            raise _unknown("hide", name, "axis", axes, axes)


def _axes(boxes: Iterable[Box]) -> Iterable[str]:
    """Yield the name of each axis in the diagram, and the names in it."""
    for box in boxes:
        for value in (*box.inputs, *box.outputs, *box.inside):
            for name in axis_names(value):
                yield name
                yield from words_of(name)


def _unknown(option: str, name: str, kind: str, there: Sequence[str], names: Sequence[str]) -> CircuitError:
    """Return the error for a name that nothing has: with names like it, or else the first of those that there are."""
    close = get_close_matches(name, dict.fromkeys(names), SUGGESTED, 0.6)
    some = list(dict.fromkeys([each for each in there if each]))
    listed = ", ".join(some[:SUGGESTED]) + (", ..." if len(some) > SUGGESTED else "")
    rest = f"perhaps {' or '.join(close)}" if close else f"there are {listed}" if some else "there is none"
    return CircuitError(f"draw: {option}: no {kind} is called {name!r}; {rest}")


__all__ = ["check_names"]
