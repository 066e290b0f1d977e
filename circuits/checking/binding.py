"""Find the sizes of the axes from the tensors, and everything that does not agree.

This is the slow and complete reading of a call: it goes on after a mismatch, so that all are found at once. It runs
under torch.compile too, when a call is refused there, so it uses plain loops and f-strings alone: `str(size)`, `map`
and joins over generators would lose the message.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.checking.declaration import Slot, has_rest
from circuits.signature import Axis, Group, Number, Rest, Term, solve, unknown

NUMBERS = (int, float, complex, torch.SymInt, torch.SymFloat, torch.SymBool)
"""What may stand for a scalar that goes in."""


class Row:
    """One tensor of a call beside its slot: its sizes, what is wrong with it, and where the carets go."""

    def __init__(self, slot: Slot, value: Any) -> None:
        self.slot = slot
        self.value = value
        self.sizes: list[Any] = []
        self.notes: list[str] = []
        self.marked: list[int] = []
        self.shown = ""
        if isinstance(value, Tensor):
            for size in value.shape:
                self.sizes.append(size)
            self.shown = show_sizes(self.sizes)
        else:
            self.shown = _brief(value)

    def note(self, text: str, *places: int) -> None:
        """Write down a mismatch, with a caret under the size at each place."""
        self.notes.append(text)
        for place in places:
            self.marked.append(place)


class Binding:
    """The sizes found so far, where each came from, and the terms not yet compared."""

    def __init__(self, multiples: Mapping[str, int]) -> None:
        self.sizes: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.multiples = multiples
        self.rest: list[Any] | None = None
        self.rest_source = ""
        self.open: list[tuple[Row, int, Term]] = []
        self.products: dict[str, Any] = {}
        self.product_sources: dict[str, str] = {}

    def give(self, name: str, size: Any, source: str) -> str:
        """Take the size of a name; answers what is wrong with it, if anything."""
        self.sizes[name] = size
        self.sources[name] = source
        if name in self.multiples and size % self.multiples[name] != 0:
            return f"{name} is {switch.show(size)}, not a multiple of {self.multiples[name]}"
        return ""

    def read(self, row: Row) -> None:
        """Look at one tensor: its kind, its number of axes, then its plain axes."""
        slot = row.slot
        if not isinstance(row.value, Tensor):
            number = slot.role == "input" and slot.dtype is None and isinstance(row.value, NUMBERS)
            if len(slot.axes) > 0 or not number:
                row.note(_not_a_tensor(row))
            return
        if slot.dtype is not None and row.value.dtype != slot.dtype:
            row.note(f"{row.value.dtype} here, but {slot.dtype} is asked for")
        found, wanted = len(row.sizes), len(slot.axes)
        loose = has_rest(slot.axes)
        if loose:
            wanted -= 1
        if found < wanted or (found > wanted and not loose):
            least = "at least " if loose else ""
            row.note(f"{_axes(found)} here, but the signature has {least}{wanted if wanted > 0 else 'none'}")
            return
        for i in range(len(slot.axes)):
            self.term(row, slot.axes[i], found - len(slot.axes) + i)

    def term(self, row: Row, term: Term, place: int) -> None:
        """One term of one tensor; groups and arithmetic wait."""
        if isinstance(term, Rest):
            self.leading(row, row.sizes[: place + 1])
        elif isinstance(term, Axis):
            self.plain(row, term.name, place)
        elif isinstance(term, Number):
            if row.sizes[place] != term.value:
                row.note(f"{switch.show(row.sizes[place])} here, but the signature says {term.value}", place)
        else:
            self.open.append((row, place, term))

    def plain(self, row: Row, name: str, place: int) -> None:
        """A named axis: its first size is taken, the others must equal it."""
        size = row.sizes[place]
        if name not in self.sizes:
            wrong = self.give(name, size, f"from {row.slot.name}")
            if wrong:
                row.note(wrong, place)
        elif size != self.sizes[name]:
            stretch = "; a size of 1 is not stretched" if size == 1 or self.sizes[name] == 1 else ""
            row.note(f"{name} is {switch.show(size)} here, but {self.said(name)}{stretch}", place)

    def leading(self, row: Row, sizes: list[Any]) -> None:
        """The axes `...` stands for: equal everywhere, but an optional tensor's need only broadcast."""
        if self.rest is None:
            if row.slot.role != "optional":
                self.rest = sizes
                self.rest_source = f"from {row.slot.name}"
            return
        clash = _uneven(sizes, self.rest, row.slot.role == "optional")
        if clash is None:
            return
        said = f"{show_sizes(self.rest)} ({self.rest_source})"
        fit = "which does not broadcast to" if row.slot.role == "optional" else "but"
        row.note(f"... is {show_sizes(sizes)} here, {fit} {said}", *clash)

    def said(self, name: str) -> str:
        """A size with where it came from."""
        return f"{switch.show(self.sizes[name])} ({self.sources[name]})"

    def settle(self) -> None:
        """Solve and compare groups and arithmetic until nothing more is known, then open groups as products."""
        before = -1
        while before != len(self.open):
            before = len(self.open)
            still: list[tuple[Row, int, Term]] = []
            for row, place, term in self.open:
                lacking = unknown(term, self.sizes)
                if len(lacking) > 1:
                    still.append((row, place, term))
                elif len(lacking) == 1:
                    self.solve(row, place, term, lacking[0])
                else:
                    self.compare(row, place, term)
            self.open = still
        for row, place, term in self.open:
            if isinstance(term, Group) and term.is_product(self.sizes):
                self.product(row, place, term)

    def compare(self, row: Row, place: int, term: Term) -> None:
        """A term all of whose names are known."""
        size, parts = row.sizes[place], self.parts(term)
        try:
            wanted = term.size(self.sizes)
        except ValueError:
            row.note(f"{term.text} is not a whole number: {parts}", place)
            return
        if size != wanted:
            row.note(f"{term.text} is {switch.show(size)} here, but {switch.show(wanted)}: {parts}", place)

    def solve(self, row: Row, place: int, term: Term, name: str) -> None:
        """A term with one name still unknown, whose size follows."""
        size, parts = row.sizes[place], self.parts(term)
        try:
            found = solve(term, size, self.sizes)
        except ValueError:
            found = -1
        if found < 0:
            row.note(f"{term.text} is {switch.show(size)} here, which gives no whole {name}{_with(parts)}", place)
            return
        wrong = self.give(name, found, f"from {term.text} of {row.slot.name}")
        if wrong:
            row.note(wrong, place)

    def product(self, row: Row, place: int, term: Group) -> None:
        """A group with several names unknown: what their product is, or whether it is what it was."""
        size, others, key = row.sizes[place], 1, ""
        lacking = unknown(term, self.sizes)
        lacking.sort()
        for name in lacking:
            key += f"{' ' if key else ''}{name}"
        try:
            for part in term.terms:
                if len(unknown(part, self.sizes)) == 0:
                    others = others * part.size(self.sizes)
        except ValueError:
            others = 0
        if others == 0 or size % others != 0:
            parts = self.parts(term)
            row.note(f"{term.text} is {switch.show(size)} here, which gives no whole ({key}){_with(parts)}", place)
        elif key not in self.products:
            self.products[key] = size // others
            self.product_sources[key] = f"from {row.slot.name}"
        elif size // others != self.products[key]:
            said = f"{switch.show(self.products[key])} ({self.product_sources[key]})"
            row.note(f"({key}) is {switch.show(size // others)} here, but {said}", place)

    def parts(self, term: Term) -> str:
        """The known names inside a term, each with its size and source."""
        text = ""
        told: list[str] = []
        for name in term.names:
            if name in self.sizes and name not in told:
                text += f"{', ' if text else ''}{name} is {self.said(name)}"
                told.append(name)
        return text


