"""What a schedule moves, and the fast memory it needs: the tallest column of live values.

All operations of a diagram run in one pass for each group. Operations with a streamed axis form a loop over its blocks,
those before it run once, and so do those that need its accumulators. A tensor of slow memory is read once for each
group of the axes that it lacks; a result is written once.

A column is what is live while one operation runs: what it reads, what it makes, and what is read later. An elementwise
operation writes over an input that is not read again. While blocks are streamed, the accumulators and every tensor
without the streamed axis stay.

Source: arXiv 2412.03317.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from circuits.cost.io.checks import Accumulator, check_grouped, check_streamed
from circuits.cost.io.reads import reads_of
from circuits.cost.io.steps import Program, Step, Tensor
from circuits.errors import CircuitError

Folds = Mapping[int, Sequence[Accumulator]]
"""The accumulators of each step that folds a streamed axis, by its place."""


@dataclass(frozen=True)
class Moved:
    """One tensor that is moved between slow and fast memory.

    Attributes:
        name: The tensor, with its axes.
        direction: "read" or "written".
        elements: Its number of elements.
        lacks: The grouped axes that it lacks: it is moved once for each group of these.
    """

    name: str
    direction: str
    elements: Any
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class Tiles:
    """The sizes of tiles: of grouped axes the symbol of the group size, of streamed axes that of the block size."""

    sizes: Mapping[str, Any]
    symbols: Mapping[str, sympy.Symbol]

    def size(self, tensor: Tensor) -> Any:
        """Return the number of elements of a tensor in fast memory."""
        return sympy.Mul(*[self._axis(names, size) for names, size in zip(tensor.axes, tensor.sizes, strict=True)])

    def _axis(self, names: tuple[str, ...], size: Any) -> Any:
        tiled = [name for name in names if name in self.symbols]
        if not tiled:
            return size
        others = [name for name in names if name not in self.symbols]
        if any(name not in self.sizes for name in others):
            raise CircuitError(f"transfers: the sizes of ({' '.join(names)}) are unknown; give them by sizes=")
        return sympy.Mul(*[self.symbols[name] for name in tiled], *[self.sizes[name] for name in others])


def moved(program: Program, group: Sequence[str]) -> tuple[Moved, ...]:
    """Return every tensor that is moved, in the order of the run."""
    found: dict[tuple[str, int], Moved] = {}
    for step in program.steps:
        for tensor in step.inputs:
            if tensor.slow:
                found.setdefault(("read", tensor.number), _moved(tensor, "read", group))
        for tensor in step.outputs:
            if tensor.number in program.results and not tensor.slow:
                found[("written", tensor.number)] = _moved(tensor, "written", group)
    return tuple(found.values())


def _moved(tensor: Tensor, direction: str, group: Sequence[str]) -> Moved:
    elements = sympy.Mul(*tensor.sizes)
    name = tensor.name if direction == "read" else tensor.name.replace("made", "output", 1)
    return Moved(name, direction, elements, tuple([axis for axis in group if axis not in tensor.names]))


def checked(program: Program, group: Sequence[str], stream: Sequence[str]) -> dict[int, list[Accumulator]]:
    """Return the accumulators of each step that folds a streamed axis, by its place.

    Raises:
        CircuitError: An axis is unknown or given twice, or cannot be grouped or streamed.
    """
    made = {tensor.number for step in program.steps for tensor in step.outputs}
    for step in program.steps:
        lost = [tensor for tensor in step.inputs if not tensor.slow and tensor.number not in made]
        if lost:
            raise CircuitError(f"transfers: {step} reads {lost[0].name}, which no recorded operation makes")
        slow = [tensor for tensor in step.inputs if tensor.slow and tensor.number in step.box.mutates]
        if slow:
            raise CircuitError(
                f"transfers: {step} writes in place to {slow[0].name}, which is in slow memory\n"
                "  what would work: the operation that returns a new tensor"
            )
    for axis in (*group, *stream):
        if axis not in program.sizes:
            raise CircuitError(f"transfers: no axis is called {axis!r}; there are {', '.join(program.sizes) or 'none'}")
        if [*group, *stream].count(axis) > 1:
            raise CircuitError(f"transfers: {axis} is given twice; an axis is grouped once or streamed once")
    for axis in group:
        check_grouped(program, axis)
    found: dict[int, list[Accumulator]] = {}
    for axis in stream:
        for place, accumulator in check_streamed(program, axis).items():
            found.setdefault(place, []).append(accumulator)
    _check_one_loop(program, stream)
    return found


def _check_one_loop(program: Program, stream: Sequence[str]) -> None:
    """Raise CircuitError if a tensor has some of several streamed axes: the loops over them would be nested."""
    for step in program.steps:
        for tensor in (*step.inputs, *step.outputs):
            here = [axis for axis in stream if axis in tensor.names]
            if here and len(here) < len(stream):
                raise CircuitError(
                    f"transfers: {' and '.join(stream)} cannot be streamed together: {step}: {tensor.name} has"
                    f" {' and '.join(here)} alone\n  what would work: stream={here[0]!r}"
                )


def columns(program: Program, tiles: Tiles, stream: Sequence[str], folds: Folds) -> list[Any]:
    """Return the number of live elements at each operation, in the order of the schedule."""
    order = _order(program, stream, folds)
    places = {each: at for at, each in enumerate(order)}
    loop = [places[each] for each in order if _streams(program.steps[each], stream)]
    live = _lifetimes(program, order, stream, loop, folds)
    kept = _kept(program, tiles, stream, folds)
    found = []
    for at, place in enumerate(order):
        step = program.steps[place]
        total = sympy.Add(*[tiles.size(tensor) for tensor, first, last in live if first <= at <= last])
        total += kept if loop and loop[0] <= at <= loop[-1] else 0
        found.append(sympy.expand(total - _overwritten(step, at, live, tiles)))
    return found


def _streams(step: Step, stream: Sequence[str]) -> bool:
    return not step.names.isdisjoint(stream)


def _order(program: Program, stream: Sequence[str], folds: Mapping[int, Any]) -> list[int]:
    """Return the places of the steps: those before the loop, the loop, those that need its accumulators."""
    after: set[int] = set()
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for place, step in enumerate(program.steps):
        loops = _streams(step, stream)
        late = any(tensor.number in after for tensor in step.inputs)
        if (loops and place in folds and step.outputs[0].names.isdisjoint(stream)) or late:
            after |= {tensor.number for tensor in step.outputs}
        parts[1 if loops else 2 if late else 0].append(place)
    return [*parts[0], *parts[1], *parts[2]]


def _lifetimes(
    program: Program, order: Sequence[int], stream: Sequence[str], loop: Sequence[int], folds: Mapping[int, Any]
) -> list[tuple[Tensor, int, int]]:
    """Return each tensor with the first and the last place in `order` where it is in fast memory."""
    spans: dict[int, tuple[Tensor, int, int]] = {}
    for at, place in enumerate(order):
        for tensor in (*program.steps[place].inputs, *program.steps[place].outputs):
            known, first, _ = spans.get(tensor.number, (tensor, at, at))
            spans[tensor.number] = (known, first, at)
    found = []
    for tensor, first, last in spans.values():
        if loop and tensor.names.isdisjoint(stream) and first <= loop[-1] and last >= loop[0]:
            first, last = min(first, loop[0]), max(last, loop[-1])
        found.append((tensor, first, last))
    return found


def _kept(program: Program, tiles: Tiles, stream: Sequence[str], folds: Folds) -> Any:
    """Return the elements of the accumulators that are no outputs of their operations."""
    total: Any = 0
    for place, accumulators in folds.items():
        step = program.steps[place]
        output = step.outputs[0]
        kept = [at for at, names in enumerate(output.axes) if not {*names} & {*stream}]
        axes, lengths = tuple([output.axes[at] for at in kept]), tuple([output.sizes[at] for at in kept])
        bare = Tensor(output.number, axes, lengths)
        reads = reads_of(step)
        streamed = not output.names.isdisjoint(stream)
        count = len(accumulators[0].names) if streamed else (reads.extra if reads else 0)
        total += count * tiles.size(bare)
    return total


def _overwritten(step: Step, at: int, live: Iterable[tuple[Tensor, int, int]], tiles: Tiles) -> Any:
    """Return the elements of an output that is written over an input which is not read again."""
    reads = reads_of(step)
    if reads is None or not reads.in_place:
        return 0
    made = {tensor.number for tensor in step.outputs}
    ending = [tensor for tensor, _, last in live if last == at and tensor.number not in made]
    free = [tiles.size(tensor) for tensor in ending if tensor.number in {each.number for each in step.inputs}]
    sizes = [tiles.size(tensor) for tensor in step.outputs]
    return next((size for size in sizes if size in free), 0)
