"""Which steps of a forward pass to recompute so that what is saved fits into a budget: the problem in numbers.

The steps are decided from the last to the first: a value that is needed later is saved, or its step runs again and
needs the values that it reads. What is decided later depends only on which values are needed by then, so the decisions
are paths through a graph of such states. `least_cost` finds the cheapest path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

State = frozenset[int]
"""The values that are needed, beyond those that always are; and each pending statistic i as -1 - i."""

MOST_STATES = 4096
"""The most states after a step; more than that arise if very many values are read far behind where they are made."""


@dataclass(frozen=True)
class Step:
    """One step of the forward pass.

    Attributes:
        makes: The bytes of each value that it makes, by number.
        reads: The values that it reads and that have to be saved or recomputed.
        cost: What running it again costs.
        choice: "free" for a step that is always run again, "never" for one whose values are always saved.
    """

    makes: Mapping[int, int]
    reads: frozenset[int]
    cost: int = 0
    choice: Literal["free", "never", "either"] = "either"


@dataclass(frozen=True)
class Statistic:
    """Bytes that are saved if a step is recomputed and so are all of some values: the logsumexp of a softmax."""

    step: int
    values: frozenset[int]
    bytes: int


@dataclass(frozen=True)
class Problem:
    """The steps of a forward pass in order, the values that the reverse pass reads, and the bytes of the inputs."""

    steps: Sequence[Step]
    wanted: frozenset[int]
    inputs: Mapping[int, int]
    statistics: Sequence[Statistic] = ()


class Arc(NamedTuple):
    """One decision: the state after it, the bytes that it saves, what it costs, and whether the step is recomputed."""

    after: State
    bytes: int
    cost: int
    recomputed: bool


class Graph:
    """The states before and after each decision, from the last step (layer 0) to the inputs.

    `complete` is whether it has all of them; where there are too many states, values are saved until there are fewer.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.layers: list[dict[State, list[Arc]]] = []
        self.complete = True
        states: dict[State, None] = {frozenset(): None}
        makers = {number: i for i, step in enumerate(problem.steps) for number in step.makes}
        self.first = [min(makers[number] for number in each.values) for each in problem.statistics]
        for i in reversed(range(len(problem.steps))):
            choices = slice(0, 2) if len(states) <= MOST_STATES else slice(0, 1)
            self.complete &= choices.stop == 2
            self.layers.append({state: self._arcs(i, state)[choices] for state in states})
            states = {arc.after: None for arcs in self.layers[-1].values() for arc in arcs}
        self.last = {state: self._bytes_of_inputs(state) for state in states}

    def _bytes_of_inputs(self, state: State) -> int:
        return sum([size for number, size in self.problem.inputs.items() if number in self.problem.wanted | state])

    def _arcs(self, i: int, state: State) -> list[Arc]:
        """Return the decisions about step i in a state; where there is a choice, that to save comes first."""
        step, wanted = self.problem.steps[i], self.problem.wanted
        needed = [number for number in step.makes if number in wanted or number in state]
        if not needed:
            return [Arc(state, 0, 0, False)]
        rest = state.difference(step.makes)
        again = rest | (step.reads - wanted)
        if step.choice == "free":
            return [self._after(i, Arc(again, 0, step.cost, True))]
        size = sum([step.makes[number] for number in needed])
        lost = {-1 - j for j, each in enumerate(self.problem.statistics) if each.values & step.makes.keys()}
        saved = Arc(rest - lost, size, 0, False)
        if step.choice == "never":
            return [saved]
        begun = {-1 - j for j, each in enumerate(self.problem.statistics) if each.step == i}
        return [saved, self._after(i, Arc(again | begun, 0, step.cost, True))]

    def _after(self, i: int, arc: Arc) -> Arc:
        """Return the arc with the bytes of the statistics of which step i was the last to be decided."""
        done = [j for j, first in enumerate(self.first) if first == i and -1 - j in arc.after]
        size = sum([self.problem.statistics[j].bytes for j in done])
        return arc._replace(after=arc.after - {-1 - j for j in done}, bytes=arc.bytes + size)

    def least(self, byte: int, cost: int) -> list[dict[State, int]]:
        """Return for each state the least sum of bytes and cost, at these prices, from there to the inputs."""
        values = [{state: byte * size for state, size in self.last.items()}]
        for layer in reversed(self.layers):
            after = values[-1]
            values.append({
                state: min([byte * arc.bytes + cost * arc.cost + after[arc.after] for arc in arcs])
                for state, arcs in layer.items()
            })  # fmt: skip
        return values[::-1]
