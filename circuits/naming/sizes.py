"""Arithmetic on sizes that are ints or sympy expressions: equality, quotients, ratios.

A size is an int, a sympy expression over symbolic sizes, or None if it is unknown.
"""

from fractions import Fraction
from typing import Any

import sympy


def same_size(a: Any, b: Any) -> bool:
    """Return whether two sizes are equal, as ints or as expanded expressions; False if one of them is None."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if a is None or b is None:
        return False
    return bool(a == b) or bool(sympy.expand(a) == sympy.expand(b))


def quotient(a: Any, b: Any) -> Any:
    """Return `a / b`; for two ints, `a // b`."""
    return a // b if isinstance(a, int) and isinstance(b, int) else a / b


def ratio_of(a: Any, b: Any) -> Fraction | None:
    """Return `a / b` as a fraction, or None if it depends on a symbolic size or `b` is the int 0."""
    if isinstance(a, int) and isinstance(b, int):
        return Fraction(a, b) if b else None
    found = sympy.simplify(sympy.sympify(a) / b)
    return Fraction(int(found.p), int(found.q)) if found.is_Rational else None


def size_text(size: Any) -> str | None:
    """Return the text of a size that is an int, else None."""
    return f"{size}" if isinstance(size, int) else None
