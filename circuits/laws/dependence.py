"""Laws of dependence: which indexes of an input an index of the output may depend on.

Dependence is measured by the Jacobian: the gradient of a randomly weighted sum of the output at one index. Where an
input has no gradient or a zero one (integers, step functions), one index of it is redrawn at random and the change of
the output is measured.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuits.laws.comparison import axis_dims, fail, output_slots
from circuits.laws.copies import seeded
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import DoesNotApply, Subject

Allowed = Callable[[int, int], bool]
"""Returns whether index i of the output may depend on index j of the input."""


@smallest_counterexample
def independent(
    f: Any,
    /,
    axis: str = "...",
    *,
    of: str | None = None,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """Index i of an axis of the output depends only on index i of the same axis of the inputs: no leak across a batch.

    Args:
        f: A circuit.
        axis: An axis of the output; for "...", each axis that it stands for is checked.
        of: The axis of the inputs, if its name differs from `axis`.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: An index of the output depends on another index of an input.
        DoesNotApply: No input or no output has the axis.

    >>> from circuits import circuit
    >>> independent(circuit("b m -> b m")(lambda x: x.softmax(-1)), "b")
    """
    subject = Subject("independent", f, sizes, inputs, seed, arguments)
    _check_dependence(subject, axis, of or axis, lambda i, j: i == j, "the same index")


@smallest_counterexample
def causal(
    f: Any,
    /,
    axis: str,
    *,
    of: str | None = None,
    reach: int | None = None,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """Index i of an axis of the output depends only on the indexes up to i of an axis of the inputs: no look-ahead.

    It must depend on the first and on the last allowed index, so that a mask shifted in either direction is detected;
    not where an optional bool tensor is passed, which may hide them.

    Args:
        f: A circuit.
        axis: An axis of the output.
        of: The axis of the inputs, if its name differs from `axis`.
        reach: The number of allowed indexes, index i included; if None, all indexes up to i are allowed.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: An index of the output depends on an index that is not allowed, or does not depend on the first
            or on the last allowed index.
        DoesNotApply: No input or no output has the axis.

    >>> from circuits import circuit
    >>> causal(circuit("x -> x")(lambda x: x.cumsum(0)), "x")
    """
    subject = Subject("causal", f, sizes, inputs, seed, arguments)

    def allowed(i: int, j: int) -> bool:
        return j <= i and (reach is None or i - j < reach)

    rule = "the indexes up to its own" if reach is None else f"the last {reach} indexes up to its own"
    _check_dependence(subject, axis, of or axis, allowed, rule, edges=True)


# --- Measuring dependence ---------------------------------------------------------------------------------------------


def _check_dependence(
    subject: Subject, axis: str, source: str, allowed: Allowed, rule: str, *, edges: bool = False
) -> None:
    """Check how all outputs depend on all inputs, without and with the optional tensors.

    `rule` describes the allowed indexes in messages. With `edges`, an index must depend on the first and on the last
    allowed index, unless an optional tensor is bool: a random mask may hide both.
    """
    measured = False
    for optional in subject.none_and_all():
        tensors = subject.tensors(optional)
        hides = any(tensors[name].dtype == torch.bool for name in optional)
        with torch.no_grad():
            outputs = subject(tensors)
        for number, (slot, output) in enumerate(zip(output_slots(subject, len(outputs)), outputs, strict=True)):
            for level, dim in enumerate(axis_dims(subject, slot.axes, axis, output)):
                measures = _measure(subject, tensors, _Output(number, dim), source, level)
                measured |= bool(measures)
                _assert_allowed(subject, (slot.name, axis), source, measures, allowed, rule, edges and not hides)
    if not measured:
        raise DoesNotApply(
            f"laws.{subject.law}: no input of {subject.circuit.title} has the axis {source}, or no output has {axis}"
        )


class _Output(NamedTuple):
    """One dimension of one output."""

    number: int
    dim: int


def _measure(
    subject: Subject, tensors: Mapping[str, Tensor], output: _Output, source: str, level: int
) -> dict[tuple[str, int], Tensor]:
    """Return a matrix for each input and dimension: how strongly index i of the output depends on index j of the input.

    For `...` only dimension number `level` of those that it stands for is measured, as in the output.
    """
    axes = {slot.name: slot.axes for slot in subject.circuit.slots}
    found = {}
    for name, tensor in tensors.items():
        dims = axis_dims(subject, axes[name], source, tensor)
        for dim in dims[level : level + 1] if source == "..." else dims:
            matrix = _by_gradient(subject, tensors, output, name, dim)
            if matrix is None or not matrix.any() or matrix.isnan().any():
                # The gradient of a step is zero, and 0 times an infinite slope is NaN: these do not tell dependence.
                change = _by_change(subject, tensors, output, name, dim)
                matrix = change if matrix is None or not matrix.any() else torch.where(matrix.isnan(), change, matrix)
            found[name, dim] = matrix
    return found


def _by_gradient(
    subject: Subject, tensors: Mapping[str, Tensor], output: _Output, name: str, dim: int
) -> Tensor | None:
    """Return the matrix of `_measure` by gradients of randomly weighted sums of the output; None if there are none.

    It is NaN where a gradient is NaN.
    """
    tensor = tensors[name]
    if not tensor.is_floating_point():
        return None
    leaf = tensor.clone().requires_grad_()
    result = subject({**tensors, name: leaf})[output.number]
    if not result.requires_grad or not result.numel():
        return None
    with seeded(subject.seed + 1):
        weights = torch.randn_like(result)
    rows = []
    for i in range(result.shape[output.dim]):
        at_index = torch.zeros_like(weights)
        at_index.select(output.dim, i).copy_(weights.select(output.dim, i))
        (gradient,) = torch.autograd.grad(result, leaf, at_index, retain_graph=True, allow_unused=True)
        rows.append(_largest(torch.zeros_like(tensor) if gradient is None else gradient, dim, nan=torch.nan))
    return torch.stack(rows)


def _by_change(subject: Subject, tensors: Mapping[str, Tensor], output: _Output, name: str, dim: int) -> Tensor:
    """Return the matrix of `_measure` by the output's largest change when an input index is redrawn three times."""
    optional = [each for each in tensors if each in subject.circuit.optional]
    with torch.no_grad():
        result = subject(tensors)[output.number]
        columns = []
        for j in range(tensors[name].shape[dim]):
            largest = torch.zeros(result.shape[output.dim], dtype=torch.float64)
            for draw in (1, 2, 3):
                redrawn = tensors[name].clone()
                redrawn.select(dim, j).copy_(subject.tensors(optional, draw=draw)[name].select(dim, j))
                changed = subject({**tensors, name: redrawn})[output.number]
                largest = torch.maximum(largest, _largest(_difference(changed, result), output.dim))
            columns.append(largest)
    return torch.stack(columns, 1)


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """Return the difference of two tensors as float64; it is 0 where both are the same infinity or both NaN."""
    one, other = one.double(), other.double()
    return torch.where((one == other) | (one.isnan() & other.isnan()), 0.0, one - other)


