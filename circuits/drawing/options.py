"""What a caller of `draw` chooses, checked once: order, pairs and hidden axes, depth, and which boxes are open.

The name of an axis is compared by its first letters: `h/2`, `h'` and `2*h` are axes `h`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from circuits.errors import CircuitError

_WORD = re.compile(r"[^\W\d]\w*")
COLUMN, PAGE, DEFAULT_WIDTH = 330.0, 690.0, 1200.0
"""The width of a column and of a page of a paper, and the usual width of a row, in units."""


@dataclass(frozen=True)
class Options:
    """What is drawn, and how.

    Attributes:
        depth: How many levels of boxes are open; None for the deepest level that stays readable.
        opened: The names of boxes that are open at any depth.
        closed: Those of boxes that are closed at any depth.
        wires: "axes" for one wire an axis, or "tensors" for one wire a tensor.
        order: The axes from top to bottom; others are at `...`, or come last, in the order of the data.
        pairs: The pairs of axes that are one double wire, each with its label and the two names.
        hidden: The axes that are not drawn.
        show_sizes: Whether labels show sizes beside names.
        literal: Whether regrouping is drawn as columns of its own.
        width: The largest width of a row in units; None for the usual one.
        names: The names of inputs, each with the one that is drawn in its place.
        notes: The data of the notes, by the places or the paths of boxes; None for none.
    """

    depth: int | None = None
    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    wires: Literal["axes", "tensors"] = "axes"
    order: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str, str], ...] = ()
    hidden: tuple[str, ...] = ()
    show_sizes: bool = False
    literal: bool = False
    width: float | None = None
    names: tuple[tuple[str, str], ...] = ()
    notes: Mapping[Any, Any] | None = None

    @property
    def row_width(self) -> float:
        """The largest width of a row in units."""
        return DEFAULT_WIDTH if self.width is None else self.width

    def rank(self, name: str) -> int:
        """Return the place of an axis in the order; a group has that of the first of its axes.

        An axis that the order does not name has the place of `...`, or the last.
        """
        found = [self.order.index(word) for word in self._words(name) if word in self.order]
        others = self.order.index("...") if "..." in self.order else len(self.order)
        return min(found, default=others)

    def _words(self, name: str) -> Iterable[str]:
        words = words_of(name)
        return [name, *words, *[word.rstrip("0123456789") for word in words]]

    def hides(self, name: str) -> bool:
        """Return whether an axis of this name is hidden; a group or product is if all axes in it are."""
        words = words_of(name)
        if len(words) > 1 and (name.startswith("(") or "*" in name):
            return all(word in self.hidden for word in words)
        return name in self.hidden or base(name) in self.hidden

    def pair(self, first: str, second: str) -> str | None:
        """Return the label of two neighbouring axes if they are a pair: `x/2` for `h/2` and `w/2`; else None."""
        for label, one, two in self.pairs:
            if base(first) == one and base(second) == two and _without(first, one) == _without(second, two):
                return re.sub(rf"\b{re.escape(one)}\b", label, first)
        return None


def base(name: str) -> str:
    """Return the first name in a label: `h` of `h/2`; empty if there is none.

    >>> base("2*h'"), base("16")
    ('h', '')
    """
    found = _WORD.search(name)
    return found[0] if found else ""


def words_of(name: str) -> list[str]:
    """Return the names in a label.

    >>> words_of("(h k/2)")
    ['h', 'k']
    """
    return _WORD.findall(name)


def _without(label: str, name: str) -> str:
    return re.sub(rf"\b{re.escape(name)}\b", "", label)


def names_of(option: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Return names from a text, separated by spaces, or from a sequence of names.

    >>> names_of("order", "y x ...")
    ('y', 'x', '...')

    Args:
        option: The option that has them.
        given: Its value.

    Raises:
        CircuitError: If it is neither; a set is none, since its order is another in every process.
    """
    if isinstance(given, str):
        return tuple(given.split())
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise CircuitError(f"draw: {option} has to be names separated by spaces, or a sequence of names, not {given!r}")
    return tuple(given)


def pairs_of(given: str) -> tuple[tuple[str, str, str], ...]:
    """Return pairs from a text: `"h w"`, or with a label each, `"x = h w, y = i j"`.

    >>> pairs_of("x = h w, i j")
    (('x', 'h', 'w'), ('ij', 'i', 'j'))

    Raises:
        CircuitError: If it is no text, or a pair does not have two names.
    """
    if not isinstance(given, str):
        raise CircuitError(f"draw: pairs has to be a text, 'h w' or 'x = h w, y = i j', not {given!r}")
    found = []
    for part in given.split(",") if given.strip() else []:
        label, equals, names = part.rpartition("=")
        words = names.split()
        if len(set(words)) != 2 or len(words) != 2 or (equals and not label.strip()):
            raise CircuitError(f"draw: pairs has to name two axes a pair, 'h w' or 'x = h w, y = i j', not {given!r}")
        found.append((label.strip() or "".join(words), *words))
    return tuple(found)


def shown_names_of(given: Mapping[str, str] | str) -> tuple[tuple[str, str], ...]:
    """Return the names that inputs have in the picture, from a mapping or a text: `"query = Q, key = K"`.

    >>> shown_names_of("query = Q, key = K")
    (('query', 'Q'), ('key', 'K'))

    Raises:
        CircuitError: If it is neither, or a name is empty or comes twice.
    """
    if isinstance(given, str):
        parts = [part.partition("=") for part in given.split(",")] if given.strip() else []
        pairs = [(name.strip(), shown.strip()) for name, _, shown in parts]
    else:
        pairs = list(given.items()) if isinstance(given, Mapping) else [("", "")]
    whole = all(isinstance(name, str) and isinstance(shown, str) and name and shown for name, shown in pairs)
    if not whole or len({name for name, _ in pairs}) < len(pairs):
        raise CircuitError(
            f"draw: names has to be the name of each input with the one to draw, 'query = Q, key = K' or "
            f"{{'query': 'Q'}}, not {given!r}"
        )
    return tuple(pairs)


def width_of(given: float | str | None) -> float | None:
    """Return a width in units.

    Raises:
        CircuitError: If it is no positive number, "column" or "page".
    """
    if given is None:
        return None
    if isinstance(given, str) and given in ("column", "page"):
        return COLUMN if given == "column" else PAGE
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise CircuitError(f"draw: width has to be a positive number of pixels, 'column' or 'page', not {given!r}")
    return float(given)


__all__ = ["COLUMN", "PAGE", "Options", "base", "names_of", "pairs_of", "shown_names_of", "width_of", "words_of"]
