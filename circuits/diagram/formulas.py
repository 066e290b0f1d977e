"""Formulas: sizes, numbers and conditions that depend on axes, as sympy expressions; their text and their values.

A formula has the operations of `torch.utils._sympy.functions`, which compute what Python computes (`FloorDiv` is `//`).
`size_text` is for readers; `python_code` is Python, which `evaluate` compiles once and `codegen` writes into functions.
"""

import functools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import sympy
import torch
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter
from torch.fx.experimental.symbolic_shapes import eval_is_non_overlapping_and_dense
from torch.utils._sympy.functions import Identity
from torch.utils._sympy.printers import PythonPrinter

from circuits.errors import CircuitError


class _TextPrinter(StrPrinter):
    """Print formulas for readers, with few parentheses: `h//2`, where torch has `((h//2))`."""

    # An expression that defines the method of this name prints itself. Torch's `FloorDiv` defines sympy's default,
    # `_sympystr`; no expression defines this one, so that the methods below are used.
    printmethod = "_as_a_size"

    def _joined(self, expr: Any, sign: str, level: str) -> str:
        return sign.join([self.parenthesize(part, PRECEDENCE[level] + 1) for part in expr.args])

    def _print_FloorDiv(self, expr: Any) -> str:
        return self._joined(expr, "//", "Mul")

    _print_CleanDiv = _print_FloorDiv

    def _print_IntTrueDiv(self, expr: Any) -> str:
        return self._joined(expr, "/", "Mul")

    _print_FloatTrueDiv = _print_IntTrueDiv

    def _print_Mod(self, expr: Any) -> str:
        return self._joined(expr, " % ", "Mul")

    _print_PythonMod = _print_Mod

    def _print_FloatPow(self, expr: Any) -> str:
        return self._joined(expr, "**", "Pow")

    _print_PowByNatural = _print_FloatPow

    def _print_Float(self, expr: Any) -> str:
        return repr(float(expr))

    def _print_Function(self, expr: Any) -> str:
        name = type(expr).__name__.removeprefix("OpaqueUnaryFn_")
        return f"{_PYTHON_NAMES.get(name, name)}({', '.join([self.doprint(_bare(part)) for part in expr.args])})"

    _print_Max = _print_Min = _print_Function

    def _print_ToFloat(self, expr: Any) -> str:
        return self.doprint(expr.args[0])

    def _print_Identity(self, expr: Any) -> Any:
        return f"({self.doprint(expr.args[0])})"

    def _print_Relational(self, expr: Any) -> str:
        left, right = self.doprint(_bare(expr.lhs)), self.doprint(_bare(expr.rhs))
        return f"{left} {_SIGNS.get(expr.rel_op, expr.rel_op)} {right}"

    def _print_And(self, expr: Any) -> str:
        return " and ".join([self.parenthesize(part, PRECEDENCE["And"]) for part in expr.args])

    def _print_Or(self, expr: Any) -> str:
        return " or ".join([self.parenthesize(part, PRECEDENCE["Or"]) for part in expr.args])

    def _print_Not(self, expr: Any) -> str:
        return f"not ({self.doprint(expr.args[0])})"


def _bare(expression: Any) -> Any:
    """Return an expression without the `Identity` around it, which keeps operations of floats apart."""
    return expression.args[0] if isinstance(expression, Identity) else expression


_SIGNS = {"==": "="}
_PYTHON_NAMES = {
    "TruncToInt": "int",
    "TruncToFloat": "trunc",
    "FloorToInt": "floor",
    "CeilToInt": "ceil",
    "ceiling": "ceil",
    "RoundToInt": "round",
    "RoundDecimal": "round",
    "Max": "max",
    "Min": "min",
}
"""The functions of formulas whose names in Python differ."""


def size_text(size: Any) -> str:
    """Return a size, or a condition on sizes, as text.

    >>> size_text(sympy.Symbol("h") / 2 - 1)
    'h/2-1'
    """
    if isinstance(size, int):
        return f"{size}"
    text = _TextPrinter().doprint(_bare(size))
    return text.replace(" + ", "+").replace(" - ", "-")


