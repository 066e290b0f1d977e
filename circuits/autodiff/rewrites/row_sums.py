"""Row sums: the sum of a product, had from a contraction that is there already.

Where m = P·dP is summed over x, and dP is a contraction of G and V, the sum over x is that of G times the contraction
of P and V over the axes that these two have besides. In attention's backward: Σ_x P∘dP = Σ_k dO∘O.

Source: T. Dao et al., FlashAttention, NeurIPS 2022, appendix B.2.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from circuits.autodiff.ports import inside
from circuits.autodiff.rewrites.contractions import Contraction, Values, contraction, places_of
from circuits.diagram import Box, Call, Struct, Value, Wire, operation_name, wires


@dataclass(frozen=True)
class RowSum:
    """A sum over axes of `factor` times what a contraction gave, which is also a sum of `given` times `answer`.

    In attention's backward: the sum over keys of P ∘ dP, which is the sum over k of dO ∘ O.
    """

    box: Box
    factor: int
    given: int
    answer: int
    dims: tuple[int, ...]


def row_sums(boxes: Iterable[Box], values: Values) -> Iterator[RowSum]:
    """Sums that can be had from a contraction that is there: Σ_x P·(G·V) = Σ_k G·(P·V).

    Where m = P·dP is summed over x, dP a contraction of G and V, and a contraction before the sum gave O of P and V, in
    which just the axes of x are summed: then the sum is that of G·O over the axes that the sum has not. `boxes` are in
    the order of the run. Autograd watches all of these, or none.
    """
    made: dict[int, Box] = {}
    read: dict[int, Contraction] = {}
    for box in boxes:
        summed = _summed(box, values)
        if summed is not None and summed[0] in made:
            watched = {number for number in read if _watched(made[number]) == _watched(box)}
            known = {number: read[number] for number in watched}
            yield from _found(box, made, known, summed, values)
        read_here = contraction(box, values)
        for number in wires(box.call.result) if box.call is not None else ():
            made[number] = box
            if read_here is not None:
                read[number] = read_here


def _found(
    box: Box, made: Mapping[int, Box], read: Mapping[int, Contraction], summed: tuple[int, set[int]], values: Values
) -> Iterator[RowSum]:
    product = made[summed[0]]
    if _watched(product) != _watched(box):
        return
    for factor, other in itertools.permutations(_factors(product, values), 2):
        for met, contracted in [(factor, other), *_unmasked(factor, other, made, values)]:
            if contracted in read and len(read[contracted].tensors) == 2:
                for found in _exchanged(box, met, read[contracted], read, summed[1], values):
                    yield replace(found, factor=factor)


def _watched(box: Box) -> bool:
    return box.call is not None and box.call.gradient


def _unmasked(factor: int, other: int, made: Mapping[int, Box], values: Values) -> Iterator[tuple[int, int]]:
    """Where one factor had its masked places set to 0, the product is that of the other one so masked, if it is there.

    In attention where a query may attend to nothing: the weights of its row were set to 0, as their cotangents are.
    """
    masked = _masked(made.get(other))
    if masked is not None and values[masked[0]].sizes == values[other].sizes:
        for number, box in made.items():
            if _masked(box) == (factor, masked[1]) and values[number].sizes == values[factor].sizes:
                yield number, masked[0]


def _masked(box: Box | None) -> tuple[int, int] | None:
    """The tensor in which a box sets places to 0, and the mask that says where."""
    if box is None or box.call is None or operation_name(box.call.function) != "masked_fill":
        return None
    parts = box.call.args.parts
    fill = parts[2] if len(parts) == 3 else None
    plain = isinstance(parts[0], Wire) and len(parts) > 1 and isinstance(parts[1], Wire)
    return (parts[0].number, parts[1].number) if plain and type(fill) in (int, float) and fill == 0 else None


def _exchanged(
    box: Box, factor: int, other: Contraction, read: Mapping[int, Contraction], dims: set[int], values: Values
) -> Iterator[RowSum]:
    """`other` gives, of G and V, what is multiplied by P and summed; an answer is what P and V give."""
    gone = {other.out[place] for place in dims}
    left = [each for each in other.out if each not in gone]
    for g, v in ((0, 1), (1, 0)):
        given, met = other.letters[g], other.tensors[v]
        if [each for each in given if each in left] != left:
            continue
        places = tuple([place for place, each in enumerate(given) if each not in left])
        if len(box.outputs[0].sizes) == len(other.out) and (set(places) != dims or len(given) != len(other.out)):
            continue
        for number, answer in read.items():
            if sorted(answer.tensors) != sorted([factor, met]) or factor == met:
                continue
            sides = dict(zip(answer.tensors, answer.letters, strict=True))
            pairs = [*zip(sides[factor], other.out, strict=True), *zip(sides[met], other.letters[v], strict=True)]
            names = dict(pairs)
            same = all(names[mine] == theirs for mine, theirs in pairs) and len(set(names.values())) == len(names)
            if same and tuple([names[each] for each in answer.out]) == given:
                yield RowSum(box, factor, other.tensors[g], number, places)


def _summed(box: Box, values: Values) -> tuple[int, set[int]] | None:
    """The tensor that a sum sums, and over which places."""
    call = box.call
    if call is None or operation_name(call.function) != "sum" or call.autocast is not None:
        return None
    parts = call.args.parts
    if not parts or not isinstance(parts[0], Wire) or len(parts) < 2 or parts[0].number not in values:
        return None
    rank = len(values[parts[0].number].sizes)
    dims = places_of(parts[1], rank)
    if not dims or not rank or box.outputs[0].dtype != values[parts[0].number].dtype:
        return None
    return parts[0].number, set(dims)


def _factors(box: Box, values: Values) -> list[int]:
    """The two tensors of one shape that a box multiplies."""
    call: Any = box.call
    if operation_name(call.function) != "mul" or call.autocast is not None or call.kwargs.parts:
        return []
    numbers = [part.number for part in call.args.parts if isinstance(part, Wire)]
    if len(numbers) != 2 or any(number not in values for number in numbers):
        return []
    first, second = [values[number] for number in numbers]
    return numbers if first.sizes == second.sizes and first.dtype == second.dtype else []


def exchanged(found: RowSum, values: Values, number: int) -> list[Box]:
    """The two boxes that stand for a sum; `number` is free for the product."""
    given, answer = values[found.given], values[found.answer]
    call: Any = found.box.call
    product = replace(given, number=number, role="made", name="")
    keep = len(found.box.outputs[0].sizes) == len(values[call.args.parts[0].number].sizes)
    names = [given.axes[dim] or "..." for dim in found.dims]
    first = operation("mul", torch.mul, (Wire(found.given), Wire(found.answer)), (given, answer), product, call)
    args = (Wire(number), found.dims, keep)
    second = operation(f"sum over {' '.join(names)}", torch.sum, args, (product,), found.box.outputs[0], call)
    return [first, second]


def operation(
    label: str, function: Any, args: tuple[Any, ...], inputs: Sequence[Value], output: Value, like: Call
) -> Box:
    """A box of one torch operation, run as another is."""
    call = replace(
        like, function=function, args=Struct(tuple, (), args), kwargs=Struct(dict, (), ()), result=Wire(output.number)
    )
    return Box("operation", "", label, inputs=tuple(inputs), outputs=(output,), call=call)


def ran(boxes: Iterable[Box]) -> Iterator[Box]:
    """The boxes that run, in order: not what is in a box that runs whole, as one with a transform inside does."""
    for box in boxes:
        if box.call is not None:
            yield box
        else:
            yield from ran(box.boxes)


def replaced(boxes: Iterable[Box], stands: Mapping[int, Sequence[Box]]) -> list[Box]:
    """Boxes in which some, at whatever depth, are replaced by others."""
    found: list[Box] = []
    for box in boxes:
        if box.call is not None:
            found += stands.get(id(box), [box])
        else:
            inner = replaced(box.boxes, stands)
            ports = tuple({**inside([box]), **inside(inner)}.values())
            found.append(replace(box, boxes=tuple(inner), inputs=ports, outputs=ports))
    return found
