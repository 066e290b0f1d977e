"""Interpreter of diagrams: run their calls in order on real tensors.

A diagram recorded with symbolic sizes runs at all sizes that satisfy its guards. A value is freed after its last use.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor

from circuits.diagram.boxes import Box, Call, Value
from circuits.diagram.containers import split
from circuits.diagram.formulas import evaluate, size_text
from circuits.diagram.settings import applied, with_gradients
from circuits.diagram.structure import Scalar, Struct, Wire, fill, wires
from circuits.errors import CircuitError, ShapeError

Numbers = dict[Any, Any]
"""The number that each symbol stands for: the size of an axis, or a number read from a tensor."""

Program = Sequence[tuple[Call, tuple[int, ...]]]
"""The calls in order, each with the numbers of the values that are unused after it."""


def solve(size: Any, actual: int) -> tuple[sympy.Symbol, Any] | None:
    """Solve `size = actual` where `size` is a multiple of one symbol; return the symbol and its value, or None."""
    if isinstance(size, int):
        return None
    symbols = list(size.free_symbols)
    if len(symbols) != 1:
        return None
    (symbol,) = symbols
    factor = size.as_coefficient(symbol)
    return None if factor is None or not factor.is_Rational else (symbol, evaluate(sympy.sympify(actual) / factor, {}))


def read_sizes(name: str, inputs: Iterable[Value], tensors: Mapping[int, Tensor], guards: Sequence[Any]) -> Numbers:
    """Return the size of each symbolic axis, from the shapes of the inputs.

    Args:
        name: The name of the diagram, for messages.
        inputs: The inputs of the diagram.
        tensors: The given tensors, by value number; inputs without a tensor are skipped.
        guards: Conditions that the sizes have to satisfy.

    Raises:
        ShapeError: If an input has another number of axes, if sizes contradict each other or the recorded ones, or if
            a guard is not satisfied.
    """
    numbers: Numbers = {}
    present = [value for value in inputs if value.number in tensors]
    for value in present:
        shape = tensors[value.number].shape
        if len(shape) != len(value.sizes) - value.mapped:
            raise ShapeError(
                f"{name}: expected {value.name or 'an input'} with axes [{value}], got a tensor of shape {tuple(shape)}"
            )
        for size, actual in zip(value.sizes[value.mapped :], shape, strict=True):
            _add_solution(name, value, size, actual, solve(size, actual), numbers)
    _solve_groups(name, present, tensors, numbers)
    for value in present:
        _compare(name, value, tensors[value.number], numbers)
    for guard in guards:
        if not _value(guard, numbers):
            raise ShapeError(
                f"{name}: recorded for sizes with {_condition_text(guard)}, got {_sizes_text(numbers)}. "
                "Record it again for the new sizes."
            )
    return numbers


def _condition_text(guard: Any) -> str:
    """Return a guard as text; of a long one its axes and its beginning."""
    text = size_text(guard)
    if len(text) <= 100:
        return text
    return f"a condition on {' and '.join(sorted(map(str, guard.free_symbols)))} ({text[:80]} …)"


def _sizes_text(numbers: Numbers) -> str:
    """Return the sizes of axes as text: `b = 2, n = 10`."""
    return ", ".join([f"{symbol} = {size}" for symbol, size in numbers.items()])


def _value(expression: Any, numbers: Numbers) -> Any:
    """Return the value of a size or guard for these numbers; None if it has none, as `n//(n-2)` for n = 2."""
    try:
        return evaluate(expression, numbers)
    except (ArithmeticError, ValueError):
        return None


def _solve_groups(name: str, values: Sequence[Value], tensors: Mapping[int, Tensor], numbers: Numbers) -> None:
    """Add to `numbers` each symbol of a product whose other symbols are known: k of `(h k)`.

    Raises:
        ShapeError: If the size is not divisible by the product of the known ones.
    """
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
            known = size.xreplace({symbol: sympy.Integer(number) for symbol, number in numbers.items()})
            _add_solution(name, value, size, actual, solve(known, actual), numbers)


def _add_solution(
    name: str, value: Value, size: Any, actual: int, solution: tuple[sympy.Symbol, Any] | None, numbers: Numbers
) -> None:
    """Add the solution of `size = actual` to `numbers`, if there is one; raise ShapeError if it is no integer."""
    if solution is None:
        return
    symbol, number = solution
    if not isinstance(number, int):
        raise ShapeError(
            f"{name}: {size_text(size)} is {actual} in {value.name or 'an input'} [{value}], "
            f"so {symbol} is not an integer"
        )
    numbers.setdefault(symbol, number)


def _compare(name: str, value: Value, tensor: Tensor, numbers: Numbers) -> None:
    """Raise ShapeError if a size of a tensor differs from that of its axis, computed from `numbers`."""
    for axis, size, actual in zip(value.axes[value.mapped :], value.sizes[value.mapped :], tensor.shape, strict=True):
        expected = evaluate(size, numbers)
        if expected != actual:
            formula = f" ({size_text(size)})" if axis != size_text(size) and not isinstance(size, int) else ""
            raise ShapeError(
                f"{name}: {axis or 'an axis'} is {actual} in {value.name or 'an input'} [{value}], "
                f"expected {expected}{formula}. Record it again for the new sizes."
            )


def schedule(calls: Sequence[Call], result: Any, kept: Iterable[int]) -> Program:
    """Return each call with the numbers of the values that are unused after it, except those of `result` and `kept`."""
    alive = set(kept) | set(wires(result))
    program = []
    for call in reversed(calls):
        touched = {number for part in (call.args, call.kwargs, call.result) for number in wires(part)}
        program.append((call, tuple(sorted(touched - alive))))
        alive |= touched
    return tuple(reversed(program))


def step(call: Call, tensors: dict[int, Tensor], numbers: Numbers, modules: Mapping[str, Any]) -> None:
    """Run one call: read its arguments from `tensors` and `numbers`, and write its result to them.

    Autocast and the settings that the code changed are applied as they were recorded. `modules` has the modules and
    methods that calls refer to by dotted path.
    """
    args, kwargs = load(Struct(tuple, (), (call.args, call.kwargs)), tensors, numbers)
    function = modules[call.function] if isinstance(call.function, str) else call.function
    with applied(with_gradients(call.settings, call.gradient)) as stack:
        if call.autocast is not None:
            stack.enter_context(torch.autocast(call.autocast[0], dtype=call.autocast[1]))
        result = function(*args, **kwargs)
    store(call.result, result, tensors, numbers)


def run(
    box: Box,
    program: Program,
    tensors: dict[int, Tensor],
    sizes: Numbers,
    symbols: Mapping[Any, Any],
    modules: Mapping[str, Any],
    check: bool,
) -> Numbers:
    """Run the calls of a program in order, and delete each value after its last use; return the number of each symbol.

    Args:
        box: The outermost box of the diagram.
        program: Its calls.
        tensors: The values that exist before the run, by number; the results are added.
        sizes: The size of each symbolic axis.
        symbols: The expression in torch's symbols of each symbolic axis.
        modules: The modules and methods that calls refer to by dotted path.
        check: Whether to compare the sizes of each result with those that its box states for these sizes of axes.

    Raises:
        ShapeError: The sizes of a result differ. An operation may have several formulas for its sizes, of which a
            diagram has the one that applied in the recorded run: 32 rows for `x[:32]`. What the code did with a size is
            right only where this formula applies.
    """
    numbers = dict(sizes)
    for symbol, expression in symbols.items():
        if symbol in sizes:
            numbers.update([solve(expression, sizes[symbol]) or (symbol, sizes[symbol])])
    stated = {
        value.number: (each, value) for each in (box.walk() if check else ()) if each.call for value in each.outputs
    }
    for call, unused in program:
        step(call, tensors, numbers, modules)
        for number in wires(call.result) if check else ():
            if number in stated and not stated[number][1].mapped:
                _check_result(box.label, *stated[number], tuple(tensors[number].shape), sizes)
        for number in unused:
            tensors.pop(number, None)
    return numbers


def _check_result(name: str, box: Box, value: Value, shape: tuple[int, ...], numbers: Numbers) -> None:
    """Raise ShapeError unless this is the shape that a box states for a result of it."""
    if tuple([_value(size, numbers) for size in value.sizes]) != shape:
        at = f" at {box.where}" if box.where else ""
        raise ShapeError(
            f"{name}: recorded for sizes at which {box.label}{at} returns [{value.shape}], but for "
            f"{_sizes_text(numbers)} it returns {list(shape)}. Record it again for these sizes."
        )


def load(description: Any, tensors: Mapping[int, Tensor], numbers: Numbers) -> Any:
    """Return the value that a description describes, from the tensors by value number and the numbers by symbol.

    Raises:
        CircuitError: If a tensor is missing because its computation was not recorded.
    """

    def tensor(wire: Wire) -> Tensor:
        if wire.number not in tensors:
            refuse_unrecorded([wire.number])
        return tensors[wire.number]

    return fill(description, tensor, lambda scalar: evaluate(scalar.expression, numbers))


def refuse_unrecorded(missing: Iterable[int]) -> None:
    """Raise CircuitError if there is a value that is read and that no recorded call makes."""
    for number in missing:
        raise CircuitError(
            f"value {number} was computed by code that is not recorded (inside a transform or in C++), "
            "so the diagram can be read but not run"
        )


def store(description: Any, value: Any, tensors: dict[int, Tensor], numbers: Numbers) -> None:
    """Write the tensors and symbolic numbers of `value` to the wires and symbols of its description."""
    if isinstance(description, Wire):
        tensors[description.number] = value
    elif isinstance(description, Scalar):
        if isinstance(description.expression, sympy.Symbol):
            numbers[description.expression] = value
    elif isinstance(description, Struct):
        _, parts = split(value, type(value)) or ((), ())
        if len(parts) != len(description.parts):
            raise ShapeError(
                f"recorded for sizes at which a call returns {len(description.parts)} tensors, but it returns "
                f"{len(parts)}. Record it again for the new sizes."
            )
        for inner, part in zip(description.parts, parts, strict=True):
            store(inner, part, tensors, numbers)