def _with(parts: str) -> str:
    return f": {parts}" if parts else ""


def broadcasts(sizes: list[Any], to: list[Any]) -> bool:
    """Whether sizes, aligned at the right, are each 1 or equal to what they meet.

    >>> broadcasts([1, 3], [2, 5, 3]), broadcasts([2, 3], [3])
    (True, False)
    """
    return _uneven(sizes, to, True) is None


def _uneven(sizes: list[Any], to: list[Any], stretch: bool) -> list[int] | None:
    """The places where sizes, aligned at the right, do not equal what they meet; None when all do.

    With `stretch` a 1 fits anything, and there may be fewer.
    """
    places: list[int] = []
    extra = len(sizes) - len(to)
    for i in range(len(sizes)):
        if i < extra or (sizes[i] != to[i - extra] and not (stretch and sizes[i] == 1)):
            places.append(i)
    if len(places) > 0 or (extra < 0 and not stretch):
        return places
    return None


def show_sizes(sizes: list[Any]) -> str:
    """Sizes with spaces between; `()` when there are none."""
    text = ""
    for size in sizes:
        text += f"{' ' if text else ''}{switch.show(size)}"
    return text if text else "()"


def _axes(count: int) -> str:
    if count == 0:
        return "no axes"
    return "1 axis" if count == 1 else f"{count} axes"


def _brief(value: Any) -> str:
    """A value that is no tensor, in few letters; under torch.compile its type."""
    if value is None:
        return "None"
    if torch.compiler.is_compiling():
        return f"{type(value).__name__}"
    if isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, list | tuple | str | int | float):
        return reprlib.repr(value)
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} {show_sizes(list(shape))}" if isinstance(shape, tuple) else type(value).__name__


def _not_a_tensor(row: Row) -> str:
    """What is wrong with a value that is no tensor, and what would be right where that is sure."""
    name, value = row.slot.name, row.value
    kind = f"{type(value).__name__}"
    if value is None:
        return "a tensor belongs here"
    if len(row.slot.axes) == 0 and row.slot.role == "input":
        return f"a number or a tensor without axes belongs here, not {_a(kind)}"
    if kind == "ndarray" and row.slot.role != "output":
        return f"a tensor belongs here, not a numpy array: torch.from_numpy({name})"
    if kind in ("list", "tuple"):
        return f"one tensor belongs here, not a {kind}"
    return f"a tensor belongs here, not {_a(kind)}"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
