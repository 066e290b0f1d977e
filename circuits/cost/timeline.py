"""`timeline`: the operations of a forward and a reverse pass in order, each with its FLOPs and what is in memory.

The sizes have to be numbers. A tensor is freed after its last use; parameters, buffers and constants are not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from circuits.autodiff import Recompute, forward_backward
from circuits.cost.count import both_passes
from circuits.cost.measure import Measurement, Place
from circuits.cost.memory import key, storage_bytes
from circuits.diagram import Box, Call, Diagram, Value, wires
from circuits.errors import CircuitError

Around = dict[Place, frozenset[str]]
"""The paths of the modules, and the names of the circuits and functions, that an operation belongs to, by its place."""


@dataclass(frozen=True)
class Operation:
    """One operation of a forward or a reverse pass.

    Attributes:
        box: The operation.
        around: The paths and classes of the modules, and the names of the circuits and functions, that it belongs to:
            those around it, around the operation whose reverse it is, or around the one that it recomputes.
        flops: Its FLOPs by dtype, live ones as in `BoxCost.live_flops`.
        live: The numbers of the tensors that are in memory while it runs.
        is_reverse: Whether it is of the reverse pass.
    """

    box: Box
    around: frozenset[str]
    flops: Mapping[torch.dtype, int]
    live: frozenset[int]
    is_reverse: bool


@dataclass(frozen=True)
class Timeline:
    """A forward and a reverse pass.

    Attributes:
        operations: The operations in order.
        values: The tensors by number; views have numbers of their own.
        bytes: The bytes of each tensor that has memory of its own, by number.
        makers: What each of these tensors belongs to: the `around` of the operation that makes it.
        saved: The numbers of the tensors that are saved for backward.
        primal: The number of the tensor whose cotangent another is, by the number of the cotangent.
        uncounted: The operations without a formula, whose FLOPs are missing.
    """

    operations: tuple[Operation, ...]
    values: Mapping[int, Value] = field(repr=False)
    bytes: Mapping[int, int] = field(repr=False)
    makers: Mapping[int, frozenset[str]] = field(repr=False)
    saved: frozenset[int] = field(repr=False)
    primal: Mapping[int, int] = field(repr=False)
    uncounted: tuple[str, ...] = ()


def timeline(diagram: Diagram, recompute: Recompute = ()) -> Timeline:
    """Return the forward and the reverse pass of a diagram as a timeline.

    Args:
        diagram: The diagram; all sizes are numbers.
        recompute: What the reverse pass recomputes, as for `forward_backward`.

    Raises:
        CircuitError: A size is a free axis; and as `forward_backward` and `count` raise.
    """
    _refuse_free_sizes(diagram)
    halves = forward_backward(diagram, recompute=recompute)
    both, saved = both_passes(diagram, halves)
    run = _Run(both, saved, (0,))
    run.run()
    belongs = _belongs(run.steps, dict(_around(both.box)))
    operations = []
    for place, box, live in run.steps:
        flops = {dtype: int(2 * each.size) for dtype, each in run.tallies[place].live.items()}
        operations.append(Operation(box, belongs[place], flops, live, place[:1] == (1,)))
    values = {value.number: value for box in both.walk() for value in (*box.inputs, *box.outputs, *box.parameters)}
    makers: dict[int, frozenset[str]] = {}
    for each in operations:
        makers |= {number: each.around for number in _results(each.box) if number not in makers}
    uncounted = dict.fromkeys(name for tally in run.tallies.values() for name in tally.unknown)
    return Timeline(
        tuple(operations), values, run.bytes, makers, frozenset(run.roots_of_saved), halves.primal, tuple(uncounted)
    )


def _belongs(steps: Sequence[tuple[Place, Box, Any]], around: Mapping[Place, frozenset[str]]) -> Around:
    """Return what each operation belongs to.

    Operations that are recomputed stand at the beginning of the reverse pass: each belongs to where its result was
    computed first, or to what reads it if it is new, as a part of a softmax that is computed from a statistic.
    """
    found, first = dict(around), dict[int, frozenset[str]]()
    for place, box, _ in steps:
        known = next((first[number] for number in _results(box) if number in first), None)
        found[place] = found[place] if known is None else known
        first |= {number: found[place] for number in _results(box) if number not in first}
    reader: dict[int, frozenset[str]] = {}
    for place, box, _ in reversed(steps):
        if len(place) == 2 and place[0] == 1:
            found[place] |= next((reader[number] for number in _results(box) if number in reader), frozenset())
        reader |= {value.number: found[place] for value in box.inputs}
    return found


def _results(box: Box) -> Sequence[int]:
    """Return the numbers of the tensors that an operation makes, used or not."""
    return wires(box.call.result) if box.call is not None else ()


class _Run(Measurement):
    """A measurement that notes which tensors are in memory while each operation runs."""

    def __init__(self, diagram: Diagram, saved: list[int], saved_at: Place) -> None:
        super().__init__(diagram, saved, saved_at)
        self.steps: list[tuple[Place, Box, frozenset[int]]] = []
        self.bytes: dict[int, int] = {}
        self.roots_of_saved: set[int] = set()
        self._roots: dict[int, int] = {}
        self._outside = {*diagram.state, *diagram.constants, *[number for number, *_ in diagram.held]}

    def _call(self, box: Box, call: Call, place: Place) -> None:
        before = self._roots or self._live({})
        super()._call(box, call, place)
        self._roots = self._live(before)
        self.steps.append((place, box, frozenset([*before.values(), *self._roots.values()])))

    def _live(self, known: Mapping[int, int]) -> dict[int, int]:
        """Return the tensors in memory, one number for each storage, by the key of the storage."""
        found: dict[int, int] = {}
        for number, tensor in self.workspace.fakes.items():
            if number in self._outside:
                continue
            place = key(tensor)
            if place not in found:
                found[place] = known.get(place, number)
                self.bytes.setdefault(found[place], int(storage_bytes(tensor, self._size)))
        return found

    def _note_saved(self) -> None:
        super()._note_saved()
        fakes = self.workspace.fakes
        saved = [key(fakes[number]) for number in self.saved if number in fakes]
        self.roots_of_saved = {self._roots[each] for each in saved if each in self._roots}


def _around(box: Box, place: Place = (), names: frozenset[str] = frozenset()) -> Iterator[tuple[Place, frozenset[str]]]:
    """Yield for each operation the paths and names of the boxes around it, those of reverses without their sign."""
    if box.call is not None:
        yield place, names
        return
    own = {each.removeprefix("∂") for each in (box.path, box.label) if each}
    for number, inner in enumerate(box.boxes):
        yield from _around(inner, (*place, number), names | own)


def _refuse_free_sizes(diagram: Diagram) -> None:
    """Raise CircuitError if a size of a tensor is no number."""
    every: list[Any] = [size for box in diagram.walk() for value in (*box.inputs, *box.outputs) for size in value.sizes]
    free = sorted({str(axis) for size in every for axis in getattr(size, "free_symbols", ())})
    if free:
        given = ", ".join([f"'{axis}': ..." for axis in free])
        raise CircuitError(
            f"{diagram.name}: memory is compared as numbers, and {', '.join(free)} {'is' if len(free) == 1 else 'are'} "
            f"free: give sizes, sizes={{{given}}}, or example inputs"
        )


__all__ = ["Operation", "Timeline", "timeline"]
