"""Write the comparisons of sizes: each axis is bound once, then compared; groups and arithmetic are solved.

The order in which sizes become known is the same for every call, so it is found here, once per declaration.
"""

import math
from collections.abc import Mapping
from typing import Any

from circuits.checking.check_writer import CheckWriter
from circuits.checking.expressions import Expression, text_of
from circuits.signature import Group, Term, solve, unknown


class SizeComparisons:
    """The sizes known so far as expressions, and the groups and arithmetic that still have unknown names.

    `optional` maps each axis that only optional tensors have to the variable that holds its size, which is None until
    one of these tensors is passed.
    """

    def __init__(self, writer: CheckWriter, multiples: Mapping[str, int]) -> None:
        self.writer = writer
        self.multiples = multiples
        self.known: dict[str, Any] = {}
        self.optional: dict[str, str] = {}
        self.unsolved: list[tuple[Expression, Term]] = []
        self._products: dict[str, Any] = {}

    def bind(self, axis: str, size: Any) -> None:
        """Set the size of an axis; refuse one that is not a multiple, if the circuit's `multiples` has the axis."""
        self.known[axis] = size
        self._check_multiple(axis, text_of(size))

    def compare_axis(self, axis: str, name: str) -> None:
        """Bind a named axis to the variable `name` at its first occurrence, and compare it at the others."""
        if axis in self.optional:
            kept = self.optional[axis]
            self.writer.refuse_if(f"({kept} := {name} if {kept} is None else {kept}) != {name}")
            self._check_multiple(axis, name)
        elif axis in self.known:
            self.writer.refuse_if(f"{name} != {text_of(self.known[axis])}")
        else:
            self.bind(axis, Expression(name))

    def defer(self, term: Term, name: str) -> None:
        """Keep a group or arithmetic whose size is in the variable `name` until `solve_all`."""
        self.unsolved.append((Expression(name), term))

    def solve_all(self) -> None:
        """Solve and compare the deferred terms until no more sizes become known, then compare remaining products."""
        before = -1
        while before != len(self.unsolved):
            before = len(self.unsolved)
            terms, self.unsolved = self.unsolved, []
            for size, term in terms:
                self._compare(size, term)
        for size, term in self.unsolved:
            if isinstance(term, Group) and term.is_product(self.known):
                self._compare_product(size, term)

    def _check_multiple(self, axis: str, size: str) -> None:
        """Refuse a size that is not a multiple, where the circuit's `multiples` has the axis."""
        if axis in self.multiples:
            self.writer.refuse_if(f"{size} % {self.multiples[axis]} != 0")

    def _compare(self, size: Expression, term: Term) -> None:
        """Compare a term whose names are all known, solve for a single unknown name, and defer a term with more.

        A size of 0 is refused, because only the complete check can tell whether it solves arithmetic such as `n/c`.
        """
        missing = unknown(term, self.known)
        if len(missing) > 1:
            self.unsolved.append((size, term))
        elif missing:
            found = self.writer.assign(solve(term, size, self.known, self.writer.divide))
            self.writer.refuse_if(f"{text_of(found)} < 1")
            self.bind(missing[0], found)
        else:
            expected = term.size(self.known, self.writer.divide)
            self.writer.refuse_if(f"{size.text} != {text_of(expected)}")

    def _compare_product(self, size: Expression, term: Group) -> None:
        """Bind or compare the product of the unknown sizes of a group, for a group with more than one.

        The product must be a multiple of the product of the numbers that `multiples` has for these sizes.
        """
        missing = sorted(unknown(term, self.known))
        key = " ".join(missing)
        others: Any = 1
        for part in term.terms:
            if not unknown(part, self.known):
                others = others * part.size(self.known, self.writer.divide)
        product = self.writer.divide(size, others)
        if key in self._products:
            self.writer.refuse_if(f"{text_of(product)} != {text_of(self._products[key])}")
        else:
            self._products[key] = product
            multiple = math.prod([self.multiples.get(name, 1) for name in missing])
            if multiple != 1:
                self.writer.refuse_if(f"{text_of(product)} % {multiple} != 0")
