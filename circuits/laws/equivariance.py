"""Laws of moving: what comes out when an axis of what goes in is permuted, or shifted."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.errors import CircuitError
from circuits.laws.comparison import agree, places, results
from circuits.laws.counterexample import small
from circuits.laws.subject import DoesNotApply, Sizes, Source, Subject, seeded


@small
def equivariant(
    f: Any,
    /,
    axis: str = "...",
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """Permuting an axis of the inputs permutes it in the output; an output that lacks it stays as it is.

    >>> from circuits import circuit
    >>> equivariant(circuit("x m -> x m")(lambda x: x - x.mean(0)), "x")
    """
    subject = Subject("equivariant", f, sizes, inputs, seed, arguments)
    for optional in subject.extremes():
        tensors = subject.tensors(optional)
        size = _size(subject, axis, tensors)
        with seeded(seed):
            order = torch.randperm(size)
            order = order.roll(1) if torch.equal(order, torch.arange(size)) else order
        changed = {
            slot.name: _permuted(tensors[slot.name], places(subject, slot.axes, axis, tensors[slot.name]), order)
            for slot in subject.circuit.slots
            if slot.name in tensors
        }
        answer, found = subject(tensors), subject(changed)
        for slot, mine, its in zip(results(subject, len(found)), found, answer, strict=True):
            expected = _permuted(its, places(subject, slot.axes, axis, its), order)
            note = f"{axis} in the order {' '.join([f'{i}' for i in order.tolist()])}"
            agree(
                subject,
                slot.name,
                slot.axes,
                mine,
                expected,
                (f"when {axis} is permuted before", "when it is permuted after"),
                note,
            )


@small
def shifting(
    f: Any,
    /,
    axis: str,
    to: str | None = None,
    *,
    by: int = 1,
    moves: int = 1,
    border: int = 0,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """Shifting an axis of the input `by` places shifts axis `to` of the output by `moves`, as windows do.

    What comes out at either end, `border` places and those that were shifted in, is not compared. A convolution of
    stride s moves by 1 when the input moves by s; its padding is a border.

    >>> from circuits import circuit
    >>> shifting(circuit("... x -> ... y")(lambda x: x[..., 1:] - x[..., :-1]), "x", "y")
    """
    subject = Subject("shifting", f, sizes, inputs, seed, arguments)
    to = to or axis
    longer = subject.tensors(sizes={**subject.sizes, axis: subject.sizes[axis] + by})
    slots = [slot for slot in subject.circuit.slots if slot.name in longer]
    moved = []
    for start in (0, by):
        parts = {}
        for slot in slots:
            part = longer[slot.name]
            for place in places(subject, slot.axes, axis, part):
                part = part.narrow(place, start, subject.sizes[axis])
            parts[slot.name] = part
        moved.append(subject(parts))
    for slot, before, after in zip(results(subject, len(moved[0])), *moved, strict=True):
        for place in places(subject, slot.axes, to, after):
            kept = after.shape[place] - moves - 2 * border
            if kept < 1:
                raise CircuitError(f"laws.shifting: {to} is {after.shape[place]} long, and nothing is left to compare")
            mine, its = (each.narrow(place, start, kept) for each, start in ((after, border), (before, border + moves)))
            note = f"{to} is counted from place {border}; {axis} was shifted by {by}"
            agree(
                subject,
                slot.name,
                slot.axes,
                mine,
                its,
                (f"when {axis} is shifted before", "when the output is shifted after"),
                note,
            )


def _size(subject: Subject, axis: str, tensors: Mapping[str, Tensor]) -> int:
    """How long an axis of the inputs is."""
    for slot in subject.circuit.slots:
        found = places(subject, slot.axes, axis, tensors[slot.name]) if slot.name in tensors else []
        if found:
            return tensors[slot.name].shape[found[0]]
    raise DoesNotApply(f"laws.{subject.law}: no input has {axis} in {subject.circuit.title}")


def _permuted(tensor: Tensor, places: Sequence[int], order: Tensor) -> Tensor:
    for place in places:
        tensor = tensor.index_select(place, order)
    return tensor
