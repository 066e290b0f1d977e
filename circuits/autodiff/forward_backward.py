"""`forward_backward`: a circuit and its reverse as two diagrams, with what is saved between them."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from circuits.autodiff.backward import Made, bind_names, make
from circuits.autodiff.ports import inside, ported
from circuits.autodiff.recompute import again
from circuits.diagram import Box, Diagram, Size, Struct, Value, Wire, wires


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
    what is `saved`, its axes and its `bytes`. Differentiate `backward(f)`, not the halves: `reverse` takes what was
    saved as given.

    `recompute` names what is reckoned again on the way back, from what it was reckoned from, and not saved: operations
    (`"softmax"`), modules by their paths and circuits by their names with all that is in them (what draws random
    numbers is saved still), or tensors by the axes they have (`"y x"`). A softmax whose scores are reckoned again too
    is had of these and of one saved number a row. Attention with `recompute="y x"` goes back as FlashAttention does:
    five contractions, and what is saved are queries, keys, values, the answer, and the logsumexp of each row.

    CircuitError where `recompute` names what is not there, or what would give another answer the second time.

    >>> import torch
    >>> halves = forward_backward(lambda x: x.sin(), torch.zeros(3))
    >>> outputs, saved = halves.forward(torch.zeros(3))
    >>> halves.reverse(saved, torch.ones(3)), halves.bytes
    ({'x': tensor([1., 1., 1.])}, 12)
    """
    made = make(f, inputs, wrt, sizes, axes, kwargs)
    diagram, back = made.diagram, [Wire(value.number) for value in made.cotangents]
    cut = again(made, [recompute] if isinstance(recompute, str) else recompute)
    values = {**inside([cut.forward]), **{value.number: value for value in cut.more.get(id(cut.forward), ())}}
    values |= {value.number: value for value in made.inputs}
    read = cut.saved | _tellers(made, [values[number] for number in cut.saved])
    saved = tuple([values[number] for number in sorted(read)])
    tape = Struct(tuple, (), tuple([Wire(value.number) for value in saved]))
    result = Struct(tuple, (), (made.outputs, tape))
    (first,) = ported([cut.forward], wires(result), cut.more)
    forward = made.assembled(first, diagram.arguments, result, diagram.binder)
    boxes = ported([*cut.boxes, *cut.reverse], wires(made.result), cut.more)
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
