"""Find the sizes of all axes of a call, and every mismatch.

This is the slow and complete check: it continues after a mismatch, so that all are found at once. If a call is refused
under torch.compile, this module is traced too, so it uses only plain loops and f-strings: with `str(size)`, `map` or
joins over generators, the message would be lost.
"""

from collections.abc import Mapping
from numbers import Complex, Integral
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.checking.axes import has_rest
from circuits.checking.rows import Row, not_a_tensor, show_sizes
from circuits.signature import AnySizeError, Axis, Group, Number, Rest, Term, divide, solve, unknown


def _numpy_bools() -> tuple[type, ...]:
    """Return numpy's class of bools, if numpy is installed, which torch does not need."""
    try:
        import numpy
    except ImportError:
        return ()
    return (numpy.bool_,)


INTEGERS = (int, torch.SymInt, Integral)
"""The types of sizes; the integers of numpy are `Integral`."""

NUMBERS = (int, float, complex, torch.SymInt, torch.SymFloat, torch.SymBool, Complex, *_numpy_bools())
"""The types that may be passed for an input without axes; the other numbers of numpy are `Complex`."""


class Binding:
    """The sizes found so far, the source of each for messages, and the groups and arithmetic not yet compared."""

    def __init__(self, multiples: Mapping[str, int]) -> None:
        self.sizes: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.multiples = multiples
        self.rest: list[Any] | None = None
        self.rest_source = ""
        self.unsolved: list[tuple[Row, int, Term]] = []
        self.products: dict[str, Any] = {}
        self.product_sources: dict[str, str] = {}

    def set_size(self, name: str, size: Any, source: str) -> str:
        """Set the size of an axis; return the mismatch if it is not a multiple as `multiples` requires, else ""."""
        self.sizes[name] = size
        self.sources[name] = source
        if name in self.multiples and size % self.multiples[name] != 0:
            return f"{name} is {switch.show(size)}, {_no_multiple(size, self.multiples[name])}"
        return ""

    def bind(self, row: Row) -> None:
        """Check the type, the dtype and the number of axes of one tensor, then bind or compare its axes."""
        slot = row.slot
        if not isinstance(row.value, Tensor):
            number = slot.role == "input" and slot.dtype is None and isinstance(row.value, NUMBERS)
            if len(slot.axes) > 0 or not number:
                row.add(not_a_tensor(row))
            return
        if slot.dtype is not None and row.value.dtype != slot.dtype:
            row.add(f"{row.value.dtype} here, but {slot.dtype} is expected")
            row.wrong_dtype = True
        found, expected = len(row.sizes), len(slot.axes)
        rest = has_rest(slot.axes)
        if rest:
            expected -= 1
        if found < expected or (found > expected and not rest):
            least = "at least " if rest else ""
            row.add(f"{_count_axes(found)} here, but the signature has {least}{expected if expected > 0 else 'none'}")
            if len(slot.axes) == 1 and isinstance(slot.axes[0], Axis) and len(slot.axes[0].name) == found > 1:
                row.mismatches[-1] += f"; separate axes by spaces, '{_spaced(slot.axes[0].name)}'"
            return
        for i in range(len(slot.axes)):
            self._bind_term(row, slot.axes[i], found - len(slot.axes) + i)

    def _bind_term(self, row: Row, term: Term, position: int) -> None:
        """Bind or compare one term of one tensor; groups and arithmetic are deferred until `solve_all`."""
        if isinstance(term, Rest):
            self._bind_rest(row, row.sizes[: position + 1])
        elif isinstance(term, Axis):
            self._bind_axis(row, term.name, position)
        elif isinstance(term, Number):
            if row.sizes[position] != term.value:
                row.add(f"{switch.show(row.sizes[position])} here, but the signature says {term.value}", position)
        else:
            self.unsolved.append((row, position, term))

    def _bind_axis(self, row: Row, name: str, position: int) -> None:
        """Bind a named axis to its size at the first occurrence, and compare it at the others."""
        size = row.sizes[position]
        if name not in self.sizes:
            mismatch = self.set_size(name, size, f"from {row.slot.name}")
            if mismatch:
                row.add(mismatch, position)
        elif size != self.sizes[name]:
            stretch = "; a size of 1 is not broadcast" if size == 1 or self.sizes[name] == 1 else ""
            row.add(f"{name} is {switch.show(size)} here, but {self._show(name)}{stretch}", position)

    def _bind_rest(self, row: Row, sizes: list[Any]) -> None:
        """Bind or compare the sizes of the axes that `...` matches; those of an optional tensor need only broadcast."""
        if self.rest is None:
            if row.slot.role != "optional":
                self.rest = sizes
                self.rest_source: str = f"from {row.slot.name}"
            return
        positions = _unequal_positions(sizes, self.rest, row.slot.role == "optional")
        if positions is None:
            return
        known = f"{show_sizes(self.rest)} ({self.rest_source})"
        fit = "which does not broadcast to" if row.slot.role == "optional" else "but"
        row.add(f"... is {show_sizes(sizes)} here, {fit} {known}", *positions)

    def solve_all(self) -> None:
        """Solve and compare groups and arithmetic until no more sizes become known, then compare remaining products.

        A size beside an axis of size 0, as `c` in `b (b c)` at sizes 0 and 0, stays unknown: any size fits. It may
        become known later, from another tensor.
        """
        before = -1
        while before != len(self.unsolved):
            before = len(self.unsolved)
            unsolved: list[tuple[Row, int, Term]] = []
            for row, position, term in self.unsolved:
                missing = unknown(term, self.sizes)
                if len(missing) == 0:
                    self._compare(row, position, term)
                elif len(missing) > 1 or not self._solve(row, position, term, missing[0]):
                    unsolved.append((row, position, term))
            self.unsolved = unsolved
        for row, position, term in self.unsolved:
            if isinstance(term, Group) and term.is_product(self.sizes):
                self._compare_product(row, position, term)

    def _compare(self, row: Row, position: int, term: Term) -> None:
        """Compare a term whose names are all known."""
        size, parts = row.sizes[position], self._show_known(term)
        try:
            expected = term.size(self.sizes)
        except ValueError:
            row.add(f"{term.text} is not a whole number: {parts}", position)
            return
        if size != expected:
            row.add(f"{term.text} is {switch.show(size)} here, but {switch.show(expected)}: {parts}", position)

    def _solve(self, row: Row, position: int, term: Term, name: str) -> bool:
        """Set the size of the single unknown name of a term; return whether it is settled: False if any size fits."""
        size = row.sizes[position]
        try:
            found = solve(term, size, self.sizes)
            if found < 0 or term.size({**self.sizes, name: found}) != size:
                raise ValueError(f"{found} does not fit")
        except AnySizeError:
            return False
        except ValueError:
            mismatch = f"{term.text} is {switch.show(size)} here, so {name} is not a whole number"
            row.add(f"{mismatch}{_after_colon(self._show_known(term))}", position)
            return True
        mismatch = self.set_size(name, found, f"from {term.text} of {row.slot.name}")
        if mismatch:
            row.add(mismatch, position)
        return True

    def _compare_product(self, row: Row, position: int, term: Group) -> None:
        """Bind or compare the product of the unknown sizes of a group, for a group with more than one."""
        size, others, key = row.sizes[position], 1, ""
        missing = unknown(term, self.sizes)
        missing.sort()
        multiple = 1
        for name in missing:
            key += f"{' ' if key else ''}{name}"
            multiple *= self.multiples.get(name, 1)
        try:
            for part in term.terms:
                if len(unknown(part, self.sizes)) == 0:
                    others = others * part.size(self.sizes)
            if others == 0 and size == 0:
                return
            product = divide(size, others)
        except ValueError:
            parts = _after_colon(self._show_known(term))
            row.add(f"{term.text} is {switch.show(size)} here, so ({key}) is not a whole number{parts}", position)
            return
        if key not in self.products:
            self.products[key] = product
            self.product_sources[key] = f"from {row.slot.name}"
            if product % multiple != 0:
                row.add(f"({key}) is {switch.show(product)}, {_no_multiple(product, multiple)}", position)
        elif product != self.products[key]:
            known = f"{switch.show(self.products[key])} ({self.product_sources[key]})"
            row.add(f"({key}) is {switch.show(product)} here, but {known}", position)

    def _show(self, name: str) -> str:
        """Return the size of an axis with its source."""
        return f"{switch.show(self.sizes[name])} ({self.sources[name]})"

    def _show_known(self, term: Term) -> str:
        """Return the known names inside a term, each once, with its size and source."""
        text = ""
        shown: list[str] = []
        for name in term.names:
            if name in self.sizes and name not in shown:
                text += f"{', ' if text else ''}{name} is {self._show(name)}"
                shown.append(name)
        return text


