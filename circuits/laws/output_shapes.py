"""The law of shapes: outputs have the axes of the signature, and inputs that contradict it are refused."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.checking import checks, has_rest
from circuits.errors import ShapeError
from circuits.laws.comparison import fail, output_slots
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import Subject
from circuits.signature import Axes, Rest, show_axes, unknown


@smallest_counterexample
def shapes(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """Outputs have the axes of the signature, whatever `...` stands for; contradicting input sizes raise ShapeError.

    No numbers are computed, because the tensors are on the meta device (except for a function that holds tensors, which
    cannot run there). The circuit's own check is off while its outputs are checked.

    Args:
        f: A circuit.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: The shape of an output contradicts the signature, or contradicting inputs raise no ShapeError.

    >>> from circuits import circuit
    >>> shapes(circuit("a b -> b a")(lambda x: x.mT))
    """
    subject = Subject("shapes", f, sizes, inputs, seed, arguments)
    has_lead = any(has_rest(slot.axes) for slot in subject.circuit.slots)
    leads: list[tuple[int, ...]] = [subject.lead]
    if has_lead and "..." not in (sizes or {}):
        leads += [(), (*subject.lead, 53)]
    device = _to_meta(subject)
    for optional, lead in itertools.product(subject.none_and_all(), leads):
        tensors = {name: each.to(device) for name, each in subject.tensors(optional, lead=lead).items()}
        with checks(False):
            found = subject(tensors)
        _check_shapes(subject, found, lead)
        _check_refusals(subject, tensors)


def _to_meta(subject: Subject) -> torch.device:
    """Move the copy to the meta device and return that device.

    A function that holds tensors cannot run there: its inputs stay on the device of the subject.
    """
    meta = torch.device("meta")
    if subject.module is not None:
        subject.module.to(meta)
        return meta
    try:
        with checks(False):
            subject({name: each.to(meta) for name, each in subject.tensors().items()})
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in f"{error}" and "device" not in f"{error}":
            raise
        return subject.device
    return meta


def _check_shapes(subject: Subject, found: Sequence[Tensor], lead: Sequence[int]) -> None:
    """Raise BrokenLaw unless the shapes are those of the signature.

    An axis that only outputs have may have any size, but must have the same size in all outputs.
    """
    sizes = dict(subject.sizes)
    for slot, tensor in zip(output_slots(subject, len(found)), found, strict=True):
        leading = len(lead) if has_rest(slot.axes) else 0
        named = [term for term in slot.axes if not isinstance(term, Rest)]
        matches = tensor.ndim == leading + len(named) and tuple(tensor.shape[:leading]) == tuple(lead)[:leading]
        for term, size in zip(named, tensor.shape[leading:], strict=False):
            if unknown(term, sizes):
                sizes |= {name: size for name in term.names if f"{term}" == name}
            else:
                matches &= term.size(sizes) == size
        if not matches:
            known = [f"{term.size(sizes) if not unknown(term, sizes) else term}" for term in named]
            fail(
                subject,
                f"{slot.name} [{show_axes(slot.axes)}] has the shape {_shape_text(tensor.shape)}, "
                f"but the signature says {_shape_text([*lead[:leading], *known])}",
                *_input_shapes(subject, lead),
            )


def _check_refusals(subject: Subject, tensors: Mapping[str, Tensor]) -> None:
    """Raise BrokenLaw unless a contradicting size raises ShapeError.

    Each axis that occurs more than once in the inputs, or whose size is fixed, is made longer by 1 in one input.
    """
    stated = [(name, dim - len(axes), term) for name, axes in _inputs(subject) for dim, term in enumerate(axes)]
    for name, dim, term in stated:
        others = [each for each in stated if each[2] == term and each[:2] != (name, dim)]
        if isinstance(term, Rest) or not (others or {*term.names} <= {*subject.circuit.fixed}):
            continue
        shape = list(tensors[name].shape)
        shape[dim] += 1
        clash = {**tensors, name: tensors[name].new_empty(shape)}
        try:
            with checks(True):
                subject(clash)
        except ShapeError:
            continue
        fail(
            subject,
            f"no ShapeError is raised if {term} has size {shape[dim]} in {name} and {shape[dim] - 1} elsewhere",
        )


def _input_shapes(subject: Subject, lead: Sequence[int]) -> list[str]:
    """Return a line for each input with its shape."""
    shapes = {name: subject.shape(axes, lead=lead) for name, axes in _inputs(subject)}
    return [f"{name} has the shape {_shape_text(shape)}" for name, shape in shapes.items()]


def _inputs(subject: Subject) -> list[tuple[str, Axes]]:
    """Return the names and axes of the inputs of the signature."""
    return [(slot.name, slot.axes) for slot in subject.circuit.slots if slot.role == "input"]


def _shape_text(sizes: Sequence[Any]) -> str:
    """Return a shape as text."""
    return " ".join([f"{size}" for size in sizes]) or "one number"
