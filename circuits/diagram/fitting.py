"""Fit the columns of a table into a width; nothing is cut without a mark, and what is left out is said.

The columns give way in this order, each only as far as it must: the names of boxes shorten in the middle, to 30
columns, and notes to 20; the sizes go where axes are shown, since the legend has the size of each letter; axes and
sizes show the outputs alone; names shorten to 24 columns; formulas are factored, then lose their last terms; further
columns go, the last first; at last the widest column shortens.
"""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from circuits.diagram.cells import shortened
from circuits.errors import CircuitError

WIDTH = 120
"""The width of a table where the standard output is no terminal."""

_GAP = 2
_NARROWEST = 8
"""The least width to which a column shortens."""


@dataclass
class Cells:
    """The texts of one column, one a row; the heading is the first.

    Attributes:
        texts: The texts.
        short: Shorter texts, which show the outputs alone, or None.
        right: Whether they stand at the right of the column.
        forms: For each text its shorter forms, the longest first, or None.
    """

    texts: list[str]
    short: list[str] | None = None
    right: bool = False
    forms: Sequence[Sequence[str]] | None = None

    @property
    def heading(self) -> str:
        """The heading."""
        return self.texts[0]

    @property
    def width(self) -> int:
        """The width of the widest text."""
        return max([len(text) for text in self.texts])

    def changed(self, change: Callable[[str], str]) -> "Cells":
        """Return the column with each text changed by a function."""
        short = None if self.short is None else [*map(change, self.short)]
        forms = None if self.forms is None else [[*map(change, each)] for each in self.forms]
        return Cells([*map(change, self.texts)], short, self.right, forms)

    def shortened(self, width: int, sign: str) -> "Cells":
        """Return the column with texts wider than `width` shortened in the middle, behind their indentation."""
        indents = [len(text) - len(text.lstrip()) for text in self.texts]
        pairs = [(" " * min(indent, width // 2), text) for indent, text in zip(indents, self.texts, strict=True)]
        texts = [indent + shortened(text.lstrip(), width - len(indent), sign) for indent, text in pairs]
        return replace(self, texts=texts if self.width > width else self.texts)

    def with_forms(self, width: int) -> "Cells":
        """Return the column with the first form of each text that is no wider than `width`, or else the last."""
        forms = self.forms or [()] * len(self.texts)
        choices = [(text, *shorter) for text, shorter in zip(self.texts, forms, strict=True)]
        texts = [next((each for each in choice if len(each) <= width), choice[-1]) for choice in choices]
        return replace(self, texts=texts)


Width = int | Literal["auto"] | None
"""How wide a table is: a number of columns, as wide as the terminal, or as wide as its texts (None)."""


def columns_of(width: Width) -> int:
    """Return the largest number of columns of a table."""
    if width is None:
        return sys.maxsize
    if width == "auto":
        return terminal_width()
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise CircuitError(f'width is {width!r}; it must be a number of columns, "auto" (the terminal), or None (all)')
    return width


def terminal_width() -> int:
    """Return the width of the terminal, or 120 if the standard output is none."""
    stream = sys.stdout
    is_terminal = stream is not None and hasattr(stream, "isatty") and not stream.closed and stream.isatty()
    return shutil.get_terminal_size((WIDTH, 24)).columns if is_terminal else WIDTH


TERMS = "terms of formulas"
"""What is left out of formulas that are cut."""

_KEPT = ("axes", "sizes", "parameters", "notes", "why", "")
"""The columns that shorten and are not left out."""


def fit(columns: Sequence[Cells], width: int, sign: str = "…") -> tuple[list[Cells], list[str]]:
    """Return the columns as they fit into a width, the first being the names, and what is left out of them."""
    found, left_out = [*columns], []
    if _shorten(found, width, sign, _least(found, 30)):
        return found, left_out
    if {"axes", "sizes"} <= {each.heading for each in found}:
        found = [each for each in found if each.heading != "sizes"]
        left_out.append("sizes")
        if _shorten(found, width, sign, _least(found, 30)):
            return found, left_out
    if any(each.short for each in found):
        found = [replace(each, texts=each.short or each.texts, short=None) for each in found]
        left_out.append("inputs")
        if _shorten(found, width, sign, _least(found, 30)):
            return found, left_out
    while not _shorten(found, width, sign, _least(found, 24)):
        if shorter := _with_forms(found, width, sign):
            cut = any("…" in text or "..." in text for each in shorter if each.forms for text in each.texts)
            return shorter, [*left_out, *([TERMS] if cut else [])]
        others = [each for each in found[1:] if each.heading.removeprefix("output ") not in _KEPT]
        if not others:
            break
        found = [each for each in found if each is not others[-1]]
        left_out.append(others[-1].heading)
    while _excess(found, width) > 0 and max([each.width for each in found]) > _NARROWEST:
        widest = max(range(len(found)), key=lambda place: found[place].width)
        narrower = max(_NARROWEST, found[widest].width - _excess(found, width))
        found[widest] = found[widest].shortened(narrower, sign)
    return found, left_out


def _least(columns: Sequence[Cells], names: int) -> dict[int, int]:
    """Return the least widths of the columns that shorten first, in order: names, then the notes, which come last."""
    notes = {} if columns[-1].forms is not None else {len(columns) - 1: 20}
    return {0: names} | notes if names == 30 else notes | {0: names}


def _with_forms(columns: Sequence[Cells], width: int, sign: str) -> list[Cells]:
    """Return columns with shorter forms of the widest formulas, and with short names; empty if they do not fit."""
    widths = {each.width for each in columns if each.forms is not None}
    for most in range(max(widths, default=0) - 1, _NARROWEST - 1, -1):
        found = [each if each.forms is None else each.with_forms(most) for each in columns]
        if _shorten(found, width, sign, _least(found, 24)):
            return found
    return []


def _excess(columns: Sequence[Cells], width: int) -> int:
    """Return by how much columns are too wide."""
    return sum([each.width for each in columns]) + _GAP * (len(columns) - 1) - width


def _shorten(columns: list[Cells], width: int, sign: str, least: Mapping[int, int]) -> bool:
    """Shorten columns as far as they must, to the least widths at most; return whether all fit, else do nothing."""
    excess, widths = _excess(columns, width), {}
    for place, narrowest in least.items():
        widths[place] = min(columns[place].width, max(narrowest, columns[place].width - excess))
        excess -= max(0, columns[place].width - widths[place]) if excess > 0 else 0
    if excess > 0:
        return False
    for place, narrower in widths.items():
        columns[place] = columns[place].shortened(narrower, sign)
    return True


def lines(columns: Sequence[Cells]) -> list[str]:
    """Return the rows of fitted columns as lines."""
    padded = [
        [text.rjust(each.width) if each.right else text.ljust(each.width) for text in each.texts] for each in columns
    ]
    return [(" " * _GAP).join(row).rstrip() for row in zip(*padded, strict=True)]


__all__ = ["TERMS", "WIDTH", "Cells", "Width", "columns_of", "fit", "lines", "terminal_width"]
