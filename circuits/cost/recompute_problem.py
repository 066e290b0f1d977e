"""The problem of what to recompute, from a diagram: bytes of values, FLOPs of boxes, and which can run again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from circuits.autodiff import Candidates, from_statistic, results
from circuits.cost.least_cost import Found, least_bytes, least_cost
from circuits.cost.measure import Measurement, Place
from circuits.cost.meter import Tally
from circuits.cost.recompute_graph import Graph, Problem, Statistic, Step
from circuits.diagram import Box, Diagram, Struct, Value, Wire

MOST_PATHS_OF_TIES = 1000
"""The most paths that are followed side by side among choices of equal FLOPs."""


@dataclass(frozen=True)
class Work:
    """What running a box again takes; `unknown` is whether no formula has it."""

    flops: int
    elementwise: int
    moved: int
    unknown: bool


def work_of(diagram: Diagram, candidates: Candidates) -> list[Work]:
    """Return what each leaf box of the forward pass takes."""
    forward = candidates.forward
    result = Struct(tuple, (), tuple([Wire(value.number) for value in forward.outputs]))
    box = replace(diagram.box, boxes=(forward,), outputs=forward.outputs)
    measurement = Measurement(replace(diagram, box=box, result=result))
    measurement.run()
    places = _places(forward, (0,))
    tallies = [measurement.tallies.get(places[id(box)], Tally()) for box in candidates.boxes]
    return [
        Work(
            2 * _number(tally.multiply_adds.size), _number(tally.elementwise.size),
            _number(tally.read.size) + _number(tally.written.size), bool(tally.unknown),
        )
        for tally in tallies
    ]  # fmt: skip


def problem_of(candidates: Candidates, work: list[Work]) -> Problem:
    """Return the problem in numbers; costs are FLOPs. A box without a formula is never recomputed."""
    steps: list[Step] = []
    for box, each in zip(candidates.boxes, work, strict=True):
        can = candidates.is_repeatable(box) and not each.unknown
        choice = "free" if candidates.is_free(box) else "either" if can else "never"
        makes = {number: bytes_of(candidates.values.get(number)) for number in results(box)}
        steps.append(Step(makes, frozenset(candidates.reads([box])), each.flops, choice))
    wanted = frozenset(candidates.reads(candidates.reverse))
    read = wanted.union(*[step.reads for step in steps]).difference(*[step.makes for step in steps])
    inputs = {number: bytes_of(candidates.values[number]) for number in sorted(read)}
    return Problem(steps, wanted, inputs, _statistics(candidates, steps))


def _statistics(candidates: Candidates, steps: list[Step]) -> list[Statistic]:
    """Return the statistics of the softmaxes whose scores can be recomputed."""
    found: list[Statistic] = []
    for i, box in enumerate(candidates.boxes):
        scores = candidates.scores(box) if steps[i].choice == "either" else None
        if scores is not None and all(steps[candidates.maker[each]].choice != "never" for each in scores):
            call: Any = box.call
            parts = from_statistic(box, candidates.values[call.args.parts[0].number], candidates.new_number)
            found.append(Statistic(i, scores, bytes_of(parts.forward[-1].outputs[0])))
    return found


def fewest_bytes(problem: Problem) -> Found:
    """Return the choice that saves the fewest bytes, and of these takes the fewest FLOPs."""
    return least_bytes(Graph(problem))


def fewest_flops(problem: Problem, work: list[Work], budget: int) -> Found | None:
    """Return the choice within a budget that takes the fewest FLOPs; None if there is none.

    Of such choices that with the fewest elements is returned, and then the one that moves the fewest bytes. Where there
    are too many to compare all, that is the best among those with the same contractions recomputed, and others found.
    """
    found = least_cost(Graph(problem), budget)
    if found is None:
        return None
    moved = 1 + sum([each.moved for each in work])
    ties = [each.elementwise * moved + each.moved for each in work]
    scale = 1 + sum(ties)
    costs = [step.cost * scale + tie for step, tie in zip(problem.steps, ties, strict=True)]
    costs = [0 if step.choice == "free" else cost for step, cost in zip(problem.steps, costs, strict=True)]
    every = replace(problem, steps=[replace(s, cost=cost) for s, cost in zip(problem.steps, costs, strict=True)])
    same = [
        replace(step, choice="free" if i in found.steps else "never") if step.cost >= scale else step
        for i, step in enumerate(every.steps)
    ]
    best = least_cost(Graph(replace(every, steps=same)), budget, most=MOST_PATHS_OF_TIES)
    best = least_cost(Graph(every), budget, best, MOST_PATHS_OF_TIES)
    return None if best is None else Found(best.steps, best.bytes, best.cost // scale, found.bound)


def bytes_of(value: Value | None) -> int:
    """Return the bytes of a value; 0 for one that no box lists, since none reads it."""
    return 0 if value is None else prod([_number(size) for size in value.sizes]) * value.dtype.itemsize


def _number(size: Any) -> int:
    return int(size)


def _places(box: Box, place: Place) -> Mapping[int, Place]:
    """Return the place of each box with a call, by id."""
    if box.call is not None:
        return {id(box): place}
    inner = [_places(each, (*place, number)) for number, each in enumerate(box.boxes)]
    return {key: found for each in inner for key, found in each.items()}
