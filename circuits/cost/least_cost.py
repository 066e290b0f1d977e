"""`least_cost`: the cheapest choice of what to recompute under a budget of saved bytes.

For a price of a byte, the cheapest path through the graph of decisions is found by dynamic programming; the best price
gives a lower bound of the cost under the budget (Lagrangian relaxation). All paths that this bound does not exclude are
then followed side by side, and of two that reach the same state one is dropped if it has no fewer bytes and costs no
less. The result is exact, and equals the bound, unless there are too many paths.

Source: A. Geoffrion, Lagrangean Relaxation for Integer Programming, Mathematical Programming Study 2, 1974.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from circuits.cost.recompute_graph import Graph, State

MOST_PATHS = 20_000
"""The most paths that are followed side by side."""


class Found(NamedTuple):
    """The steps that are recomputed, the bytes that are saved, the cost, and a lower bound of the least cost."""

    steps: tuple[int, ...]
    bytes: int
    cost: int
    bound: int


class _Path(NamedTuple):
    """The decisions from the last step to some step: the recomputed steps, linked from the last to the first."""

    bytes: int
    cost: int
    steps: tuple[int, Any] | None


def least_bytes(graph: Graph) -> Found:
    """Return the path that saves the fewest bytes, and of these the cheapest."""
    total = sum([step.cost for step in graph.problem.steps])
    return _cheapest(graph, total + 1, 1)


def least_cost(graph: Graph, budget: int, best: Found | None = None, most: int = MOST_PATHS) -> Found | None:
    """Return the cheapest path that saves at most `budget` bytes; None if there is none.

    Args:
        graph: The decisions.
        budget: The bytes that may be saved.
        best: A path that is returned unless a cheaper one is found.
        most: The most paths that are followed side by side.
    """
    low = least_bytes(graph)
    if low.bytes > budget:
        return best
    sizes = [*graph.problem.inputs.values(), *[size for step in graph.problem.steps for size in step.makes.values()]]
    high = _cheapest(graph, 1, sum(sizes) + sum([each.bytes for each in graph.problem.statistics]) + 1)
    if high.bytes <= budget:
        return high if best is None or high.cost < best.cost else best
    byte, cost, low = _prices(graph, budget, low, high)
    best = low if best is None or low.cost < best.cost else best
    for each in dict.fromkeys([min(100, most), most]):
        best = _search(graph, budget, best, byte, cost, each)
        if best.bound == best.cost:
            break
    return best


def _prices(graph: Graph, budget: int, low: Found, high: Found) -> tuple[int, int, Found]:
    """Return the prices of a byte and of cost that give the best bound, and the cheapest path found that fits.

    `low` has the fewest bytes of all paths, `high` the least cost, and more bytes than the budget.
    """
    while True:
        byte, cost = low.cost - high.cost, high.bytes - low.bytes
        found = _cheapest(graph, byte, cost)
        if byte * found.bytes + cost * found.cost == byte * low.bytes + cost * low.cost:
            return byte, cost, low
        low, high = (found, high) if found.bytes <= budget else (low, found)


def _cheapest(graph: Graph, byte: int, cost: int) -> Found:
    """Return the path with the least sum of bytes and cost at these prices."""
    values = graph.least(byte, cost)
    state, steps, saved, spent = frozenset[int](), list[int](), 0, 0
    for layer, arcs in enumerate(graph.layers):
        after = values[layer + 1]
        arc = min(arcs[state], key=lambda each: byte * each.bytes + cost * each.cost + after[each.after])
        steps += [len(graph.layers) - 1 - layer] * arc.recomputed
        state, saved, spent = arc.after, saved + arc.bytes, spent + arc.cost
    return Found(tuple(steps[::-1]), saved + graph.last[state], spent, spent if graph.complete else 0)


def _search(graph: Graph, budget: int, best: Found, byte: int, cost: int, most: int) -> Found:
    """Return the cheapest path within a budget, or `best` if there is none cheaper, following at most `most` paths.

    A path is left if with its cheapest end, at the prices of a byte and of cost, it costs no less than `best`.
    """
    ends, fewest = graph.least(byte, cost), graph.least(1, 0)
    bound = -((byte * budget - ends[0][frozenset()]) // cost) if graph.complete else 0
    paths: dict[State, list[_Path]] = {frozenset(): [_Path(0, 0, None)]}
    complete = graph.complete
    for layer, arcs in enumerate(graph.layers):
        step = len(graph.layers) - 1 - layer
        found: dict[State, list[_Path]] = {}
        for state, before in paths.items():
            for arc in arcs[state]:
                room = budget - arc.bytes - fewest[layer + 1][arc.after]
                limit = cost * (best.cost - arc.cost) - ends[layer + 1][arc.after] + byte * (budget - arc.bytes)
                into = found.setdefault(arc.after, [])
                for path in before:
                    if path.bytes <= room and cost * path.cost + byte * path.bytes < limit:
                        steps = (step, path.steps) if arc.recomputed else path.steps
                        into.append(_Path(path.bytes + arc.bytes, path.cost + arc.cost, steps))
        paths = {state: _undominated(each) for state, each in found.items() if each}
        if sum(map(len, paths.values())) > most:
            complete = False
            paths = _most_promising(paths, ends[layer + 1], byte, cost, most)
    ended = [(path.cost, path.bytes + graph.last[state], path.steps) for state, each in paths.items() for path in each]
    spent, saved, linked = min(ended, key=lambda each: each[:2], default=(best.cost, 0, None))
    if spent < best.cost:
        best = Found(tuple(_unlinked(linked)), saved, spent, bound)
    return best._replace(bound=best.cost if complete else bound)


def _undominated(paths: list[_Path]) -> list[_Path]:
    """Return the paths to one state without those that another one has no more bytes and no higher cost than."""
    found: list[_Path] = []
    for path in sorted(paths, key=lambda each: each[:2]):
        if not found or path.cost < found[-1].cost:
            found.append(path)
    return found


def _most_promising(
    paths: Mapping[State, list[_Path]], ends: Mapping[State, int], byte: int, cost: int, most: int
) -> dict[State, list[_Path]]:
    """Return the paths whose cheapest ends are cheapest at these prices."""
    every = [(state, path) for state, each in paths.items() for path in each]
    every.sort(key=lambda each: byte * each[1].bytes + cost * each[1].cost + ends[each[0]])
    found: dict[State, list[_Path]] = {}
    for state, path in every[:most]:
        found.setdefault(state, []).append(path)
    return found


def _unlinked(steps: tuple[int, Any] | None) -> Iterator[int]:
    """Yield the steps of a path, the first of the forward pass first."""
    while steps is not None:
        yield steps[0]
        steps = steps[1]
