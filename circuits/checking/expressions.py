"""Sizes as source text: arithmetic on an `Expression` returns an `Expression` with the source of the result.

The arithmetic of `signature` (`Term.size`, `solve`) works on numbers and on expressions alike, so that the same code
computes a size and writes the Python that computes it.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Expression:
    """The Python source of an expression whose value is a size.

    A sum or a product is in parentheses, one pair for any number of operands: Python compiles no more than 200 nested
    ones. `operators` are those at its top, `"*"` or `"+-"`, or empty for a name.

    >>> (Expression("h") * 2 * 3 + 1 - Expression("w")).text
    '((h * 2 * 3) + 1 - w)'
    """

    text: str
    operators: str = ""

    def _then(self, operator: str, other: Any, operators: str) -> "Expression":
        """Return this expression with a further operand at its end."""
        left = self.text[1:-1] if self.operators == operators else self.text
        return Expression(f"({left} {operator} {text_of(other)})", operators)

    def __mul__(self, other: Any) -> "Expression":
        return self._then("*", other, "*")

    def __rmul__(self, other: Any) -> "Expression":
        return self if other == 1 else Expression(f"({text_of(other)} * {self.text})", "*")

    def __add__(self, other: Any) -> "Expression":
        return self._then("+", other, "+-")

    def __radd__(self, other: Any) -> "Expression":
        return Expression(f"({text_of(other)} + {self.text})", "+-")

    def __sub__(self, other: Any) -> "Expression":
        return self._then("-", other, "+-")

    def __rsub__(self, other: Any) -> "Expression":
        return Expression(f"({text_of(other)} - {self.text})", "+-")


def text_of(size: Any) -> str:
    """Return the source text of a size, which is an `Expression` or a number."""
    return size.text if isinstance(size, Expression) else f"{size}"
