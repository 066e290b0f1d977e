"""Laws of equivariance: how the outputs change when an axis of the inputs is permuted or shifted."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.errors import CircuitError
from circuits.laws.comparison import assert_close, axis_dims, output_slots
from circuits.laws.copies import seeded
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import DoesNotApply, Subject


@smallest_counterexample
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
    """If an axis of the inputs is permuted, so are the outputs; an output without the axis does not change.

    Args:
        f: A circuit.
        axis: An axis of the inputs; for "...", all axes that it stands for are permuted, those of one size in the same
            way.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: The outputs for permuted inputs are not the permuted outputs.
        DoesNotApply: No input has the axis.

    >>> from circuits import circuit
    >>> equivariant(circuit("x m -> x m")(lambda x: x - x.mean(0)), "x")
    """
    subject = Subject("equivariant", f, sizes, inputs, seed, arguments)
    for optional in subject.none_and_all():
        tensors = subject.tensors(optional)
        orders = {size: _order(size, seed) for size in _sizes(subject, axis, tensors)}
        permuted = {
            slot.name: _permuted(tensors[slot.name], axis_dims(subject, slot.axes, axis, tensors[slot.name]), orders)
            for slot in subject.circuit.slots
            if slot.name in tensors
        }
        outputs, found = subject(tensors), subject(permuted)
        for slot, one, other in zip(output_slots(subject, len(found)), found, outputs, strict=True):
            expected = _permuted(other, axis_dims(subject, slot.axes, axis, other), orders)
            order = ", ".join([" ".join([f"{i}" for i in each.tolist()]) for each in orders.values()])
            note = f"the order of {axis} is {order}"
            assert_close(
                subject,
                slot.name,
                slot.axes,
                one,
                expected,
                (f"when {axis} of the inputs is permuted", f"when {axis} of the output is permuted"),
                note,
            )


@smallest_counterexample
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
    """If an axis of the inputs is shifted, an axis of the output is shifted too, as in convolutions and pools.

    The output of a convolution with stride s is shifted by 1 if its input is shifted by s. Not compared are the outputs
    at indexes that the shift brings in, and `border` indexes at either end, which padding affects.

    Args:
        f: A circuit.
        axis: The axis of the inputs.
        to: The axis of the output, if its name differs from `axis`.
        by: The number of indexes by which the inputs are shifted.
        moves: The number of indexes by which the output must be shifted.
        border: The number of indexes at either end of the output that are not compared.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: The outputs for shifted inputs are not the shifted outputs.
        CircuitError: The output is too small to compare anything.

    >>> from circuits import circuit
    >>> shifting(circuit("... x -> ... y")(lambda x: x[..., 1:] - x[..., :-1]), "x", "y")
    """
    subject = Subject("shifting", f, sizes, inputs, seed, arguments)
    to = to or axis
    longer = subject.tensors(sizes={**subject.sizes, axis: subject.sizes[axis] + by})
    unshifted, shifted = (subject(_window(subject, longer, axis, start)) for start in (0, by))
    for slot, before, after in zip(output_slots(subject, len(unshifted)), unshifted, shifted, strict=True):
        for dim in axis_dims(subject, slot.axes, to, after):
            kept = after.shape[dim] - moves - 2 * border
            if kept < 1:
                raise CircuitError(f"laws.shifting: {to} has size {after.shape[dim]}, too small to compare anything")
            assert_close(
                subject,
                slot.name,
                slot.axes,
                after.narrow(dim, border, kept),
                before.narrow(dim, border + moves, kept),
                (f"when the inputs are shifted along {axis}", f"when the output is shifted along {to}"),
                f"{to}=0 is index {border} of the output; the inputs are shifted by {by}",
            )


def _window(subject: Subject, longer: Mapping[str, Tensor], axis: str, start: int) -> dict[str, Tensor]:
    """Return slices of the inputs along an axis: from index `start` on, with the axis's size in `subject.sizes`."""
    window = {}
    for slot in subject.circuit.slots:
        if slot.name in longer:
            part = longer[slot.name]
            for dim in axis_dims(subject, slot.axes, axis, part):
                part = part.narrow(dim, start, subject.sizes[axis])
            window[slot.name] = part
    return window


def _sizes(subject: Subject, axis: str, tensors: Mapping[str, Tensor]) -> list[int]:
    """Return the sizes of an axis of the inputs, of which "..." may have several, each once.

    Raises:
        DoesNotApply: No input has the axis.
    """
    found: dict[int, None] = {}
    for slot in subject.circuit.slots:
        if slot.name in tensors:
            tensor = tensors[slot.name]
            found |= dict.fromkeys([tensor.shape[dim] for dim in axis_dims(subject, slot.axes, axis, tensor)])
    if not found:
        raise DoesNotApply(f"laws.{subject.law}: no input of {subject.circuit.title} has the axis {axis}")
    return list(found)


def _order(size: int, seed: int) -> Tensor:
    """Return a random permutation of an axis of this size, other than the identity if there is one."""
    with seeded(seed):
        order = torch.randperm(size)
    return order.roll(1) if torch.equal(order, torch.arange(size)) else order


def _permuted(tensor: Tensor, dims: Sequence[int], orders: Mapping[int, Tensor]) -> Tensor:
    """Return a tensor permuted along some dimensions, each in the order for its size."""
    for dim in dims:
        tensor = tensor.index_select(dim, orders[tensor.shape[dim]])
    return tensor
