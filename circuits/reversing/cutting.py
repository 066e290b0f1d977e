"""`forward_backward`: a circuit and its reverse as two diagrams, with what is saved between them."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from circuits.boxes import Box, Size, Value
from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.reversing.joint import Made, bind_names, make
from circuits.reversing.ports import flow, inside, ported
from circuits.reversing.simplifying import is_pure
from circuits.structure import Struct, Wire, wires


class Halves(NamedTuple):
    """A circuit with its tape, and its reverse: `outputs, saved = forward(*inputs)`, `reverse(saved, *cotangents)`."""

    forward: Diagram
    reverse: Diagram

    @property
    def saved(self) -> tuple[Value, ...]:
        """What is kept in between, in the order of the tape; parameters are not, they stay where they are."""
        return self.reverse.inputs[: len(wires(self.reverse.arguments.parts[0]))]

    @property
    def bytes(self) -> Size:
        """How much memory that takes: a number, or a formula in the axes that are free."""
        return sum([prod(value.sizes) * value.dtype.itemsize for value in self.saved])


def forward_backward(
    f: Any,
    /,
    *inputs: Any,
    wrt: str | Sequence[str] | None = None,
    recompute: str | Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Halves:
    """`backward` cut in two where the way there ends: `forward`, which also gives what it saves, and `reverse`.

    `forward(*inputs)` gives `outputs, saved`, and `reverse(saved, *cotangents)` what `backward` gives. The halves tell
    what is `saved`, its axes and its `bytes`. `recompute` names operations (`"softmax"`) whose answers are reckoned
    again on the way back from what they were reckoned from, and not saved. Differentiate `backward(f)`, not the
    halves: `reverse` takes what was saved as given.

    CircuitError where `recompute` names what is not there, or what would give another answer the second time.

    >>> import torch
    >>> halves = forward_backward(lambda x: x.sin(), torch.zeros(3))
    >>> outputs, saved = halves.forward(torch.zeros(3))
    >>> halves.reverse(saved, torch.ones(3)), halves.bytes
    ({'x': tensor([1., 1., 1.])}, 12)
    """
    made = make(f, inputs, wrt, sizes, axes, kwargs)
    diagram, back = made.diagram, [Wire(value.number) for value in made.cotangents]
    again, read = _again(made, [recompute] if isinstance(recompute, str) else recompute)
    values = {**inside([made.forward]), **{value.number: value for value in made.more[id(made.forward)]}}
    values |= {value.number: value for value in made.inputs}
    read |= _tellers(made, [values[number] for number in read])
    saved = tuple([values[number] for number in sorted(read)])
    tape = Struct(tuple, (), tuple([Wire(value.number) for value in saved]))
    result = Struct(tuple, (), (made.outputs, tape))
    (first,) = ported([made.forward], wires(result), made.more)
    forward = made.assembled(first, diagram.arguments, result, diagram.binder)
    boxes = ported([*again, *made.reverse], wires(made.result), made.more)
    box = Box(
        "function", "", f"∂{diagram.name}", inputs=(*saved, *made.cotangents), outputs=made.answers, boxes=boxes
    )  # fmt: skip
    names = ("saved", *[value.name for value in made.cotangents])
    reverse = made.assembled(box, Struct(dict, names, (tape, *back)), made.result, bind_names(names, {}))
    return Halves(forward, reverse)


def _tellers(made: Made, saved: Sequence[Value]) -> set[int]:
    """The inputs to save for their sizes alone: free axes that the reverse could not tell from anything else."""
    told = {axis for value in (*saved, *made.cotangents) for axis in _tells(value)}
    found = set()
    for value in made.inputs:
        if not _tells(value) <= told:
            found.add(value.number)
            told |= _tells(value)
    return found


def _tells(value: Value) -> set[Any]:
    """The free axes whose sizes a tensor tells: those of which one of its sizes is a multiple."""
    sizes: list[Any] = [size for size in value.sizes if not isinstance(size, int) and len(size.free_symbols) == 1]
    return {next(iter(size.free_symbols)) for size in sizes if size.as_coefficient(*size.free_symbols) is not None}


def _again(made: Made, names: Sequence[str]) -> tuple[list[Box], set[int]]:
    """The boxes of the way there that run again on the way back, and what must be saved for these and the reverse."""
    there = {*made.diagram.state, *made.constants, *[value.number for value in made.cotangents]}
    wanted = {number for number in flow(made.reverse).read if number not in there}
    calls = [box for box in made.forward.walk() if box.call is not None]
    words = {box.label.split()[0] for box in calls}
    unknown = [name for name in names if name not in words]
    if unknown:
        raise CircuitError(
            f"recompute: {made.diagram.name} has no {', '.join(unknown)}; there are {', '.join(sorted(words))}"
        )
    again: list[Box] = []
    for box in reversed(calls):
        call: Any = box.call
        if box.label.split()[0] not in names or not wanted & set(wires(call.result)):
            continue
        if not is_pure(box):
            raise CircuitError(f"recompute: {box.label} may give another answer the second time, so it is to be saved")
        wanted -= set(wires(call.result))
        wanted |= {number for part in (call.args, call.kwargs) for number in wires(part) if number not in there}
        again.insert(0, box)
    return again, wanted
