"""What is drawn at the chosen depth, or at the deepest that stays readable, with repeated boxes folded."""

from collections.abc import Iterable

from circuits.diagram import Box
from circuits.drawing.contents import Item, Reader
from circuits.drawing.options import Options
from circuits.drawing.repeating import Folding

READABLE = 60
"""The largest number of steps that a picture of automatic depth has."""

ALL = 1_000_000
"""A depth at which every box is open."""


def chosen(reader: Reader, options: Options) -> tuple[tuple[Item, ...], Folding | None]:
    """Return what is drawn, and what is known of the boxes that are folded.

    Args:
        reader: The boxes of the diagram.
        options: The depth; None for the deepest at which there are not too many steps.
    """
    if options.depth is not None:
        return _folded(reader, options.depth) if options.depth else ((), None)
    found = _folded(reader, 1)
    for depth in range(2, _levels(reader.root)):
        deeper = _folded(reader, depth)
        if _count(deeper[0]) > READABLE:
            break
        found = deeper
    return found


def _levels(box: Box) -> int:
    """Return how many levels of boxes there are, the box itself included."""
    return 1 + max([_levels(inner) for inner in box.boxes], default=0)


def _folded(reader: Reader, depth: int) -> tuple[tuple[Item, ...], Folding | None]:
    """Return what is drawn at a depth, repeated boxes folded, and what is known of them."""
    folding = Folding(reader)
    items = folding.folded(reader.items(depth))
    if folding.families.letters:
        items = folding.members.named(items, reader.root)
    return items, folding


def _count(items: Iterable[Item]) -> int:
    """Return how many steps are drawn."""
    return sum([_count(item.items) if item.drawn is None else 1 for item in items])


__all__ = ["ALL", "READABLE", "chosen"]
