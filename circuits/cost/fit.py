"""`fit`: what to recompute so that what is saved for backward fits into a budget, at the least extra FLOPs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from circuits.autodiff import Candidates, Schedule, schedule
from circuits.cost.least_cost import Found
from circuits.cost.recomputation import Recomputation, Recomputed
from circuits.cost.recompute_problem import Work, bytes_of, fewest_bytes, fewest_flops, problem_of, work_of
from circuits.diagram import Box, Diagram
from circuits.errors import CircuitError, entry_point, entry_points

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}


@entry_point
def fit(budget: str | int) -> "Fit":
    """Return a function that chooses what the reverse pass recomputes, for `recompute=` of `forward_backward`.

    Of all choices with which the tensors saved for backward (`Halves.bytes`) take at most `budget` bytes, it returns
    one with the fewest extra FLOPs; of these it prefers few elements of pointwise operations and reductions. Every
    operation is chosen by itself: it can be recomputed if it draws no random numbers, has no side effects, none of its
    inputs is overwritten, and `count` has a formula for it. A choice follows chains: what is computed from a saved
    tensor need not be saved. It is exact where `is_least` of the result says so; finding a proof can fail for networks
    of very many layers of different sizes, and `bound` then has the FLOPs that every choice takes at least.

    `choice` of the `Halves` is the result, a `Recomputation`, which prints as a table. For the table alone call the
    function with the diagram that `backward` returns.

    Args:
        budget: A number of bytes, or text with a unit: `"2 GB"` (1000³ bytes), `"512 MiB"` (1024² bytes).

    Raises:
        CircuitError: The budget cannot be read. The function that is returned raises it if a size is a free axis, or
            if all choices save more.

    >>> import torch
    >>> from circuits import forward_backward
    >>> halves = forward_backward(lambda x: x.sin().exp().sin(), torch.zeros(100), recompute=fit("500 B"))
    >>> print(halves.choice)
    <lambda>: 400 of 800 bytes are saved, of at most 500
    recomputed: 0 FLOPs, the least possible, 200 elements
      in        recomputed  sizes  bytes freed  FLOPs  elements
      <lambda>  sin         100              0      0       100
      <lambda>  exp         100            400      0       100
    """
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 0:
        return Fit(budget)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\w*)", budget.strip()) if isinstance(budget, str) else None
    if match is None or match[2] not in _UNITS:
        units = ", ".join([unit for unit in _UNITS if unit])
        raise CircuitError(f"fit: expected a number of bytes, or text as '2 GB', got {budget!r}; the units are {units}")
    return Fit(int(Fraction(match[1]) * _UNITS[match[2]]))


@entry_points("__call__")
@dataclass(frozen=True)
class Fit:
    """Chooses what to recompute so that at most `budget` bytes are saved: `fit` returns it."""

    budget: int

    def __call__(self, diagram: Diagram) -> Recomputation:
        """Return what to recompute.

        Args:
            diagram: A diagram that `backward` returned.

        Raises:
            CircuitError: The diagram is another, a size is a free axis, or all choices save more than the budget.
        """
        candidates = Candidates.of_diagram(diagram)
        _refuse_free_sizes(candidates)
        work = work_of(diagram, candidates)
        problem, limit = problem_of(candidates, work), self.budget
        while (found := fewest_flops(problem, work, limit)) is not None:
            boxes = [candidates.boxes[i] for i in found.steps]
            chosen, unsaved = _schedule(candidates, boxes, self.budget)
            saved = _bytes(candidates, chosen)
            if saved <= self.budget:
                return _recomputation(candidates, work, self.budget, chosen, unsaved, found)
            limit -= saved - self.budget  # a rule saves more than the problem has
        least = fewest_bytes(problem)
        raise CircuitError(
            f"fit: {candidates.name} saves at least {least.bytes:,} bytes for backward, which are more than "
            f"{self.budget:,}; with these, {len(_not_free(candidates, least.steps))} operations are recomputed, which "
            f"takes {least.cost:,} FLOPs"
        )


def _refuse_free_sizes(candidates: Candidates) -> None:
    """Raise CircuitError if a size of a value is no number."""
    sizes = [size for value in candidates.values.values() for size in value.sizes if not isinstance(size, int)]
    free = sorted({str(axis) for size in sizes for axis in size.free_symbols})
    if free:
        given = ", ".join([f"'{axis}': ..." for axis in free])
        raise CircuitError(
            f"fit: bytes are compared as numbers, and {', '.join(free)} of {candidates.name} "
            f"{'is' if len(free) == 1 else 'are'} free: give sizes, sizes={{{given}}}, or example inputs"
        )


def _schedule(candidates: Candidates, boxes: Sequence[Box], budget: int) -> tuple[Schedule, tuple[Box, ...]]:
    """Return the schedule if some boxes are recomputed, and boxes that are named only so that they are not saved.

    The row sums of a softmax that is computed from its statistic are computed from the result of a contraction. If that
    is saved for this alone and does not fit, it is named, and the row sums stay as they are.
    """
    named = {id(box): box for box in boxes}
    found, unsaved = schedule(candidates, named), list[Box]()
    for each in candidates.row_sums:
        place = candidates.maker.get(each.contracted)
        if _bytes(candidates, found) <= budget or each.contracted not in found.saved or place is None:
            continue
        box = candidates.boxes[place]
        other = schedule(candidates, named | {id(box): box}) if candidates.is_repeatable(box) else found
        if len(other.recomputed) == len(found.recomputed) and each.contracted not in other.saved:
            found, unsaved, named = other, [*unsaved, box], named | {id(box): box}
    return found, tuple(unsaved)


def _bytes(candidates: Candidates, found: Schedule) -> int:
    """Return the bytes that a schedule saves, as `Halves.bytes` has them."""
    made = {value.number: value for each in found.statistics.values() for box in each for value in box.outputs}
    return sum([bytes_of(made.get(number) or candidates.values[number]) for number in found.saved])


def _not_free(candidates: Candidates, steps: Sequence[int]) -> list[int]:
    return [i for i in steps if not candidates.is_free(candidates.boxes[i])]


def _recomputation(
    candidates: Candidates, work: Sequence[Work], budget: int, chosen: Schedule, unsaved: tuple[Box, ...], found: Found
) -> Recomputation:
    """Return what was chosen, with its costs."""
    before = schedule(candidates, {})
    around = _around(candidates.forward, candidates.name)
    places: Any = [candidates.place(box) for box in chosen.recomputed]
    rows = [
        Recomputed(
            candidates.boxes[i], around[id(candidates.boxes[i])],
            sum([bytes_of(value) for value in candidates.boxes[i].outputs if value.number in before.saved]),
            work[i].flops, work[i].elementwise,
        )
        for i in _not_free(candidates, places)
    ]  # fmt: skip
    unknown = [box.label for box, each in zip(candidates.boxes, work, strict=True) if each.unknown]
    return Recomputation(
        candidates.name, budget, _bytes(candidates, chosen), _bytes(candidates, before),
        sum([row.flops for row in rows]), sum([row.elementwise for row in rows]), sum([each.flops for each in work]),
        found.bound, tuple(rows), unsaved, tuple(dict.fromkeys(unknown)),
    )  # fmt: skip


def _around(box: Box, name: str) -> dict[int, str]:
    """Return for each box with a call, by id, the innermost module, circuit or function around it."""
    if box.call is not None:
        return {id(box): name}
    inner = box.path or (box.label if box.kind in ("circuit", "module", "function") else name)
    return {key: found for each in box.boxes for key, found in _around(each, inner).items()}


__all__ = ["Fit", "fit"]
