"""`count`: what a diagram costs, or what `trace` takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Literal

from circuits.autodiff import Halves, Recompute, forward_backward
from circuits.cost.box_cost import BoxCost, Held, Work
from circuits.cost.cost import Cost
from circuits.cost.groups import added
from circuits.cost.measure import Measurement, Place
from circuits.cost.meter import Tally
from circuits.cost.sizes import simplified
from circuits.diagram import Box, Diagram, Struct, Value, attribute
from circuits.errors import CircuitError, entry_point
from circuits.recording import diagram_of


@entry_point
def count(
    target: Any,
    /,
    *args: Any,
    backward: bool = False,
    recompute: Recompute = (),
    wrt: str | Sequence[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Cost:
    """Return what a diagram costs, by box and in total, as formulas in its free axes.

    Nothing is computed: the diagram runs once on tensors without data, and the cost of each ATen operation is added up.
    A contraction over k elements costs k multiply-adds, and 2k FLOPs, for each element of its result, as torch's
    `FlopCounterMode` has it; pointwise operations and reductions are no FLOPs, and are counted as elements, apart.
    Bytes are those that the operations would read and write if each read all of its inputs from memory.

    Args:
        target: A diagram, or what `trace` takes.
        *args: The positional arguments of `trace`, which a diagram does not take.
        backward: Whether the reverse pass is counted too, that of `forward_backward`.
        recompute: What the reverse pass recomputes, as for `forward_backward`.
        wrt: The names of the tensors to differentiate by, as for `backward`; by default all inputs and parameters.
        sizes: Sizes of axes that are not to stay free, as for `trace`.
        axes: The axes of the inputs, as for `trace`.
        **kwargs: The keyword arguments of `trace`, those of the model included.

    Raises:
        CircuitError: A diagram is given with arguments of `trace`; its run failed; `recompute` or `wrt` is given
            without `backward`; an operation needs a free size as a number; and as `trace` and `forward_backward` raise.
        Exception: As `trace` raises.

    >>> from circuits import circuit, einsum
    >>> @circuit("y k, x k -> y x")
    ... def score(query, key):
    ...     return einsum(query, key, "y k, x k -> y x").softmax(-1)
    >>> print(count(score).table("flops elementwise"))
    box                           FLOPs  elementwise
    score: y k, x k -> y x      2*k*x*y          x*y
      einsum 'y k, x k -> y x'  2*k*x*y
      softmax over x                             x*y
    <BLANKLINE>
    axes  y, k free from query; x free from key
    """
    if not backward and (recompute or wrt is not None):
        raise CircuitError("count: recompute and wrt are about the reverse pass: give backward=True")
    diagram = diagram_of("count", target, args, kwargs, sizes, axes)
    if diagram.failed:
        raise CircuitError(f"{diagram.name}: the recorded run failed, so it has no cost")
    saved: list[int] = []
    if backward:
        diagram, saved = both_passes(diagram, forward_backward(diagram, recompute=recompute, wrt=wrt))
    measurement = Measurement(diagram, saved, (0,) if backward else None)
    measurement.run()
    return _cost(diagram, measurement, backward)


def both_passes(diagram: Diagram, halves: Halves) -> tuple[Diagram, list[int]]:
    """Return the diagram of a forward and a reverse pass, one after the other, and the numbers of the saved values."""
    forward, reverse = halves.forward, halves.reverse
    saved = [value.number for value in halves.saved]
    cotangents = reverse.inputs[len(saved) :]
    box = Box(
        "function", "", diagram.name, inputs=(*forward.inputs, *cotangents), outputs=reverse.outputs,
        parameters=diagram.parameters, boxes=(forward.box, reverse.box),
    )  # fmt: skip
    outputs = forward.result.parts[0]
    result = Struct(tuple, (), (outputs, reverse.result))
    constants = {**forward.constants, **reverse.constants}
    return replace(reverse, box=box, result=result, constants=constants, held=diagram.held), saved


def _cost(diagram: Diagram, measurement: Measurement, backward: bool) -> Cost:
    """Return the cost of a measured diagram."""
    tensors = _StateTensors(diagram)
    rows: list[BoxCost] = []

    def row(box: Box, place: Place) -> BoxCost:
        own = _own(box, place, measurement, tensors, backward)
        at = len(rows)
        rows.append(own)
        parts = [row(inner, (*place, number)) for number, inner in enumerate(box.boxes)] if box.call is None else []
        if parts:
            total = added(own, [own, *parts], 1)
            rows[at] = replace(total, peak=own.peak, crossing=own.crossing)
        return rows[at]

    total = row(diagram.box, ())
    axes = tuple([str(axis) for axis in diagram.symbols if str(axis) not in {each.axis for each in diagram.fixed}])
    guards = tuple(dict.fromkeys([*diagram.guards, *measurement.workspace.sizes.guards(), *measurement.guards]))
    notes = tuple(map(str, diagram.fixed))
    return Cost(tuple(rows), total, axes, guards, notes, box=_without_calls(diagram.box))


def _without_calls(box: Box) -> Box:
    """Return a box without what runs it, and without the boxes inside one that runs as a whole: they have no rows."""
    inner = [_without_calls(each) for each in box.boxes] if box.call is None else ()
    return replace(box, boxes=tuple(inner), call=None, reverse=None, given=None)


def _own(box: Box, place: Place, measurement: Measurement, tensors: "_StateTensors", backward: bool) -> BoxCost:
    """Return what a box costs without the boxes inside it, but its peak with them."""
    tally = measurement.tallies.get(place, Tally())
    label = f"{box.name} {box.label.rpartition('<locals>.')[2]}".strip()
    is_operation = box.kind in ("operation", "transform")
    return BoxCost(
        f"{label}: {box.signature}" if box.signature is not None else label,
        place,
        box.kind,
        box.label.partition(" ")[0] if is_operation else box.label.rpartition(".")[2],
        box.path,
        1,
        tally.multiply_adds.size,
        simplified(sum([live.size for live in tally.live.values()])),
        tally.elementwise.size,
        tally.read.size,
        tally.written.size,
        tally.activations.size,
        tally.saved.size if backward else None,
        measurement.peaks[place].size,
        tuple({each.key: each for each in tensors.of(box)}.values()),
        tuple(tally.unknown.items()),
        _work(tally),
        measurement.crossing[place],
    )


def _work(tally: Tally) -> tuple[tuple[Work, int], ...]:
    """Return the work of a box that is run by one call, an operation."""
    flops = [(dtype, simplified(2 * live.size)) for dtype, live in tally.live.items() if live.size != 0]
    work = Work(tuple(flops), simplified(tally.read.size + tally.written.size))
    return ((work, 1),) if work != Work((), 0) else ()


class _StateTensors:
    """The parameters and buffers of a diagram, by value number, or by name where no box reads them."""

    def __init__(self, diagram: Diagram) -> None:
        self.state = {number: attribute(*where) for number, where in diagram.state.items()}
        roots = {id(module): module for module, _ in diagram.state.values()}.values()
        self.trained = {name: each.requires_grad for root in roots for name, each in root.named_parameters()}

    def of(self, box: Box) -> Iterator[Held]:
        """Yield the parameters of a box, read or not, and the buffers that it reads."""
        for value in box.parameters:
            yield self._held(value)
        for value in box.inputs:
            if value.role in ("parameter", "buffer"):
                yield self._held(value)

    def _held(self, value: Value) -> Held:
        elements = prod([int(size) for size in value.sizes])
        is_trained = self.trained.get(value.name, True)
        if value.number in self.state:
            is_trained = self.state[value.number].requires_grad
        role: Literal["trained", "frozen", "buffer"] = "trained" if is_trained else "frozen"
        return Held(
            value.number, value.name, "buffer" if value.role == "buffer" else role, elements,
            elements * value.dtype.itemsize,
        )  # fmt: skip


__all__ = ["both_passes", "count"]
