# To pyright a formula is a class of sympy functions.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
"""Formulas: for every operation that torch's sizes can have, the value is what Python computes; the text is short."""

import math
import operator
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor
from torch.utils._sympy import functions

from circuits import trace
from circuits.diagram.formulas import evaluate, size_text

A, B = sympy.symbols("a b", integer=True, positive=True)
HALF = functions.FloatTrueDiv(functions.ToFloat(A), sympy.Float(2.0))

MATH = ("sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh", "asin", "acos", "atan", "exp", "log", "asinh", "log2")
FORMULAS: dict[Any, tuple[Any, Callable[[int, int], Any]]] = {
    functions.FloorDiv: (functions.FloorDiv(A - B, B), lambda a, b: (a - b) // b),
    functions.CleanDiv: (functions.CleanDiv(A, B), lambda a, b: a // b),
    functions.CeilDiv: (functions.CeilDiv(A, sympy.Integer(7)), lambda a, b: -(-a // 7)),
    functions.Mod: (functions.Mod(A, B), lambda a, b: a % b),
    functions.PythonMod: (functions.PythonMod(A - B, sympy.Integer(7)), lambda a, b: (a - b) % 7),
    functions.ModularIndexing: (functions.ModularIndexing(A, B, sympy.Integer(5)), lambda a, b: a // b % 5),
    functions.Where: (functions.Where(A < B, A, 2 * B), lambda a, b: a if a < b else 2 * b),
    functions.CeilToInt: (functions.CeilToInt(HALF), lambda a, b: math.ceil(a / 2)),
    functions.FloorToInt: (functions.FloorToInt(HALF), lambda a, b: math.floor(a / 2)),
    functions.TruncToInt: (functions.TruncToInt(-HALF), lambda a, b: int(-a / 2)),
    functions.TruncToFloat: (functions.TruncToFloat(HALF), lambda a, b: float(int(a / 2))),
    functions.RoundToInt: (functions.RoundToInt(HALF), lambda a, b: round(a / 2)),
    functions.RoundDecimal: (functions.RoundDecimal(HALF, sympy.Integer(0)), lambda a, b: round(a / 2, 0)),
    functions.ToFloat: (functions.ToFloat(A), lambda a, b: float(a)),
    functions.LShift: (functions.LShift(A, sympy.Integer(3)), lambda a, b: a << 3),
    functions.RShift: (functions.RShift(A, sympy.Integer(2)), lambda a, b: a >> 2),
    functions.Max: (functions.Max(1, A - B, B - 5), lambda a, b: max(1, a - b, b - 5)),
    functions.Min: (functions.Min(7, A - B), lambda a, b: min(7, a - b)),
    functions.PowByNatural: (functions.PowByNatural(sympy.Integer(2), A), lambda a, b: 2**a),
    functions.FloatPow: (functions.FloatPow(functions.ToFloat(A), sympy.Float(-0.5)), lambda a, b: a**-0.5),
    functions.FloatTrueDiv: (functions.FloatTrueDiv(functions.ToFloat(A), functions.ToFloat(B)), lambda a, b: a / b),
    functions.IntTrueDiv: (functions.IntTrueDiv(A, B), lambda a, b: a / b),
    functions.Identity: (functions.Identity(A + B), lambda a, b: a + b),
    functions.IsNonOverlappingAndDenseIndicator: (
        functions.IsNonOverlappingAndDenseIndicator(A, B, B, sympy.Integer(1)),
        lambda a, b: int(torch.empty_strided((a, b), (b, 1)).is_contiguous()),
    ),
    functions.BitwiseFn_bitwise_and: (functions.BitwiseFn_bitwise_and(A, B), operator.and_),
    functions.BitwiseFn_bitwise_or: (functions.BitwiseFn_bitwise_or(A, B), operator.or_),
    functions.BitwiseFn_bitwise_xor: (functions.BitwiseFn_bitwise_xor(A, B), operator.xor),
}  # fmt: skip
FORMULAS |= {
    getattr(functions, f"OpaqueUnaryFn_{name}"): (
        getattr(functions, f"OpaqueUnaryFn_{name}")(functions.IntTrueDiv(A, A + B)),
        lambda a, b, name=name: getattr(math, name)(a / (a + b)),
    )
    for name in [
        "sqrt",
        "cos",
        "cosh",
        "sin",
        "sinh",
        "tan",
        "tanh",
        "asin",
        "acos",
        "atan",
        "exp",
        "log",
        "asinh",
        "log2",
    ]
}
SYMPY: dict[str, tuple[Any, Callable[[int, int], Any]]] = {
    "power": ((A - B) ** 3, lambda a, b: (a - b) ** 3),
    "inverse": (A**2 * B**-2 * B**2, lambda a, b: a**2),
    "root": (sympy.sqrt(A), lambda a, b: math.sqrt(a)),
    "rational": (A / 2 + B / 2 - (A + B) / 2 + A, lambda a, b: a),
    "abs": (sympy.Abs(A - 2 * B), lambda a, b: abs(a - 2 * b)),
    "floor": (sympy.floor(A / 3), lambda a, b: a // 3),
    "ceiling": (sympy.ceiling(A / 3), lambda a, b: -(-a // 3)),
    "max": (sympy.Max(1, A - B), lambda a, b: max(1, a - b)),
    "piecewise": (sympy.Piecewise((A, A < B), (B, sympy.true)), min),
    "and": (sympy.And(A > 2, sympy.Not(sympy.Eq(A, B)), B <= 30), lambda a, b: a > 2 and a != b and b <= 30),
    "or": (sympy.Or(sympy.Ne(A, B), A >= 30), lambda a, b: a != b or a >= 30),
    "constant": (sympy.Eq(sympy.Integer(1), 2, evaluate=False), lambda a, b: False),
    "nested": (
        functions.Mod(functions.FloorDiv(A - 2 * (B - 3 * A), 3 + B) ** 2 * 4, 3 * functions.Max(1, A - B)),
        lambda a, b: ((a - 2 * (b - 3 * a)) // (3 + b)) ** 2 * 4 % (3 * max(1, a - b)),
    ),
}  # fmt: skip


def made_by_torch() -> set[Any]:
    """Return the functions that torch defines for formulas."""
    classes = {each for each in vars(functions).values() if isinstance(each, type) and issubclass(each, sympy.Basic)}
    bases = {functions.MinMaxBase, sympy.Function, sympy.Expr}
    return {each for each in classes if each.__module__ == functions.__name__} - bases


def test_every_function_of_torch_is_tested() -> None:
    assert made_by_torch() <= set(FORMULAS)


@pytest.mark.parametrize("name", [*FORMULAS, *SYMPY], ids=lambda name: getattr(name, "__name__", name))
def test_the_value_of_a_formula_is_what_python_computes(name: Any) -> None:
    formula, expected = (FORMULAS | SYMPY)[name]
    for _ in range(50):
        a, b = random.randint(2, 40), random.randint(2, 40)
        found = evaluate(formula, {A: a, B: b})
        assert found == expected(a, b), (formula, a, b)
        assert type(found) is type(expected(a, b))


def test_a_formula_that_is_not_an_integer_is_exact() -> None:
    assert evaluate(A / 2 + B / 3, {A: 3, B: 4}) == Fraction(17, 6)


N = functions.ToFloat(A)
TEXTS = {
    "int(0.5*a)": functions.TruncToInt(0.5 * N),
    "ceil(a/3)": functions.CeilToInt(functions.IntTrueDiv(A, sympy.Integer(3))),
    "((a+b)//3)-1": functions.FloorDiv(A + B, sympy.Integer(3)) - 1,
    "max(1, a-b)": functions.Max(1, A - B),
    "log2(a/b)": functions.OpaqueUnaryFn_log2(functions.IntTrueDiv(A, B)),
    "a**(-0.5)": functions.FloatPow(N, sympy.Float(-0.5)),
    "a-1 != 1": sympy.Ne(A - 1, 1),
    "a >= b and a % 3 = 0": sympy.And(sympy.Eq(functions.Mod(A, sympy.Integer(3)), 0), A >= B),
    "a = b or a//3 >= 1": sympy.Or(functions.FloorDiv(A, sympy.Integer(3)) >= 1, sympy.Eq(A, B)),
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_of_a_formula_is_python_without_needless_parentheses(text: str) -> None:
    assert size_text(TEXTS[text]) == text


@pytest.mark.parametrize("case", range(40))
def test_arithmetic_of_floats_is_that_of_python_to_the_last_bit(case: int) -> None:
    """sympy makes `n * 0.3` of `n * 0.1 * 3`."""
    rng = random.Random(case)

    def expression(depth: int) -> str:
        if depth == 0:
            return rng.choice(["n", "m", "0.1", "0.3", "3", "7.7", "n", "m"])
        left, right = expression(depth - 1), expression(depth - 1)
        return f"({left} {rng.choice(['+', '-', '*', '/', '+', '*'])} {right} + 0.7)"

    text = expression(rng.randint(1, 3))
    number: Any = eval(f"lambda n, m: {text}")

    def code(x: Tensor) -> Tensor:
        return x * number(*x.shape)

    try:
        diagram = trace(code, axes="n m")
    except (ZeroDivisionError, OverflowError):
        return
    function = diagram.function()
    for _ in range(8):
        x = torch.ones(rng.randint(2, 99), rng.randint(2, 99), dtype=torch.float64)
        try:
            expected = code(x)
        except ZeroDivisionError:
            continue
        assert torch.equal(diagram(x), expected), text
        assert torch.equal(function(x), expected), text
