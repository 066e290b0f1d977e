"""The best group and block sizes as whole numbers, found among all of them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import sympy

from circuits.cost.io.schedule import Moved
from circuits.errors import CircuitError


@dataclass(frozen=True)
class Tiling:
    """Group and block sizes as whole numbers.

    Attributes:
        groups: The group size of each grouped axis.
        blocks: The block size of each streamed axis: the largest that fits; what is moved does not depend on it.
        moved: The elements moved; the last group of an axis may be smaller than the others.
        memory: The elements of fast memory that the schedule needs.
    """

    groups: Mapping[str, int]
    blocks: Mapping[str, int]
    moved: int
    memory: int


def best_tiling(
    moved: Sequence[Moved],
    columns: Sequence[Any],
    sizes: Mapping[str, int],
    symbols: Mapping[str, Any],
    stream: Sequence[str],
    memory: int,
) -> Tiling:
    """Return the tiling that moves least, of these the one that needs least memory.

    Args:
        moved: The tensors that are moved, with numbers of elements that are numbers.
        columns: The fast memory at each operation, in the symbols of groups and blocks.
        sizes: The size of each grouped and streamed axis.
        symbols: The symbol of each.
        stream: The streamed axes.
        memory: The elements of fast memory.

    Raises:
        CircuitError: Not even groups and blocks of one fit.
    """
    axes = [axis for axis in symbols if any(axis in each.lacks for each in moved)]
    alone = [axis for axis in symbols if axis not in axes and axis not in stream]  # a group of these saves nothing
    order = [*axes, *alone, *stream]
    needs = sympy.lambdify([symbols[axis] for axis in order], [sympy.sympify(each) for each in columns], "math")

    def room(groups: Sequence[int], block: int = 1) -> int:
        blocks = [min(block, sizes[axis]) for axis in stream]
        return max(needs(*groups, *[1] * len(alone), *blocks))

    least = room([1] * len(axes))
    if least > memory:
        raise CircuitError(f"transfers: M = {memory} elements are too few: groups and blocks of 1 need {least}")
    total, _, groups = min(_tilings(moved, sizes, axes, room, memory))
    block = _largest(lambda size: room(groups, size) <= memory, max([sizes[axis] for axis in stream], default=1))
    return Tiling(
        {**dict(zip(axes, groups, strict=True)), **dict.fromkeys(alone, 1)},
        {axis: min(block, sizes[axis]) for axis in stream},
        total,
        room(groups, block),
    )


def _tilings(
    moved: Sequence[Moved], sizes: Mapping[str, int], axes: Sequence[str], room: Callable[..., int], memory: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Yield what is moved, the memory and the group sizes, with the largest last group that fits beside the others."""
    for first in product(*[_candidates(sizes[axis]) for axis in axes[:-1]]):
        groups = [*first]
        if axes:
            groups.append(_largest(lambda size, first=first: room([*first, size]) <= memory, sizes[axes[-1]]))
        if 0 in groups:
            continue
        counts = {axis: math.ceil(sizes[axis] / size) for axis, size in zip(axes, groups, strict=True)}
        groups = [math.ceil(sizes[axis] / count) for axis, count in counts.items()]
        total = sum([int(each.elements) * math.prod([counts.get(axis, 1) for axis in each.lacks]) for each in moved])
        yield total, room(groups), groups


def _candidates(size: int) -> list[int]:
    """Return the smallest group size for each number of groups that an axis can have."""
    roots = range(1, math.isqrt(size) + 1)
    counts = {*roots, *[math.ceil(size / group) for group in roots]}
    return sorted({math.ceil(size / count) for count in counts})


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` that fits, where smaller ones fit too; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
