"""Whether the wires of an operation say the truth: measured by running it on permuted tensors.

A wire that passes an operation claims that the operation works at each index of that axis alone: if the index is
permuted in every tensor where the wires of a joint have it, then the result is permuted, and nothing else changes. A
cup or an end claims that the axis is summed, averaged or compared in no order: then the result stays the same.
Operations are run on random numbers, so that no rule of drawing is read here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuits.diagram import Box, Value, Wire, fill, tensors, wires

Port = tuple[int, int]
"""One axis: which use of a tensor by the call, or which of its results, and the place of the axis."""

LEFT_OUT = ("argmax", "argmin", "empty", "new_empty")
"""Operations that end an axis and whose result says a place on it, and those whose result is any number."""


@dataclass(frozen=True)
class Claim:
    """What a joint without a glyph says of an operation.

    Attributes:
        ins: The axes that end there, by the use of a tensor.
        outs: The axes that begin there, by the result.
    """

    ins: tuple[Port, ...]
    outs: tuple[Port, ...]


class CannotRunError(Exception):
    """The operation cannot be run on random numbers, or its results are random."""


def untrue(box: Box, claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims that do not hold; none where an operation cannot be run on random numbers.

    Args:
        box: The box of one operation.
        claims: What its drawing says.
    """
    uses = uses_of(box)
    sizes = [[int(size) for size in value.sizes] for value in uses]
    given = [_random(value) for value in uses]
    try:
        expected = _run(box, given)
        if not _equal(expected, _run(box, given, seed=1)):
            return []
    except CannotRunError:
        return []
    return [claim for claim in claims if not _holds(box, claim, given, expected, sizes)]


def uses_of(box: Box) -> list[Value]:
    """Return the tensors that a call reads, one for each time that it does."""
    if box.call is None:
        return []
    by_number = {value.number: value for value in box.inputs}
    numbers = [*wires(box.call.args), *wires(box.call.kwargs)]
    return [by_number[number] for number in numbers if number in by_number]


def _random(value: Value) -> Tensor:
    """Return random numbers of a tensor's sizes and dtype: indices are 0 or 1."""
    shape = [int(size) for size in value.sizes]
    if value.dtype.is_floating_point or value.dtype.is_complex:
        return torch.rand(shape, dtype=torch.float64).to(value.dtype) + 0.1
    return torch.randint(0, 2, shape).to(value.dtype)


def _run(box: Box, given: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """Return the results of the call of a box on other tensors."""
    call, left = box.call, [each.clone() for each in given]
    if call is None or not callable(call.function):
        raise CannotRunError
    known = {value.number for value in box.inputs}

    def next_tensor(wire: Wire) -> Any:
        if wire.number not in known:
            raise CannotRunError
        return left.pop(0)

    def number(scalar: Any) -> Any:
        expression = scalar.expression
        return int(expression) if getattr(expression, "is_Integer", True) else float(expression)

    torch.manual_seed(seed)
    try:
        args, kwargs = (fill(part, next_tensor, number) for part in (call.args, call.kwargs))
        with torch.no_grad():
            return tensors(call.function(*args, **kwargs))
    except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError) as error:
        raise CannotRunError from error


def _equal(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    return len(one) == len(two) and all(map(_close, one, two))


def _close(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    tolerance = 1e-4 if one.dtype.is_floating_point or one.dtype.is_complex else 0.0
    return torch.allclose(one, two, tolerance, tolerance, equal_nan=True)


def _holds(
    box: Box, claim: Claim, given: Sequence[Tensor], expected: Sequence[Tensor], sizes: Sequence[Sequence[int]]
) -> bool:
    """Return whether a permutation of the axes that end at a joint permutes those that begin there, and no other."""
    lengths = {sizes[use][axis] for use, axis in claim.ins if axis >= 0} - {1}
    made = {expected[place].shape[axis] for place, axis in claim.outs if axis >= 0 and place < len(expected)} - {1}
    if not lengths and not made:
        return True
    if len(lengths) != 1 or not made <= lengths:
        return False
    (length,) = lengths
    order = torch.roll(torch.arange(length), 1)
    changed, wanted = list(given), list(expected)
    for use, axis in claim.ins:
        if axis >= 0 and sizes[use][axis] == length:
            changed[use] = changed[use].index_select(axis, order)
    for place, axis in claim.outs:
        if axis >= 0 and wanted[place].shape[axis] == length:
            wanted[place] = wanted[place].index_select(axis, order)
    try:
        return _equal(_run(box, changed), wanted)
    except CannotRunError:
        return False
