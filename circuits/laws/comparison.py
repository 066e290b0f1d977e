"""Hold two tensors against each other, and word the first number that differs by the names of its axes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from circuits.checking import Slot
from circuits.errors import CircuitError
from circuits.laws.subject import Subject
from circuits.signature import Axes, Rest

NEAR = {torch.float64: 1e-7, torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 1e-3}
"""How far rounding may take a number, as a share of the largest of its tensor, or of 1 if that is larger.

As torch.testing.assert_close has it, but for float32, where a sum over a few hundred numbers rounds more than 1.3e-6.
"""


class Broken(AssertionError):
    """A law that does not hold: of which subject, and what was found."""

    subject: Subject
    what: str


def fail(subject: Subject, *lines: str) -> NoReturn:
    """AssertionError: the law and the circuit, what was found, and how to find it again."""
    head = f"laws.{subject.law}: {subject.circuit.title}"
    said = [*lines, subject.said(), f"declared at {subject.circuit.where}"]
    broken = Broken("\n  ".join([head, *said]))
    broken.subject, broken.what = subject, " ".join(lines)
    raise broken


def agree(
    subject: Subject,
    name: str,
    axes: Axes | None,
    found: Tensor,
    expected: Tensor,
    words: tuple[str, str],
    *notes: str,
    room: float = 1.0,
) -> None:
    """AssertionError unless both are one tensor up to rounding; `words` say where each came from."""
    if found.shape != expected.shape:
        shapes = [f"{words[0]} {name} is {_sizes(found)}", f"{words[1]} it is {_sizes(expected)}"]
        fail(subject, ", ".join(shapes), *notes)
    near = room * _near(found, expected)
    if found.dtype == torch.bool or not found.numel():
        apart = found != expected
    else:
        scale = torch.nan_to_num(expected.abs().double(), 0, 0, 0).max().item()
        wide = torch.complex128 if found.is_complex() or expected.is_complex() else torch.float64
        apart = ~torch.isclose(
            found.to(wide), expected.to(wide), rtol=near, atol=near * max(1.0, scale), equal_nan=True
        )
    if apart.any():
        index = tuple(apart.nonzero()[0].tolist())
        mine, its = (shown(each[index]) for each in (found, expected))
        fail(
            subject,
            f"{name}{at(axes, index)} is {mine} {words[0]}, {its} {words[1]}",
            f"{apart.sum()} of {apart.numel()} numbers differ",
            *notes,
        )


def agree_all(
    subject: Subject,
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    words: tuple[str, str],
    *notes: str,
    room: float = 1.0,
) -> None:
    """The same for all that a circuit gives."""
    if len(found) != len(expected):
        fail(subject, f"{len(found)} tensors {words[0]}, {len(expected)} {words[1]}", *notes)
    for slot, mine, its in zip(results(subject, len(found)), found, expected, strict=True):
        agree(subject, slot.name, slot.axes, mine, its, words, *notes, room=room)


def results(subject: Subject, count: int) -> Sequence[Slot]:
    """The slots of what comes out; AssertionError where there are more or fewer than the signature has."""
    slots = subject.circuit.results
    if len(slots) != count:
        fail(subject, f"{count} tensors come out, but the signature has {len(slots)}")
    return slots


def agree_by_name(
    subject: Subject,
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    words: tuple[str, str],
    *notes: str,
    room: float = 1.0,
) -> None:
    """The same for gradients; None is a gradient of zeros."""
    axes = {slot.name: slot.axes for slot in subject.circuit.slots}
    for name, mine in found.items():
        its = expected[name]
        if mine is None and its is None:
            continue
        mine = torch.zeros_like(its) if mine is None else mine
        its = torch.zeros_like(mine) if its is None else its
        agree(subject, f"the gradient of {name}", axes.get(name), mine, its, words, *notes, room=room)


def places(subject: Subject, axes: Axes, axis: str, tensor: Tensor) -> list[int]:
    """Where an axis stands in a tensor; for `...`, all that it stands for."""
    ahead = tensor.ndim - len(axes) + 1
    if axis == "...":
        return list(range(ahead)) if axes[:1] == (Rest(),) else []
    led = axes[:1] == (Rest(),)
    found = [
        place + (ahead - 1 if led else 0)
        for place, term in enumerate(axes)
        if axis in (f"{term}", subject.twins.get(f"{term}"))
    ]
    inside = [term for term in axes if axis in term.names and f"{term}" != axis]
    if inside and not found:
        raise CircuitError(
            f"laws.{subject.law}: {axis} stands inside {inside[0]} of {subject.circuit.title}; name that"
        )
    return found


def at(axes: Axes | None, index: Sequence[int]) -> str:
    """An index in the names of its axes.

    >>> from circuits.signature import parse_axes
    >>> at(parse_axes("... y (h k)"), (4, 0, 1, 9))
    '[...=4 0 y=1 (h k)=9]'
    """
    if axes is None:
        words = [f"{place}" for place in index]
    else:
        ahead = len(index) - len(axes) + 1
        words, places = [], list(index)
        for term in axes:
            taken = ahead if isinstance(term, Rest) else 1
            here, places = places[:taken], places[taken:]
            words += [f"{term}={' '.join([f'{place}' for place in here])}"] if here else []
    return f"[{' '.join(words)}]" if words else ""


def shown(number: Tensor) -> str:
    """A number in few digits."""
    value = number.item()
    return f"{value:.5g}" if isinstance(value, float) and math.isfinite(value) else f"{value}"


def _near(*tensors: Tensor) -> float:
    return max(NEAR.get(tensor.dtype, 0.0 if not tensor.is_complex() else 1e-5) for tensor in tensors)


def _sizes(tensor: Tensor) -> str:
    return " ".join([f"{size}" for size in tensor.shape]) or "one number"
