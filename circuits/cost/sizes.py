"""Sums of sizes, which are numbers or formulas in axis names, and the largest of several.

A sum keeps its terms apart, a number for each product of axes, so that adding is fast and two sums can be compared:
one is never larger than another if none of its terms is.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import sympy

from circuits.diagram import Size, evaluate

Terms = Mapping[Any, Any]
"""The number that each product of axes is multiplied by; the product of no axes is 1."""


@lru_cache(4096)
def terms_of(size: Any) -> Terms:
    """Return the terms of a size.

    >>> h = sympy.Symbol("h", positive=True, integer=True)
    >>> terms_of(2 * h * (h + 1)) == {h**2: 2, h: 2}
    True
    """
    if isinstance(size, int):
        return {sympy.S.One: size} if size else {}
    return dict(sympy.expand(size).as_coefficients_dict())


def size_of(terms: Terms) -> Size:
    """Return a sum as a number, or as a formula if it depends on axes."""
    found: Any = sympy.Add(*[product * number for product, number in terms.items()])
    return int(found) if found.is_Integer else found


def simplified(size: Any) -> Size:
    """Return a size with its products expanded, as an int if it is a whole number."""
    found: Any = sympy.expand(size)
    return int(found) if found.is_Integer else found


class Sum:
    """A sum of sizes."""

    def __init__(self) -> None:
        self.terms: dict[Any, Any] = {}

    def add(self, size: Size, times: int = 1) -> None:
        """Add a size, or with `times=-1` subtract it."""
        for product, number in terms_of(size).items():
            total = self.terms.get(product, 0) + number * times
            if total == 0:
                self.terms.pop(product, None)
            else:
                self.terms[product] = total

    @property
    def size(self) -> Size:
        """The sum as a number or a formula."""
        return size_of(self.terms)


class Largest:
    """The largest of the sums that are noted: a number, or several formulas of which sizes decide which is largest."""

    def __init__(self) -> None:
        self.candidates: list[Terms] = []

    def note(self, terms: Terms) -> None:
        """Note a sum."""
        if any(_is_at_most(terms, other) for other in self.candidates):
            return
        self.candidates = [other for other in self.candidates if not _is_at_most(other, terms)] + [dict(terms)]

    @property
    def size(self) -> Size:
        """The largest sum; a `Max` of formulas if it depends on the sizes which is largest."""
        return largest([size_of(terms) for terms in self.candidates])


def largest(sizes: Iterable[Size]) -> Size:
    """Return the largest of some sizes, 0 if there are none; a `Max` of formulas where it depends on the axes."""
    found: list[Any] = []
    for size in sizes:
        found += [*size.args] if isinstance(size, sympy.Max) else [size]
    kept = Largest()
    for size in found:
        kept.note(terms_of(size))
    left = [size_of(terms) for terms in kept.candidates]
    if len(left) < 2:
        return left[0] if left else 0
    return sympy.Max(*sorted(left, key=str), evaluate=False)


def _is_at_most(one: Terms, other: Terms) -> bool:
    """Return whether a sum is at most another for all sizes of axes from 1 on, as far as single terms show.

    A term that is larger here is covered by terms that are larger there and whose products have the same axes and
    more: `x*y` is at most `h*x*y`.
    """
    spare = {product: number - one.get(product, 0) for product, number in other.items()}
    spare |= {product: -number for product, number in one.items() if product not in other}
    missing = {product: -number for product, number in spare.items() if number < 0}
    left = {product: number for product, number in spare.items() if number > 0}
    for product, number in missing.items():
        for larger in [each for each in left if _divides(product, each)]:
            covered = min(number, left[larger])
            number, left[larger] = number - covered, left[larger] - covered
        if number > 0:
            return False
    return True


@lru_cache(4096)
def _divides(product: Any, larger: Any) -> bool:
    """Return whether the quotient of two products of axes is a product of axes, so that it is at least 1."""
    factors: Any = larger / product
    return all(
        factor.is_Symbol and factor.is_positive and power.is_Integer and power > 0
        for factor, power in factors.as_powers_dict().items()
        if factor != 1
    )


def at(size: Any, numbers: Mapping[Any, int]) -> Any:
    """Return a size with numbers for some axes; None stays None."""
    free = getattr(size, "free_symbols", None)
    if not free:
        return size
    if free <= set(numbers):
        return evaluate(size, numbers)
    if isinstance(size, sympy.Max):
        return largest([at(part, numbers) for part in size.args])
    return simplified(size.xreplace({axis: sympy.Integer(number) for axis, number in numbers.items()}))


__all__ = ["Largest", "Sum", "Terms", "at", "largest", "simplified", "size_of", "terms_of"]
