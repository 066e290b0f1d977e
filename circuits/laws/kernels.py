"""The law of kernels: a kernel computes what its definition computes, also in half precision and beside NaN."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from circuits.checking import definitions
from circuits.laws.called_circuits import circuits_in
from circuits.laws.comparison import assert_gradients_close, assert_outputs_close
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.gradients import values_and_gradients
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import DoesNotApply, Subject
from circuits.signature import Rest

HALF_PRECISION = (torch.float16, torch.bfloat16)

LARGE = 128.0
"""The magnitude of large inputs: in float16, whose largest number is 65504, the sum of four products overflows."""

ORIGINS = ("by the kernel", "by the definition")


@smallest_counterexample
def kernel(
    f: Any,
    /,
    *,
    dtypes: Iterable[torch.dtype] | None = None,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """Kernels, of the circuit and of the circuits it calls, have the outputs and gradients of the definitions.

    The law is checked with no optional tensor, with each of them alone, and with all of them; each time with contiguous
    inputs, and then with inputs that are transposed in memory. In half precision: with none and with all, contiguous.

    Two checks are of numbers that kernels and definitions easily treat differently:

    - In float16 the definition of a circuit that itself has a kernel gets large inputs: its outputs may overflow only
      where those of the kernel do.
    - For each bool input and each of its axes, the last index of this axis is False in the bool input, and NaN in the
      other inputs that have the axis: NaN that a mask hides must have the same effect in both.

    Args:
        f: A circuit.
        dtypes: The dtypes in which to compare; a dtype in which the circuit cannot compute is left out. None: float64
            and float32, and half precision if the circuit itself has a kernel: over the layers of a model that calls
            circuits with kernels, differences in rounding grow beyond any tolerance.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: A kernel and its definition differ by more than the tolerance of the dtype.
        DoesNotApply: No kernel runs.

    >>> from circuits import circuit
    >>> double = circuit("a -> a")(lambda x: x + x)
    >>> _ = double.kernel(lambda x: 2 * x)
    >>> kernel(double)
    """
    subject = Subject("kernel", f, sizes, inputs, seed, arguments)
    if not any(circuit.has_kernel for circuit in circuits_in(subject)):
        raise DoesNotApply(f"laws.kernel: no circuit with a kernel runs in {subject.circuit.title}")
    if dtypes is None:
        dtypes = (torch.float64, torch.float32, *(HALF_PRECISION if subject.circuit.has_kernel else ()))
    for dtype in dtypes:
        converted = subject if dtype == subject.dtype else subject.to(dtype)
        if _can_compute(converted):
            _check_numbers(converted)
            _check_large_numbers(converted)
    _check_hidden_numbers(subject)


def _can_compute(subject: Subject) -> bool:
    """Return whether kernel and definition have results and gradients in the subject's dtype.

    Some operations do not exist in half precision, and a function may hold tensors of another dtype.
    """
    try:
        _by_both(subject, subject.tensors())
    except (RuntimeError, TypeError) as error:
        if any(text in f"{error}" for text in ("dtype", "not implemented for", "same type")):
            return False
        raise
    return True


def _check_numbers(subject: Subject) -> None:
    """Compare outputs and gradients, in all layouts and with each subset of the optional tensors; fewer if half."""
    half = subject.dtype in HALF_PRECISION
    layouts = {"contiguous": torch.clone} if half else {"contiguous": torch.clone, "transposed": _transposed}
    for optional in subject.none_and_all() if half else subject.optional_subsets():
        for layout, arrange in layouts.items():
            tensors = {name: arrange(each) for name, each in subject.tensors(optional).items()}
            _compare(subject, tensors, layout, *[f"with {name}" for name in optional])


def _check_large_numbers(subject: Subject) -> None:
    """Check, in float16, that the outputs of the definition are finite for large inputs where those of the kernel are.

    Only for a kernel of the circuit itself: how large the inputs of other kernels become is not known. The reverse is
    not checked, nor gradients: they overflow in sums whose order differs.
    """
    if subject.dtype != torch.float16 or not subject.circuit.has_kernel:
        return
    tensors = subject.tensors()
    for name, each in tensors.items():
        if each.is_floating_point() and subject.sources.get(name) is None:
            tensors[name] = LARGE * each.sign()
    (values, _), (expected, _) = _by_both(subject, tensors)
    held = [
        one.where(one.isfinite() & ~other.isfinite(), other) if one.shape == other.shape else one
        for one, other in zip(values, expected, strict=True)
    ]
    assert_outputs_close(subject, held, expected, ORIGINS, f"float16, inputs 1 and -1 times {LARGE:.0f}")


def _check_hidden_numbers(subject: Subject) -> None:
    """Compare outputs and gradients if an index is False in a bool input, and NaN in other inputs with its axis."""
    for mask in subject.circuit.slots:
        optional = (mask.name,) if mask.name in subject.optional else ()
        tensors = subject.tensors(optional)
        if mask.name not in tensors or tensors[mask.name].dtype != torch.bool:
            continue
        for axis in [f"{term}" for term in mask.axes if not isinstance(term, Rest)]:
            hidden = _without_last(subject, tensors, mask.name, subject.axis_sizes.twins.get(axis, axis))
            _compare(subject, hidden, f"NaN where {axis} is the last, and {mask.name} is False there")


def _without_last(subject: Subject, tensors: Mapping[str, Tensor], mask: str, axis: str) -> dict[str, Tensor]:
    """Return the tensors with False, in the mask, and NaN, in floating tensors, at the last index of an axis."""
    changed = dict(tensors)
    for slot in subject.circuit.slots:
        each = tensors.get(slot.name)
        if each is None or not (slot.name == mask or each.is_floating_point()):
            continue
        fill = False if slot.name == mask else torch.nan
        for place, term in enumerate(slot.axes, -len(slot.axes)):  # `...` comes first
            if axis in (f"{term}", subject.axis_sizes.twins.get(f"{term}")):
                changed[slot.name] = each.index_fill(place, torch.tensor(each.shape[place] - 1), fill)
    return changed


def _compare(subject: Subject, tensors: Mapping[str, Tensor], *notes: str) -> None:
    """Raise BrokenLaw unless kernel and definition have equal outputs and gradients.

    The tolerance is that of the dtype; for gradients, and in float16, ten times as large, as the results of the
    operations in between are rounded too (that of bfloat16 allows for it).
    """
    (values, gradients), (expected, expected_gradients) = _by_both(subject, tensors)
    note = ", ".join([f"{subject.dtype}".removeprefix("torch."), *notes])
    factor = 10.0 if subject.dtype == torch.float16 else 1.0
    assert_outputs_close(subject, values, expected, ORIGINS, note, tolerance_factor=factor)
    assert_gradients_close(subject, gradients, expected_gradients, ORIGINS, note, tolerance_factor=10.0)


def _by_both(subject: Subject, tensors: Mapping[str, Tensor]) -> list[tuple[list[Tensor], dict[str, Any]]]:
    """Return the outputs and gradients by the kernel, then those by the definition."""
    found = values_and_gradients(subject, subject.f, tensors)
    with definitions():
        return [found, values_and_gradients(subject, subject.f, tensors)]


def _transposed(tensor: Tensor) -> Tensor:
    """Return an equal tensor with its last two axes swapped in memory; one with fewer than two axes is cloned."""
    return tensor.mT.clone(memory_format=torch.contiguous_format).mT if tensor.ndim > 1 else tensor.clone()
