"""Contractions as data, and their rewrites: an einsum of an einsum as one einsum, a transpose inside an einsum.

An einsum is read as a `Contraction`: the numbers of its tensors, and letters for their axes, where axes that are
multiplied index by index have the same letter. Costs are compared at the sizes of the diagram; where axes are free, at
several combinations of a small and a large size, and a rewrite must cost no more at any of them.

Source: D. Smith and J. Gray, opt_einsum, JOSS 2018.
"""

import itertools
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import opt_einsum

from circuits import verbs
from circuits.diagram import Box, Call, Struct, Value, Wire, evaluate, operation_name, wires
from circuits.recording import quoted
from circuits.signature import Signature
from circuits.verbs import equation

Letters = tuple[int, ...]
Values = Mapping[int, Value]

SAMPLE_SIZES = (64, 4096)
"""A small and a large size, at which the cost of a contraction with free axes is compared."""

MAX_TENSORS = 6
"""The largest number of tensors in a merged contraction."""

MAX_AXES = len(string.ascii_letters)
"""The largest number of axes in a merged contraction: torch.einsum has no further letters."""


@dataclass(frozen=True)
class Contraction:
    """An einsum: tensors by number, a letter for each of their axes, and the letters of the output.

    Letters that are not in `out` are summed over.
    """

    tensors: tuple[int, ...]
    letters: tuple[Letters, ...]
    out: Letters

    def with_letters(self, names: Mapping[int, int]) -> "Contraction":
        """Return the same contraction with other letters."""
        letters = tuple([tuple([names[each] for each in axes]) for axes in self.letters])
        return Contraction(self.tensors, letters, tuple([names[each] for each in self.out]))

    def equation(self) -> str:
        """Return the equation as torch.einsum takes it."""
        order = {each: place for place, each in enumerate(dict.fromkeys(itertools.chain(*self.letters)))}
        sides = ["".join([string.ascii_letters[order[each]] for each in axes]) for axes in (*self.letters, self.out)]
        return f"{','.join(sides[:-1])}->{sides[-1]}"


def contraction(box: Box, values: Values) -> Contraction | None:
    """Return the contraction that a box computes.

    None for a box that is no einsum, and for an einsum under autocast, of tensors of several dtypes, with a diagonal,
    or with an axis of size 1 that is broadcast.
    """
    call = box.call
    if call is None or len(box.outputs) != 1 or call.autocast is not None:
        return None
    found = _equation_of(call)
    if found is None or not found[0]:
        return None
    text, numbers = found
    left, _, right = text.partition("->")
    sides = left.split(",")
    if len(sides) != len(numbers) or any(number not in values for number in numbers):
        return None
    if len({values[number].dtype for number in (*numbers, box.outputs[0].number)}) > 1:
        return None
    ranks = [len(values[number].sizes) for number in numbers]
    rests = {rank - len(side.replace("...", "")) for side, rank in zip(sides, ranks, strict=True) if "..." in side}
    if len(rests) > 1:
        return None
    rest = range(-1, -1 - next(iter(rests), 0), -1)
    letters = tuple([_letters(side, rest) for side in sides])
    read = Contraction(tuple(numbers), letters, _letters(right, rest))
    return read if _sizes(read, values) is not None and not _has_diagonal(read) else None


def _equation_of(call: Call) -> tuple[str, list[int]] | None:
    """Return the equation of an einsum, in single letters, and the numbers of its tensors; None for another call."""
    parts: Any = call.args.parts
    if call.function is verbs.einsum and parts and isinstance(parts[-1], str):
        return equation(Signature.parse(parts[-1])), list(wires(call.args))
    if operation_name(call.function) == "einsum" and parts and isinstance(parts[0], str) and "->" in parts[0]:
        return parts[0].replace(" ", ""), list(wires(call.args))
    return None


def _letters(side: str, rest: Iterable[int]) -> Letters:
    """Return the letters of one tensor in an equation as numbers; `rest` are those of the axes of `...`."""
    marked = side.replace("...", "…")
    return tuple(itertools.chain(*[rest if each == "…" else [ord(each)] for each in marked]))


def _has_diagonal(read: Contraction) -> bool:
    return any(len(set(axes)) < len(axes) for axes in (*read.letters, read.out))