def _largest(tensor: Tensor, dim: int, nan: float = torch.inf) -> Tensor:
    """Return the largest absolute value at each index of one dimension; NaN counts as infinity, or as `nan`."""
    sizes = torch.nan_to_num(tensor.abs().double(), nan=nan, posinf=torch.inf).movedim(dim, 0)
    return sizes.reshape(len(sizes), -1).amax(1) if tensor.numel() else sizes.new_zeros(len(sizes))


def _bound(matrix: Tensor, least: float) -> float:
    """Return the size of a dependence that counts as none: `least` times the largest finite one of the matrix."""
    finite = matrix[matrix.isfinite()]
    return least * finite.max().clamp(min=1e-300).item() if finite.numel() else 0.0


def _assert_allowed(
    subject: Subject,
    output: tuple[str, str],
    source: str,
    measures: Mapping[tuple[str, int], Tensor],
    allowed: Allowed,
    rule: str,
    edges: bool,
) -> None:
    """Raise BrokenLaw at the first dependence that is not allowed; with `edges`, also at a missing one."""
    name, axis = output
    least = 1e-10 if subject.dtype == torch.float64 else 1e-5
    for (input_name, _), matrix in measures.items():
        for i, j in (matrix > _bound(matrix, least)).nonzero().tolist():
            if not allowed(i, j):
                fail(
                    subject,
                    f"{name} at {axis}={i} depends on {input_name} at {source}={j}; it may depend only on {rule}",
                    f"size of the dependence {matrix[i, j]:.3g}",
                )
    inputs = [matrix for (input_name, _), matrix in measures.items() if input_name in subject.circuit.inputs]
    if edges and inputs:
        together = torch.stack(inputs).amax(0)
        for i in range(together.shape[0]):
            within = [j for j in range(together.shape[1]) if allowed(i, j)]
            for j in {*within[:1], *within[-1:]}:
                if together[i, j] <= _bound(together, least):
                    fail(
                        subject,
                        f"{name} at {axis}={i} does not depend on {source}={j}; "
                        f"it must depend on the first and the last of {rule}",
                    )
