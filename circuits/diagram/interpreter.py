"""Run a diagram: its calls in order on real tensors.

A diagram recorded with free axes runs at any sizes that keep its guards. Values are let go after their last use.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from circuits.diagram.boxes import Call, Value, size_text
from circuits.diagram.structure import Scalar, Struct, Wire, change, wires
from circuits.errors import CircuitError, ShapeError

Numbers = dict[Any, Any]
"""What each symbol stands for: an axis' size, or a number read out of a tensor."""


def evaluate(expression: Any, numbers: Mapping[Any, Any]) -> Any:
    """A size, float or condition with its symbols replaced by `numbers`; exactly what Python's own arithmetic gives.

    >>> evaluate(sympy.Symbol("h") / 2, {sympy.Symbol("h"): 8})
    4
    """
    if isinstance(expression, (int, float, bool)):
        return expression
    if isinstance(expression, sympy.Symbol):
        return numbers[expression]
    if getattr(expression, "is_number", False) or not expression.has(
        sympy.core.function.AppliedUndef, sympy.Function, sympy.Rel
    ):
        exact = expression.xreplace({symbol: sympy.sympify(number) for symbol, number in numbers.items()})
        if exact.is_Rational:
            return int(exact) if exact.is_Integer else exact
    found = sympy_interp(PythonReferenceAnalysis, {s: numbers[s] for s in expression.free_symbols}, expression)
    if not isinstance(found, sympy.Basic):
        return found
    return bool(found) if found.is_Boolean else int(found) if found.is_Integer else float(found)


def solve(size: Any, actual: int) -> tuple[sympy.Symbol, Any] | None:
    """The one symbol of a size that is a multiple of it, and what it is when the size is `actual`."""
    if isinstance(size, int):
        return None
    symbols = list(size.free_symbols)
    if len(symbols) != 1:
        return None
    factor, rest = size.as_coefficient(symbols[0]), symbols[0]
    return None if factor is None or not factor.is_Rational else (rest, evaluate(sympy.sympify(actual) / factor, {}))


def read_sizes(name: str, inputs: Iterable[Value], tensors: Mapping[int, Tensor], guards: Sequence[Any]) -> Numbers:
    """The size of each free axis, off the input tensors; ShapeError where they disagree or break a guard."""
    numbers: Numbers = {}
    present = [value for value in inputs if value.number in tensors]
    for value in present:
        shape = tensors[value.number].shape
        if len(shape) != len(value.sizes) - value.mapped:
            raise ShapeError(f"{name}: {value.name or 'an input'} has axes [{value}], its shape is {tuple(shape)}")
        for size, actual in zip(value.sizes[value.mapped :], shape, strict=True):
            solved = solve(size, actual)
            if solved is None:
                continue
            if not isinstance(solved[1], int):
                raise ShapeError(
                    f"{name}: {value.name} [{value}] has {size_text(size)} = {actual}, which no whole {solved[0]} gives"
                )
            numbers.setdefault(*solved)
    _solve_groups(name, present, tensors, numbers)
    for value in present:
        _compare(name, value, tensors[value.number], numbers)
    for guard in guards:
        if not evaluate(guard, numbers):
            came = ", ".join([f"{symbol} = {size}" for symbol, size in numbers.items()])
            raise ShapeError(
                f"{name}: recorded for sizes with {size_text(guard)}; {came} came. Record it again for those sizes."
            )
    return numbers


def _solve_groups(name: str, values: Sequence[Value], tensors: Mapping[int, Tensor], numbers: Numbers) -> None:
    """The axes of groups of which all others are known by now: k of `(h k)`."""
    sizes: list[tuple[Value, Any, int]] = [
        (value, size, actual)
        for value in values
        for size, actual in zip(value.sizes[value.mapped :], tensors[value.number].shape, strict=True)
        if len(getattr(size, "free_symbols", ())) > 1
    ]
    before = -1
    while before < len(numbers):
        before = len(numbers)
        for value, size, actual in sizes:
            solved = solve(size.xreplace({symbol: sympy.Integer(number) for symbol, number in numbers.items()}), actual)
            if solved is not None and not isinstance(solved[1], int):
                raise ShapeError(
                    f"{name}: {value.name} [{value}] has {size_text(size)} = {actual}, which no whole {solved[0]} gives"
                )
            if solved is not None:
                numbers.setdefault(*solved)


def _compare(name: str, value: Value, tensor: Tensor, numbers: Numbers) -> None:
    for axis, size, actual in zip(value.axes[value.mapped :], value.sizes[value.mapped :], tensor.shape, strict=True):
        expected = evaluate(size, numbers)
        if expected != actual:
            told = f" ({size_text(size)})" if axis != size_text(size) and not isinstance(size, int) else ""
            raise ShapeError(
                f"{name}: {value.name or 'an input'} [{value}] has {axis or 'an axis'} = {actual}, "
                f"but {expected}{told} belongs there. Record it again for those sizes."
            )


def schedule(calls: Sequence[Call], result: Any, kept: Iterable[int]) -> tuple[tuple[Call, tuple[int, ...]], ...]:
    """Each call with the values that nobody reads after it."""
    alive = set(kept) | set(wires(result))
    program = []
    for call in reversed(calls):
        touched = {number for part in (call.args, call.kwargs, call.result) for number in wires(part)}
        program.append((call, tuple(sorted(touched - alive))))
        alive |= touched
    return tuple(reversed(program))


def step(call: Call, tensors: dict[int, Tensor], numbers: Numbers, modules: Mapping[str, Any]) -> None:
    """Run one call: read its wires from `tensors`, put its result there."""
    args, kwargs = fill(Struct(tuple, (), (call.args, call.kwargs)), tensors, numbers)
    function = modules[call.function] if isinstance(call.function, str) else call.function
    with contextlib.ExitStack() as stack:
        if call.autocast is not None:
            stack.enter_context(torch.autocast(call.autocast[0], dtype=call.autocast[1]))
        if not call.gradient:
            stack.enter_context(torch.no_grad())
        answer = function(*args, **kwargs)
    collect(call.result, answer, tensors, numbers)


def fill(description: Any, tensors: Mapping[int, Tensor], numbers: Numbers) -> Any:
    """The value that a description describes."""

    def tensor(wire: Wire) -> Tensor:
        if wire.number not in tensors:
            raise CircuitError(
                f"value {wire.number} was made where the recorder does not see (inside a transform or in C++), "
                "so the diagram can be read but not run"
            )
        return tensors[wire.number]

    return change(description, tensor, lambda scalar: evaluate(scalar.expression, numbers))


def collect(description: Any, value: Any, tensors: dict[int, Tensor], numbers: Numbers) -> None:
    """Put the tensors and symbolic numbers of an answer where its description says."""
    if isinstance(description, Wire):
        tensors[description.number] = value
    elif isinstance(description, Scalar):
        if isinstance(description.expression, sympy.Symbol):
            numbers[description.expression] = value
    elif isinstance(description, Struct):
        parts = value.values() if isinstance(value, Mapping) else _parts(description, value)
        for inner, part in zip(description.parts, parts, strict=True):
            collect(inner, part, tensors, numbers)


def _parts(description: Struct, value: Any) -> Iterable[Any]:
    return [getattr(value, key) for key in description.keys] if description.keys else value
