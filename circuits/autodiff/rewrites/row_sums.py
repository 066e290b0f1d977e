"""Row sums: the sum of a product, computed from the result of a contraction that exists already.

If dP is the contraction of G and V over k, and O the contraction of P and V over x, then Σ_x P·dP = Σ_k G·O. In
attention's backward G is dO: Σ_x P∘dP = Σ_k dO∘O.

Source: T. Dao et al., FlashAttention, NeurIPS 2022, appendix B.2.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from circuits.autodiff.ports import port_values
from circuits.autodiff.rewrites.contractions import Contraction, Values, contraction, dimensions_of
from circuits.diagram import Box, Call, Struct, Value, Wire, operation_name, wires


@dataclass(frozen=True)
class RowSum:
    """A sum of P·dP, computed by `box`, that equals the sum of G·O over the axes `dims` of G.

    `factor`, `given` and `contracted` are the numbers of P, G and O, where dP contracts G and V, and O contracts P and
    V. In attention's backward: the sum over keys of P∘dP is the sum over k of dO∘O.
    """

    box: Box
    factor: int
    given: int
    contracted: int
    dims: tuple[int, ...]


def row_sums(boxes: Iterable[Box], values: Values) -> Iterator[RowSum]:
    """Yield the sums that can be computed from an earlier contraction: Σ_x P·(G·V) = Σ_k G·(P·V).

    Each of them is a sum of P·dP over axes x, where dP is a contraction of G and V, and an earlier box contracts P and
    V over exactly x to O. It equals the sum of G·O over the axes of G that the result lacks. Gradients are recorded for
    all of these boxes, or for none.

    Args:
        boxes: Leaf boxes in the order of the run.
        values: All values by number.
    """
    made: dict[int, Box] = {}
    read: dict[int, Contraction] = {}
    for box in boxes:
        summed = _summed(box, values)
        if summed is not None and summed[0] in made:
            alike = {number for number in read if _has_gradient(made[number]) == _has_gradient(box)}
            known = {number: read[number] for number in alike}
            yield from _found(box, made, known, summed, values)
        read_here = contraction(box, values)
        for number in wires(box.call.result) if box.call is not None else ():
            made[number] = box
            if read_here is not None:
                read[number] = read_here


def _found(
    box: Box, made: Mapping[int, Box], read: Mapping[int, Contraction], summed: tuple[int, set[int]], values: Values
) -> Iterator[RowSum]:
    """Yield the sums of G·O that equal the sum of a box; `summed` is the tensor that it sums, and over which axes."""
    product = made[summed[0]]
    if _has_gradient(product) != _has_gradient(box):
        return
    for factor, other in itertools.permutations(_factors(product, values), 2):
        for left, right in [(factor, other), *_through_mask(factor, other, made, values)]:
            if right in read and len(read[right].tensors) == 2:
                for found in _equal_sums(box, left, read[right], read, summed[1], values):
                    yield replace(found, factor=factor)


def _has_gradient(box: Box) -> bool:
    """Return whether gradients were recorded when a box was run."""
    return box.call is not None and box.call.gradient


def _through_mask(factor: int, other: int, made: Mapping[int, Box], values: Values) -> Iterator[tuple[int, int]]:
    """Yield the factors of an equal product, if `other` is masked with 0: the masked `factor`, the unmasked `other`.

    The masked `factor` must be among the values made. This occurs in attention where a query may attend to no key: the
    weights of its row were set to 0, as their cotangents are.
    """
    masked = _masked(made.get(other))
    if masked is not None and values[masked[0]].sizes == values[other].sizes:
        for number, box in made.items():
            if _masked(box) == (factor, masked[1]) and values[number].sizes == values[factor].sizes:
                yield number, masked[0]


def _masked(box: Box | None) -> tuple[int, int] | None:
    """Return the numbers of the tensor and the mask of a `masked_fill` with 0; None for another box."""
    if box is None or box.call is None or operation_name(box.call.function) != "masked_fill":
        return None
    parts = box.call.args.parts
    fill = parts[2] if len(parts) == 3 else None
    plain = isinstance(parts[0], Wire) and len(parts) > 1 and isinstance(parts[1], Wire)
    return (parts[0].number, parts[1].number) if plain and type(fill) in (int, float) and fill == 0 else None


def _equal_sums(
    box: Box, factor: int, other: Contraction, read: Mapping[int, Contraction], dims: set[int], values: Values
) -> Iterator[RowSum]:
    """Yield the equal sums of G·O: `other` is the contraction of G and V, `factor` is P; each O is found in `read`."""
    gone = {other.out[place] for place in dims}
    left = [each for each in other.out if each not in gone]
    for g, v in ((0, 1), (1, 0)):
        given, second = other.letters[g], other.tensors[v]
        if [each for each in given if each in left] != left:
            continue
        places = tuple([place for place, each in enumerate(given) if each not in left])
        if len(box.outputs[0].sizes) == len(other.out) and (set(places) != dims or len(given) != len(other.out)):
            continue
        for number, contracted in read.items():
            if sorted(contracted.tensors) != sorted([factor, second]) or factor == second:
                continue
            sides = dict(zip(contracted.tensors, contracted.letters, strict=True))
            pairs = [*zip(sides[factor], other.out, strict=True), *zip(sides[second], other.letters[v], strict=True)]
            names = dict(pairs)
            same = all(names[mine] == theirs for mine, theirs in pairs) and len(set(names.values())) == len(names)
            if same and tuple([names[each] for each in contracted.out]) == given:
                yield RowSum(box, factor, other.tensors[g], number, places)


def _summed(box: Box, values: Values) -> tuple[int, set[int]] | None:
    """Return the number of the tensor that a sum reduces, and the dimensions it sums over; None for another box."""
    call = box.call
    if call is None or operation_name(call.function) != "sum" or call.autocast is not None:
        return None
    parts = call.args.parts
    if not parts or not isinstance(parts[0], Wire) or len(parts) < 2 or parts[0].number not in values:
        return None
    rank = len(values[parts[0].number].sizes)
    dims = dimensions_of(parts[1], rank)
    if not dims or not rank or box.outputs[0].dtype != values[parts[0].number].dtype:
        return None
    return parts[0].number, set(dims)


def _factors(box: Box, values: Values) -> list[int]:
    """Return the numbers of the two tensors of one shape and dtype that a box multiplies; [] for another box."""
    call: Any = box.call
    if operation_name(call.function) != "mul" or call.autocast is not None or call.kwargs.parts:
        return []
    numbers = [part.number for part in call.args.parts if isinstance(part, Wire)]
    if len(numbers) != 2 or any(number not in values for number in numbers):
        return []
    first, second = [values[number] for number in numbers]
    return numbers if first.sizes == second.sizes and first.dtype == second.dtype else []


def replacement_boxes(found: RowSum, values: Values, number: int) -> list[Box]:
    """Return the two boxes that replace a sum; `number` is the value number of their product."""
    given, contracted = values[found.given], values[found.contracted]
    call: Any = found.box.call
    product = replace(given, number=number, role="made", name="")
    keep = len(found.box.outputs[0].sizes) == len(values[call.args.parts[0].number].sizes)
    names = [given.axes[dim] or "..." for dim in found.dims]
    first = operation_box(
        "mul", torch.mul, (Wire(found.given), Wire(found.contracted)), (given, contracted), product, call
    )
    args = (Wire(number), found.dims, keep)
    second = operation_box(f"sum over {' '.join(names)}", torch.sum, args, (product,), found.box.outputs[0], call)
    return [first, second]


def operation_box(
    label: str, function: Any, args: tuple[Any, ...], inputs: Sequence[Value], output: Value, like: Call
) -> Box:
    """Return a box of one torch operation, with the autocast and gradient state of another call."""
    call = replace(
        like, function=function, args=Struct(tuple, (), args), kwargs=Struct(dict, (), ()), result=Wire(output.number)
    )
    return Box("operation", "", label, inputs=tuple(inputs), outputs=(output,), call=call)


def leaf_boxes(boxes: Iterable[Box]) -> Iterator[Box]:
    """Yield the boxes with a call, in order, without those inside them: a box with a transform runs as a whole."""
    for box in boxes:
        if box.call is not None:
            yield box
        else:
            yield from leaf_boxes(box.boxes)


def with_replacements(boxes: Iterable[Box], replacements: Mapping[int, Sequence[Box]]) -> list[Box]:
    """Return boxes in which those in `replacements`, by id and at any depth, are replaced by others."""
    found: list[Box] = []
    for box in boxes:
        if box.call is not None:
            found += replacements.get(id(box), [box])
        else:
            inner = with_replacements(box.boxes, replacements)
            ports = tuple({**port_values([box]), **port_values(inner)}.values())
            found.append(replace(box, boxes=tuple(inner), inputs=ports, outputs=ports))
    return found
