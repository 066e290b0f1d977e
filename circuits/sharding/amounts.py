"""Amounts of bytes or FLOPs by the mesh axes that divide them: one amount is that of a rank on a mesh of any sizes.

The sizes of a mesh are numbers, or symbols for those that are free; what one rank has is then a formula.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import prod
from typing import Any

import sympy

from circuits.diagram import Size

Amount = Mapping[frozenset[str], int]
"""The number that each set of mesh axes divides: `{frozenset(): 8, frozenset({"tensor"}): 64}` is 8 + 64/tensor."""

Mesh = Mapping[str, Size]
"""The size of each mesh axis: a number, or a symbol if it is free."""


def added(amounts: Iterable[tuple[frozenset[str], int]]) -> dict[frozenset[str], int]:
    """Return the sum of some numbers, each divided by mesh axes."""
    found: dict[frozenset[str], int] = {}
    for axes, number in amounts:
        if number:
            found[axes] = found.get(axes, 0) + number
    return found


def of_rank(amount: Amount, mesh: Mesh) -> Size:
    """Return what one rank has of an amount; a fraction of a byte is rounded up.

    >>> amount = {frozenset(): 8, frozenset({"tensor"}): 64}
    >>> of_rank(amount, {"tensor": 4}), of_rank(amount, {"tensor": sympy.Symbol("tensor")})
    (24, 8 + 64/tensor)
    """
    parts: list[Any] = [(number, prod([mesh[axis] for axis in axes])) for axes, number in amount.items()]
    if all(isinstance(ranks, int) for _, ranks in parts):
        whole = sum([Fraction(number, ranks) for number, ranks in parts], Fraction(0))
        return -(-whole.numerator // whole.denominator)
    return sympy.Add(*[number / sympy.sympify(ranks) for number, ranks in parts])


def largest_of_rank(amounts: Iterable[Amount], mesh: Mesh) -> Size:
    """Return the largest of what one rank has of some amounts; a `Max` of formulas where it depends on free sizes."""
    if all(isinstance(size, int) for size in mesh.values()):
        return max([of_rank(amount, mesh) for amount in amounts], default=0)
    kept: list[Amount] = []
    for amount in amounts:
        if not any(_is_at_most(amount, other) for other in kept):
            kept = [*[other for other in kept if not _is_at_most(other, amount)], amount]
    found = dict.fromkeys([of_rank(amount, mesh) for amount in kept])
    return sympy.Max(*found, evaluate=False) if len(found) > 1 else next(iter(found), 0)


def _is_at_most(one: Amount, other: Amount) -> bool:
    """Return whether an amount is at most another on every mesh, as far as single terms show.

    What more axes divide is covered by as much that fewer of these divide.
    """
    left = dict(other)
    for axes, number in sorted(one.items(), key=lambda item: len(item[0])):
        for larger in sorted([each for each in left if each <= axes], key=len, reverse=True):
            covered = min(number, left[larger])
            number, left[larger] = number - covered, left[larger] - covered
        if number > 0:
            return False
    return True


__all__ = ["Amount", "Mesh", "added", "largest_of_rank", "of_rank"]