def _sizes(read: Contraction, values: Values) -> dict[int, Any] | None:
    """Return the size of each letter; None if one has two sizes or none, or if a tensor has another number of axes."""
    sizes: dict[int, Any] = {}
    for number, axes in zip(read.tensors, read.letters, strict=True):
        if len(axes) != len(values[number].sizes):
            return None
        for letter, size in zip(axes, values[number].sizes, strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
    return sizes if set(read.out) <= set(sizes) else None


# Costs ----------------------------------------------------------------------------------------------------------------


def samples(values: Iterable[Value]) -> Iterator[dict[Any, int]]:
    """Yield sizes for the free axes of some values: all large, one large, all small; {} if no axis is free."""
    free = sorted({s for value in values for size in value.sizes for s in getattr(size, "free_symbols", ())}, key=str)
    for large in [free, *[[axis] for axis in free], []] if free else [free]:
        yield {axis: SAMPLE_SIZES[axis in large] for axis in free}


def numel(value: Value, at: Mapping[Any, int]) -> int:
    """Return the number of elements of a tensor, given the sizes of the free axes."""
    return prod([int(evaluate(size, at)) for size in value.sizes])


def _cost(read: Contraction, values: Values, at: Mapping[Any, int]) -> int:
    """Return the number of operations in the best order of contraction, given the sizes of the free axes."""
    shapes = [tuple([int(evaluate(size, at)) for size in values[number].sizes]) for number in read.tensors]
    _, found = opt_einsum.contract_path(read.equation(), *shapes, shapes=True, optimize="optimal")
    return int(found.opt_cost)


# An einsum of an einsum -----------------------------------------------------------------------------------------------


def merged(outer: Contraction, inner: Contraction, made: int) -> Contraction:
    """Return one contraction equal to `outer`, whose tensor `made` is the output of `inner`."""
    place = outer.tensors.index(made)
    used = max([abs(each) for axes in (*outer.letters, *inner.letters) for each in axes], default=0)
    names = dict(zip(inner.out, outer.letters[place], strict=True))
    summed = dict.fromkeys([each for axes in inner.letters for each in axes if each not in names])
    names |= {each: used + 1 + at for at, each in enumerate(summed)}
    within = inner.with_letters(names)
    return Contraction(
        (*outer.tensors[:place], *within.tensors, *outer.tensors[place + 1 :]),
        (*outer.letters[:place], *within.letters, *outer.letters[place + 1 :]),
        outer.out,
    )


def costs_no_more(whole: Contraction, parts: Sequence[Contraction], values: Values) -> bool:
    """Return whether one contraction takes no more operations than several, at each of the sizes that are tried."""
    if len(whole.tensors) > MAX_TENSORS or len(set(itertools.chain(*whole.letters))) > MAX_AXES:
        return False
    tried = samples([values[number] for number in whole.tensors])
    return all(_cost(whole, values, at) <= sum([_cost(part, values, at) for part in parts]) for at in tried)


def reading_source(outer: Contraction, made: int, source: int, order: Sequence[int]) -> Contraction:
    """Return the contraction `outer`, reading `source` instead of tensor `made`, which is `source.permute(order)`."""
    tensors = tuple([source if number == made else number for number in outer.tensors])
    letters = []
    for number, axes in zip(outer.tensors, outer.letters, strict=True):
        back = dict(zip(order, axes, strict=True)) if number == made else {}
        letters.append(tuple([back[place] for place in range(len(axes))]) if number == made else axes)
    return Contraction(tensors, tuple(letters), outer.out)


def permutation_of(call: Call, rank: int) -> list[int] | None:
    """Return the order in which a transpose puts the axes of a tensor of this rank; None for another operation."""
    name, rest = operation_name(call.function), call.args.parts[1:]
    order = list(range(rank))
    if call.function is verbs.rearrange:
        return _permutation_of_pattern(rest[0], rank)
    if name == "permute" and rest:
        return dimensions_of(rest[0] if len(rest) == 1 else rest, rank)
    if name == "mT" and not rest:
        order[-2:] = order[:-3:-1]
        return order
    if name in ("transpose", "swapaxes") and len(rest) == 2 and rank and (pair := dimensions_of(rest, rank)):
        order[pair[0]], order[pair[1]] = pair[1], pair[0]
        return order
    return order[::-1] if name in ("T", "t", "numpy_T") and not rest else None


def dimensions_of(dims: Any, rank: int) -> list[int] | None:
    """Return dimensions, one int or a sequence, counted from the front; None if they are no plain ints."""
    dims = dims.parts if isinstance(dims, Struct) else dims
    dims = dims if isinstance(dims, (tuple, list)) else (dims,)
    return [dim % max(rank, 1) for dim in dims] if all(type(dim) is int for dim in dims) else None


def _permutation_of_pattern(pattern: str, rank: int) -> list[int] | None:
    """Return the order in which a pattern of rearrange puts the axes; None if it does more than reorder them."""
    sides = [side.split() for side in pattern.split("->")]
    left = sides[0]
    if "(" in pattern or sorted(left) != sorted(sides[-1]) or any(word.isdigit() for word in left):
        return None
    rest = rank - len(left) + 1
    places = iter(range(rank))
    held = {word: [next(places) for _ in range(rest if word == "..." else 1)] for word in left}
    return [place for word in sides[-1] for place in held[word]]


def as_einsum_box(read: Contraction, box: Box, values: Values) -> Box:
    """Return the box of an einsum that replaces another box.

    Its pattern uses the axis names of the values where these are identifiers and unique, else free letters.
    """
    names: dict[int, str] = {}
    for value, axes in zip(
        [*[values[n] for n in read.tensors], box.outputs[0]], [*read.letters, read.out], strict=True
    ):
        for letter, axis in zip(axes, value.axes, strict=True):
            if axis is not None and axis.isidentifier() and axis not in names.values():
                names.setdefault(letter, axis)
    others = (letter for letter in string.ascii_letters if letter not in names.values())
    unnamed = [letter for letter in dict.fromkeys(itertools.chain(*read.letters)) if letter not in names]
    names |= {letter: next(others) for letter in unnamed}
    sides = [" ".join([names[each] for each in axes]) for axes in (*read.letters, read.out)]
    pattern = f"{', '.join(sides[:-1])} -> {sides[-1]}".strip()
    call: Any = box.call
    args = Struct(tuple, (), (*map(Wire, read.tensors), pattern))
    inputs = tuple([values[number] for number in dict.fromkeys(read.tensors)])
    return replace(
        box,
        label=f"einsum {quoted(pattern)}",
        inputs=inputs,
        parameters=tuple([value for value in inputs if value.role == "parameter"]),
        call=replace(call, function=verbs.einsum, args=args, kwargs=Struct(dict, (), ())),
    )
