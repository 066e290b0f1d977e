"""`forward_backward`: the forward pass and the reverse pass as two diagrams, and the tensors saved between them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from circuits.autodiff.candidates import results
from circuits.autodiff.joint import Joint, joint_of, parameters_named, parameters_of
from circuits.autodiff.ports import flow, port_values, with_ports
from circuits.autodiff.recompute import partition
from circuits.autodiff.rewrites.row_sums import leaf_boxes
from circuits.diagram import Box, Diagram, Size, Struct, Value, Wire, wires
from circuits.errors import CircuitError, entry_point

Recompute = str | Iterable[str | Box] | Callable[[Diagram], str | Iterable[str | Box]]
"""What the argument `recompute` takes: names, boxes, or a function of a diagram that returns them."""


@dataclass(frozen=True)
class Halves:
    """The forward pass and the reverse pass of a gradient, as two diagrams: `forward, reverse = halves`.

    `outputs, saved = forward(*inputs)` and `gradients = reverse(saved, *cotangents)`.

    Attributes:
        forward: The diagram of the circuit, which also returns the tuple of tensors that it saves for backward.
        reverse: The diagram that takes this tuple and a cotangent for each floating output, and returns the dict of
            gradients that `backward` returns.
        choice: What `recompute` stood for: names and boxes, or what a function returned.
        primal: The number of the value whose cotangent another value is, by the number of the cotangent.
    """

    forward: Diagram
    reverse: Diagram
    choice: Iterable[str | Box] = ()
    primal: Mapping[int, int] = field(default_factory=dict, repr=False)

    def __iter__(self) -> Iterator[Diagram]:
        return iter((self.forward, self.reverse))

    @property
    def saved(self) -> tuple[Value, ...]:
        """The values that are saved for backward, in order; parameters are not among them, as modules hold them."""
        return self.reverse.inputs[: len(wires(self.reverse.arguments.parts[0]))]

    @property
    def recomputed(self) -> tuple[Box, ...]:
        """The operations of the forward pass that the reverse pass recomputes, in order; views are among them."""
        again = set(flow([self.reverse.box]).made)
        return tuple([box for box in leaf_boxes([self.forward.box]) if again & set(results(box))])

    @property
    def bytes(self) -> Size:
        """The memory that the saved values take, in bytes: a number, or an expression in the free axes."""
        return sum([prod(value.sizes) * value.dtype.itemsize for value in self.saved])


@entry_point
def forward_backward(
    f: Any,
    /,
    *inputs: Any,
    wrt: str | Sequence[str] | None = None,
    recompute: Recompute = (),
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Halves:
    """Return the joint graph of `backward` partitioned into a forward and a reverse diagram.

    `forward(*inputs)` returns `outputs, saved`, and `reverse(saved, *cotangents)` returns the gradients that `backward`
    returns. `Halves.saved` lists the saved values with their axes, `Halves.bytes` is their size. For a second
    derivative differentiate `backward(f)`, not the halves: `reverse` takes the saved tensors as constants.

    If a softmax and its scores are both recomputed, the softmax is computed from the scores and one saved number per
    row, their logsumexp. Attention with `recompute="y x"` is thereby differentiated as in FlashAttention: the reverse
    pass has five contractions, and the saved tensors are queries, keys, values, the output, and the logsumexp of each
    row.

    Args:
        f: A circuit, a module, a function, or a diagram of one.
        inputs: Example inputs, as for `trace`; a diagram takes none.
        wrt: The names of the tensors to differentiate by, as for `backward`.
        recompute: The results that the reverse pass recomputes instead of saving them: those of an operation
            (`"softmax"`), those of all operations in a module or circuit, by its path or name (except random
            numbers, which are saved), or all tensors that have some axes (`"y x"`). Or a function that returns such
            names and boxes: `fit("2 GB")`, or one of your own. It is called with the diagram that `backward` returns,
            whose first box is the forward pass, and it may return boxes inside that one (an operation alone, or a box
            for all operations in it). `Halves.choice` has what it returned.
        sizes: Sizes of axes that are not to stay free, as for `trace`.
        axes: The axes of the inputs, as for `trace`.
        kwargs: Keyword arguments of `f`.

    Raises:
        CircuitError: `recompute` names nothing in the diagram, or an operation whose result may differ when it is
            recomputed; and in the cases of `backward`.

    >>> import torch
    >>> halves = forward_backward(lambda x: x.sin(), torch.zeros(3))
    >>> outputs, saved = halves.forward(torch.zeros(3))
    >>> halves.reverse(saved, torch.ones(3)), halves.bytes
    ({'x': tensor([1., 1., 1.])}, 12)
    """
    joint = joint_of(f, inputs, wrt, sizes, axes, kwargs)
    diagram, cotangents = joint.diagram, [Wire(value.number) for value in joint.cotangents]
    choice = _choice(recompute(joint.whole()) if callable(recompute) else recompute)
    parts = partition(joint, choice)
    extra_values = parts.extra_values
    values = port_values([parts.forward])
    values |= {value.number: value for value in (*extra_values.get(id(parts.forward), ()), *joint.inputs)}
    read = parts.schedule.saved | _saved_for_sizes(joint, [values[number] for number in parts.schedule.saved])
    saved = tuple([values[number] for number in sorted(read)])
    tape = Struct(tuple, (), tuple([Wire(value.number) for value in saved]))
    result = Struct(tuple, (), (joint.outputs, tape))
    (forward,) = with_ports([parts.forward], wires(result), extra_values)
    boxes = with_ports([*parts.schedule.boxes, *parts.schedule.reverse], wires(joint.result), extra_values)
    reverse = Box(
        "function", "", f"∂{diagram.name}", inputs=(*saved, *joint.cotangents), outputs=joint.gradients, boxes=boxes
    )  # fmt: skip
    names = ("saved", *[value.name for value in joint.cotangents])
    arguments = Struct(dict, names, (tape, *cotangents))
    return Halves(
        joint.diagram_of(forward, diagram.arguments, result, diagram.binder or parameters_of(diagram.arguments)),
        joint.diagram_of(reverse, arguments, joint.result, parameters_named(names, {})),
        choice,
        joint.primal,
    )


def _choice(chosen: Any) -> Iterable[str | Box]:
    """Return names and boxes that can be read more than once."""
    if isinstance(chosen, (str, Box)):
        return (chosen,)
    if not isinstance(chosen, Iterable):
        raise CircuitError(f"recompute: expected names and boxes of the forward pass, got {chosen!r}")
    return tuple(chosen) if isinstance(chosen, Iterator) else chosen


def _saved_for_sizes(joint: Joint, saved: Sequence[Value]) -> set[int]:
    """Return the inputs to save only for their sizes: they have free axes that no other input of `reverse` has."""
    known = {axis for value in (*saved, *joint.cotangents) for axis in _axes_known_from(value)}
    found = set()
    for value in joint.inputs:
        if not _axes_known_from(value) <= known:
            found.add(value.number)
            known |= _axes_known_from(value)
    return found


def _axes_known_from(value: Value) -> set[Any]:
    """Return the free axes whose sizes follow from a tensor: those of which one of its sizes is a multiple."""
    sizes: list[Any] = [size for size in value.sizes if not isinstance(size, int) and len(size.free_symbols) == 1]
    return {next(iter(size.free_symbols)) for size in sizes if size.as_coefficient(*size.free_symbols) is not None}