def _after_colon(parts: str) -> str:
    return f": {parts}" if parts else ""


def _no_multiple(size: Any, multiple: int) -> str:
    """Return the mismatch of a size that is not a multiple, with the nearest multiples, of which 0 is none.

    >>> _no_multiple(30, 16), _no_multiple(3, 16)
    ('not a multiple of 16 like 16 and 32', 'not a multiple of 16 like 16')
    """
    below = size // multiple * multiple if type(size) is int else None
    if below is None:  # a size that is not known yet
        return f"not a multiple of {multiple}"
    return f"not a multiple of {multiple} like {f'{below} and ' if below else ''}{below + multiple}"


def _count_axes(count: int) -> str:
    if count == 0:
        return "no axes"
    return "1 axis" if count == 1 else f"{count} axes"


def _spaced(name: str) -> str:
    """Return the letters of a name, separated by spaces."""
    text = ""
    for letter in name:
        text += f"{' ' if text else ''}{letter}"
    return text


def broadcasts(sizes: list[Any], to: list[Any]) -> bool:
    """Return whether sizes broadcast to others: aligned at the right, each is 1 or equal to its counterpart.

    >>> broadcasts([1, 3], [2, 5, 3]), broadcasts([2, 3], [3])
    (True, False)
    """
    return _unequal_positions(sizes, to, True) is None


def _unequal_positions(sizes: list[Any], to: list[Any], broadcast: bool) -> list[int] | None:
    """Return the positions where sizes, aligned at the right, differ from their counterparts; None if they fit.

    With `broadcast`, 1 fits any size, and there may be fewer sizes than counterparts. Without it, fewer sizes do not
    fit; if none of these differs from its counterpart, the list is empty.
    """
    positions: list[int] = []
    extra = len(sizes) - len(to)
    for i in range(len(sizes)):
        if i < extra or (sizes[i] != to[i - extra] and not (broadcast and sizes[i] == 1)):
            positions.append(i)
    if len(positions) > 0 or (extra < 0 and not broadcast):
        return positions
    return None
