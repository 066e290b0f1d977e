"""Solve a term for the size of the only name in it that is not known."""

from collections.abc import Mapping
from typing import Any

from circuits.signature.terms import Chain, Derived, Divide, Group, Term, chain_size, divide, unknown


class AnySizeError(ValueError):
    """Every size solves the term, because another size in it is 0."""


def solve(term: Term, size: Any, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
    """Return the size of the only unknown name in a term.

    Args:
        term: The term; exactly one name in it is not in `sizes`, and that name occurs once.
        size: The size of the whole term.
        sizes: The sizes of its other names.
        divide: How to divide exactly.

    Raises:
        AnySizeError: If every size fits: 0 times any size is 0.
        ValueError: If no integer fits, because a division is not exact.

    >>> from circuits.signature import Axis, Number
    >>> solve(Group((Axis("h"), Axis("k"))), 64, {"k": 16})
    4
    >>> solve(Derived(Axis("h"), (("/", Number(2)), ("+", Number(1)))), 8, {})
    14
    """
    if isinstance(term, Group):
        others: Any = 1
        inner: Term = term
        for part in term.terms:
            if unknown(part, sizes):
                inner = part
            else:
                others = others * part.size(sizes, divide)
        return solve(inner, _factor(size, others, divide), sizes, divide)
    if isinstance(term, Derived):
        sign, chain = "+", ()
        for product_sign, product in term.products():
            if any(unknown(atom, sizes) for _, atom in product):
                sign, chain = product_sign, product
            else:
                value = chain_size(product, sizes, divide)
                size = size - value if product_sign == "+" else size + value
        return _solve_chain(chain, size if sign == "+" else 0 - size, sizes, divide)
    return size


def _solve_chain(chain: Chain, size: Any, sizes: Mapping[str, Any], divide: Divide) -> Any:
    """Return the size of the unknown atom of a product that has the given size."""
    place = next(i for i, (_, atom) in enumerate(chain) if unknown(atom, sizes))
    for step, atom in reversed(chain[place + 1 :]):
        size = _factor(size, atom.size(sizes), divide) if step == "*" else size * atom.size(sizes)
    if place == 0:
        return size
    before = chain_size(chain[:place], sizes, divide)
    return _factor(size, before, divide) if chain[place][0] == "*" else _factor(before, size, divide)


def _factor(product: Any, by: Any, divide: Divide) -> Any:
    """Return the number that `by` is multiplied by to give the product."""
    if isinstance(by, int) and by == 0 and isinstance(product, int) and product == 0:
        raise AnySizeError("0 times any size is 0")
    return divide(product, by)
