"""Comparison of tensors; the message gives the index of the first number that differs, with the names of its axes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from circuits.checking import Slot
from circuits.errors import CircuitError
from circuits.laws.subject import Subject
from circuits.signature import Axes, Rest, normalized

TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 1e-3}
"""The tolerance of each dtype, relative to the largest number of the tensor or to 1, whichever is larger.

They are those of torch.testing.assert_close, except for float32, where the sum of a few hundred numbers has a larger
rounding error than torch's 1.3e-6.
"""


class BrokenLaw(AssertionError):
    """A law does not hold.

    Attributes:
        subject: The subject of the law.
        finding: The lines of the message that describe the error, without the title, the sizes and the seed.
    """

    subject: Subject
    finding: str


def fail(subject: Subject, *lines: str) -> NoReturn:
    """Raise BrokenLaw with a message: law, circuit, `lines`, sizes, seed, and the place where it is declared."""
    head = f"laws.{subject.law}: {subject.circuit.title}"
    details = [*lines, subject.describe_sizes(), f"declared at {subject.circuit.where}"]
    broken = BrokenLaw("\n  ".join([head, *details]))
    broken.subject, broken.finding = subject, " ".join(lines)
    raise broken


def assert_close(
    subject: Subject,
    name: str,
    axes: Axes | None,
    found: Tensor,
    expected: Tensor,
    origins: tuple[str, str],
    *notes: str,
    tolerance_factor: float = 1.0,
) -> None:
    """Raise BrokenLaw unless two tensors have the same shape and are equal up to rounding.

    Args:
        subject: The subject of the law.
        name: The name of the tensor, for the message.
        axes: The axes of the tensor, for the message; None if they have no names.
        found: The tensor under test.
        expected: The tensor it should equal.
        origins: How each of the two was computed, for the message: `("by the kernel", "by the definition")`.
        notes: Further lines of the message.
        tolerance_factor: A factor on the tolerance of the dtype.
    """
    if found.shape != expected.shape:
        shapes = f"{_shape_text(found)} {origins[0]}, {_shape_text(expected)} {origins[1]}"
        fail(subject, f"{name} has the shape {shapes}", *notes)
    tolerance = tolerance_factor * _tolerance(found, expected)
    if found.dtype == torch.bool or not found.numel():
        differs = found != expected
    else:
        scale = torch.nan_to_num(expected.abs().double(), 0, 0, 0).max().item()
        wide = torch.complex128 if found.is_complex() or expected.is_complex() else torch.float64
        differs = ~torch.isclose(
            found.to(wide), expected.to(wide), rtol=tolerance, atol=tolerance * max(1.0, scale), equal_nan=True
        )
    if differs.any():
        index = tuple(differs.nonzero()[0].tolist())
        texts = [number_text(each[index]) for each in (found, expected)]
        fail(
            subject,
            f"{name}{index_text(axes, index)} is {texts[0]} {origins[0]}, {texts[1]} {origins[1]}",
            f"{differs.sum()} of {differs.numel()} numbers differ",
            *notes,
        )


def assert_outputs_close(
    subject: Subject,
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    origins: tuple[str, str],
    *notes: str,
    tolerance_factor: float = 1.0,
) -> None:
    """Raise BrokenLaw unless two lists of outputs have equal lengths and tensors; arguments as for `assert_close`."""
    if len(found) != len(expected):
        fail(subject, f"there are {len(found)} outputs {origins[0]}, {len(expected)} {origins[1]}", *notes)
    for slot, one, other in zip(output_slots(subject, len(found)), found, expected, strict=True):
        assert_close(subject, slot.name, slot.axes, one, other, origins, *notes, tolerance_factor=tolerance_factor)


def output_slots(subject: Subject, count: int) -> Sequence[Slot]:
    """Return the declarations of a circuit's outputs (name, axes, dtype).

    Raises:
        BrokenLaw: The circuit returned more or fewer outputs than its signature has.
    """
    slots = subject.circuit.results
    if len(slots) != count:
        fail(subject, f"the circuit returns {count} tensors, but the signature has {len(slots)} outputs")
    return slots


def assert_gradients_close(
    subject: Subject,
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    origins: tuple[str, str],
    *notes: str,
    tolerance_factor: float = 1.0,
) -> None:
    """Raise BrokenLaw unless gradients with the same name are equal; None means a gradient of zeros."""
    axes = {slot.name: slot.axes for slot in subject.circuit.slots}
    for name, one in found.items():
        other = expected[name]
        if one is None and other is None:
            continue
        one = torch.zeros_like(other) if one is None else one
        other = torch.zeros_like(one) if other is None else other
        title = f"the gradient of {name}"
        assert_close(subject, title, axes.get(name), one, other, origins, *notes, tolerance_factor=tolerance_factor)


def axis_dims(subject: Subject, axes: Axes, axis: str, tensor: Tensor) -> list[int]:
    """Return the dimensions of a tensor that have the name `axis`; for `...`, all dimensions that it stands for.

    Raises:
        CircuitError: The axis occurs only as part of a group or of a derived axis.
    """
    axis = normalized(axis)
    has_lead = axes[:1] == (Rest(),)
    leading = tensor.ndim - len(axes) + 1 if has_lead else 0
    if axis == "...":
        return list(range(leading))
    found = [
        dim + (leading - 1 if has_lead else 0)
        for dim, term in enumerate(axes)
        if axis in (f"{term}", subject.axis_sizes.twins.get(f"{term}"))
    ]
    inside = [term for term in axes if axis in term.names and f"{term}" != axis]
    if inside and not found:
        whole, title = inside[0], subject.circuit.title
        raise CircuitError(f"laws.{subject.law}: {axis} is part of {whole} in {title}; pass '{whole}' instead")
    return found


def index_text(axes: Axes | None, index: Sequence[int]) -> str:
    """Return an index, written with the names of its axes.

    >>> from circuits.signature import parse_axes
    >>> index_text(parse_axes("... y (h k)"), (4, 0, 1, 9))
    '[...=4 0 y=1 (h k)=9]'
    """
    if axes is None:
        texts = [f"{place}" for place in index]
    else:
        leading = len(index) - len(axes) + 1
        texts, left = [], list(index)
        for term in axes:
            count = leading if isinstance(term, Rest) else 1
            here, left = left[:count], left[count:]
            texts += [f"{term}={' '.join([f'{place}' for place in here])}"] if here else []
    return f"[{' '.join(texts)}]" if texts else ""


def number_text(number: Tensor) -> str:
    """Return a number as text with five significant digits."""
    value = number.item()
    return f"{value:.5g}" if isinstance(value, float) and math.isfinite(value) else f"{value}"


def _tolerance(*tensors: Tensor) -> float:
    """Return the largest of the tolerances of the tensors' dtypes; 1e-5 for complex dtypes, 0 for integers."""
    return max(TOLERANCES.get(tensor.dtype, 0.0 if not tensor.is_complex() else 1e-5) for tensor in tensors)


def _shape_text(tensor: Tensor) -> str:
    """Return the shape of a tensor as text."""
    return " ".join([f"{size}" for size in tensor.shape]) or "one number"