class _PythonPrinter(PythonPrinter):
    """Print a formula as Python code, with every operation that torch's sizes and numbers can have.

    `names` has the Python name of each symbol.
    """

    def __init__(self, names: Mapping[Any, str]) -> None:
        super().__init__()
        self.names = names

    def _print_Symbol(self, expr: Any) -> str:
        return self.names[expr]

    def _print_Float(self, expr: Any) -> str:
        number = float(expr)
        return repr(number) if math.isfinite(number) else f'float("{number}")'

    def _print_Rational(self, expr: Any) -> str:
        return f"quotient({expr.p}, {expr.q})"

    def _print_Pow(self, expr: Any) -> str:
        base, exponent = expr.args
        if exponent == sympy.S.Half:
            return f"math.sqrt({self._print(base)})"
        power = self.stringify([base, abs(exponent)], " ** ", PRECEDENCE["Pow"])
        return f"quotient(1, {power})" if exponent.is_negative else f"({power})"

    def _print_FloatPow(self, expr: Any) -> str:
        return f"({self.stringify(expr.args, ' ** ', PRECEDENCE['Pow'])})"

    _print_PowByNatural = _print_FloatPow

    def _print_Identity(self, expr: Any) -> str:
        return f"({self._print(expr.args[0])})"

    def _print_TruncToFloat(self, expr: Any) -> str:
        return f"float(math.trunc({self._print(expr.args[0])}))"

    def _print_Where(self, expr: Any) -> str:
        condition, yes, no = map(self._print, expr.args)
        return f"({yes} if {condition} else {no})"

    def _print_IsNonOverlappingAndDenseIndicator(self, expr: Any) -> str:
        half = len(expr.args) // 2
        sizes, strides = [", ".join(map(self._print, part)) for part in (expr.args[:half], expr.args[half:])]
        return f"int(is_dense([{sizes}], [{strides}]))"

    def _print_int_oo(self, expr: Any) -> str:
        return 'float("inf")'

    def _print_Function(self, expr: Any) -> str:
        name = type(expr).__name__.removeprefix("OpaqueUnaryFn_")
        if not hasattr(math, name):
            raise CircuitError(f"torch's {name} in a size has no form in Python here: give the axes sizes")
        return f"math.{name}({', '.join(map(self._print, expr.args))})"

    _print_log = _print_exp = _print_Function


def quotient(dividend: Any, divisor: Any) -> Any:
    """Return the exact quotient of two numbers, an int if the division leaves no rest."""
    exact = Fraction(dividend) / Fraction(divisor)
    return exact.numerator if exact.denominator == 1 else exact


PYTHON_GLOBALS: dict[str, Any] = {
    "torch": torch,
    "math": math,
    "quotient": quotient,
    "is_dense": eval_is_non_overlapping_and_dense,
}
"""The names that `python_code` uses besides builtins and the names of symbols."""


def python_code(expression: Any, names: Mapping[Any, str]) -> str:
    """Return a formula as a Python expression; `names` has the Python name of each of its symbols."""
    return _PythonPrinter(names).doprint(expression)


def evaluate(expression: Any, numbers: Mapping[Any, Any]) -> Any:
    """Return the value of a size, a float or a condition for these numbers, exactly as Python's arithmetic computes it.

    Args:
        expression: A number, or a sympy expression.
        numbers: The number for each symbol of the expression.

    >>> evaluate(sympy.Symbol("h") / 2, {sympy.Symbol("h"): 8})
    4
    """
    if isinstance(expression, (int, float, bool)):
        return expression
    if isinstance(expression, sympy.Symbol):
        return numbers[expression]
    symbols, function = _compiled(expression)
    result = function(*[numbers[symbol] for symbol in symbols])
    return result.numerator if type(result) is Fraction and result.denominator == 1 else result


@functools.lru_cache(4096)
def _compiled(expression: Any) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    """Return the symbols of a formula, and a function of their numbers that returns its value."""
    symbols = tuple(sorted(expression.free_symbols, key=str))
    names = {symbol: f"n{place}" for place, symbol in enumerate(symbols)}
    return symbols, eval(f"lambda {', '.join(names.values())}: {python_code(expression, names)}", PYTHON_GLOBALS)


__all__ = ["PYTHON_GLOBALS", "evaluate", "python_code", "quotient", "size_text"]
