"""The texts of quantities: numbers with prefixes, formulas, and the shorter forms of a formula."""

import re
from collections.abc import Sequence
from typing import Any

import sympy

from circuits.diagram import size_text


def formula(value: Any) -> str:
    """Return a number, or a formula with spaces around the signs between its terms, those with the most axes first.

    >>> h, w = sympy.symbols("h w")
    >>> formula(h + 2 * h * w), formula(12)
    ('2*h*w + h', '12')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, sympy.Basic):
        return f"{value}"
    if isinstance(value, sympy.Max):
        return f"max({', '.join(map(formula, _arguments(value)))})"
    if isinstance(value, sympy.Add):
        return _sum(value.as_ordered_terms("grlex"))
    return re.sub(r"(?<=[\w)])([+-])(?=[\w(])", r" \1 ", size_text(value))


def shorter(value: Any) -> Sequence[str]:
    """Return shorter forms of a formula, the longest first: its factors, then its first terms, with a mark.

    >>> x, y = sympy.symbols("x y")
    >>> shorter(256 * x * y + 32768 * x + 32768 * y)
    ['256*(x*y + 128*x + 128*y)', '256*x*y + 32768*x + …', '256*x*y + …']
    """
    if isinstance(value, sympy.Max):
        first, *others = _arguments(value)
        kept = [[first, *others[:number]] for number in range(len(others) - 1, -1, -1)]
        found = [f"max({', '.join(map(formula, each))}, …)" for each in kept]
        return [*found, *[f"max({each}, …)" for each in _beginnings(first)]]
    if not isinstance(value, sympy.Add):
        return []
    content, rest = sympy.factor_terms(value).as_independent(sympy.Add)
    factored = f"{size_text(content)}*({formula(rest)})"
    return [*([factored] if len(factored) < len(formula(value)) else []), *_beginnings(value)]


def amount(value: Any, unit: str = "") -> str:
    """Return a number with four digits and a prefix, each 1,000 times the one before, or a formula.

    >>> amount(16_850_000_000), amount(1_234, "B"), amount(12)
    ('16.85 G', '1.234 kB', '12')
    """
    if value is None or value == 0:
        return ""
    if is_formula(value):
        return formula(value)
    number, prefixes = float(value), ["", "k", "M", "G", "T", "P", "E"]
    while abs(number) >= 999.95 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.4g} {prefixes[0]}{unit}".rstrip()


def duration(seconds: Any) -> str:
    """Return a time in the unit that leaves at least 1 before the point, with four digits.

    >>> duration(0.000139), duration(2.5), duration(3e-10)
    ('139 µs', '2.5 s', '0.3 ns')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if float(f"{seconds / scale:.4g}") >= 1:
            return f"{seconds / scale:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def is_formula(value: Any) -> bool:
    """Return whether a value depends on free axes."""
    return bool(getattr(value, "free_symbols", None))


def _sum(terms: Sequence[Any]) -> str:
    """Return terms with the signs between them."""
    found = formula(terms[0])
    for term in terms[1:]:
        negative = term.could_extract_minus_sign()
        found += f" - {formula(-term)}" if negative else f" + {formula(term)}"
    return found


def _beginnings(value: Any) -> list[str]:
    """Return the first terms of a sum, fewer and fewer, with a mark for the others."""
    terms = value.as_ordered_terms("grlex") if isinstance(value, sympy.Add) else [value]
    return [f"{_sum(terms[:number])} + …" for number in range(len(terms) - 1, 0, -1)]


def _arguments(value: Any) -> list[Any]:
    """Return what a maximum is of, by the first term of each: that with the most axes first, then the largest."""

    def order(each: Any) -> tuple[Any, Any, str]:
        number, product = each.as_ordered_terms("grlex")[0].as_coeff_Mul()
        powers = product.as_powers_dict().items()
        degree = sum([power for base, power in powers if base.free_symbols and power.is_number])
        return -degree, -number, formula(each)

    return sorted(value.args, key=order)


__all__ = ["amount", "formula", "is_formula", "shorter"]
