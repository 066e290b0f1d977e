"""Laws of dependence: what one index of the output may see of the input.

Dependence is read off the Jacobian, row by row: the gradient of a random sum of all that stands at one index of the
output. Inputs that are not floating have none; there one index is drawn anew, and what else changes is told.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from circuits.laws.comparison import fail, places, results
from circuits.laws.counterexample import small
from circuits.laws.subject import DoesNotApply, Sizes, Source, Subject, seeded

Allowed = Callable[[int, int], bool]
"""Whether index i of the output may depend on index j of the input."""


@small
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
    """Index i of an axis of the output depends on index i of the input, and on no other: no leak across a batch.

    With `of`, index i of the output's axis on index i of that axis of the input. "..." is every axis that it stands
    for. DoesNotApply where no input or no output has the axis.

    >>> from circuits import circuit
    >>> independent(circuit("b m -> b m")(lambda x: x.softmax(-1)), "b")
    """
    subject = Subject("independent", f, sizes, inputs, seed, arguments)
    _depends(subject, axis, of or axis, lambda i, j: i == j, "of which it may see the same index alone")


@small
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
    """Index i of an axis of the output sees index i of the input and those before it: no look-ahead.

    With `of`, those of that axis of the input; with `reach=w`, the last w of them, itself included. It must see the
    first and the last of what it may see: a mask shifted either way breaks the law.

    >>> from circuits import circuit
    >>> causal(circuit("x -> x")(lambda x: x.cumsum(0)), "x")
    """
    subject = Subject("causal", f, sizes, inputs, seed, arguments)
    said = "and may see those up to it" if reach is None else f"and may see the last {reach}, itself included"
    _depends(subject, axis, of or axis, lambda i, j: j <= i and (reach is None or i - j < reach), said, edges=True)


# --- What an index sees ----------------------------------------------------------------------------------------------


def _depends(subject: Subject, axis: str, source: str, allowed: Allowed, said: str, *, edges: bool = False) -> None:
    """Every output's index against every input's; with `edges`, the ends of what is allowed must be seen."""
    looked = False
    for optional in subject.extremes():
        tensors = subject.tensors(optional)
        with torch.no_grad():
            answer = subject(tensors)
        for number, (slot, result) in enumerate(zip(results(subject, len(answer)), answer, strict=True)):
            for level, place in enumerate(places(subject, slot.axes, axis, result)):
                seen = _seen(subject, tensors, number, place, source, level)
                looked |= bool(seen)
                _judge(subject, (slot.name, axis), source, seen, allowed, said, edges)
    if not looked:
        raise DoesNotApply(
            f"laws.{subject.law}: no input has {source}, or no output {axis}, in {subject.circuit.title}"
        )


def _seen(subject: Subject, tensors: Mapping[str, Tensor], number: int, place: int, source: str, level: int) -> Any:
    """By input and axis: a matrix of how strongly index i of one output's axis depends on index j of the input's."""
    axes = {slot.name: slot.axes for slot in subject.circuit.slots}
    found = {}
    for name, tensor in tensors.items():
        ends = places(subject, axes[name], source, tensor)
        for end in ends[level : level + 1] if source == "..." else ends:
            matrix = _by_gradient(subject, tensors, number, place, name, end)
            flat = matrix is None or not matrix.any()  # a step has a gradient, and it is zero
            found[name, end] = _by_trial(subject, tensors, number, place, name, end) if flat else matrix
    return found


def _by_gradient(
    subject: Subject, tensors: Mapping[str, Tensor], number: int, place: int, name: str, end: int
) -> Tensor | None:
    """Rows of the Jacobian, summed by random weights; None where there is no gradient."""
    tensor = tensors[name]
    if not tensor.is_floating_point():
        return None
    asked = tensor.clone().requires_grad_()
    answer = subject({**tensors, name: asked})[number]
    if not answer.requires_grad or not answer.numel():
        return None
    with seeded(subject.seed + 1):
        weights = torch.randn_like(answer)
    rows = []
    for i in range(answer.shape[place]):
        alone = torch.zeros_like(weights)
        alone.select(place, i).copy_(weights.select(place, i))
        (gradient,) = torch.autograd.grad(answer, asked, alone, retain_graph=True, allow_unused=True)
        rows.append(_strongest(torch.zeros_like(tensor) if gradient is None else gradient, end))
    return torch.stack(rows)


def _by_trial(subject: Subject, tensors: Mapping[str, Tensor], number: int, place: int, name: str, end: int) -> Tensor:
    """How far the output moves when one index of the input is drawn anew, the most of three draws."""
    optional = [each for each in tensors if each in subject.circuit.optional]
    with torch.no_grad():
        answer = subject(tensors)[number]
        columns = []
        for j in range(tensors[name].shape[end]):
            moved = torch.zeros(answer.shape[place], dtype=torch.float64)
            for draw in (1, 2, 3):
                other = tensors[name].clone()
                other.select(end, j).copy_(subject.tensors(optional, draw=draw)[name].select(end, j))
                change = subject({**tensors, name: other})[number].double() - answer.double()
                moved = torch.maximum(moved, _strongest(change, place))
            columns.append(moved)
    return torch.stack(columns, 1)


def _strongest(tensor: Tensor, place: int) -> Tensor:
    """The largest of the numbers at each index of one axis; what is no number counts as large."""
    sizes = torch.nan_to_num(tensor.abs().double(), torch.inf).movedim(place, 0)
    return sizes.reshape(len(sizes), -1).amax(1) if tensor.numel() else sizes.new_zeros(len(sizes))


def _judge(
    subject: Subject,
    output: tuple[str, str],
    source: str,
    seen: Mapping[tuple[str, int], Tensor],
    allowed: Allowed,
    said: str,
    edges: bool,
) -> None:
    """AssertionError at the first index that sees what it may not, or does not see the ends of what it may."""
    name, axis = output
    least = 1e-10 if subject.dtype == torch.float64 else 1e-5
    for (giver, _), matrix in seen.items():
        bound = least * matrix[matrix.isfinite()].max().clamp(min=1e-300).item() if matrix.isfinite().any() else 0.0
        for i, j in (matrix > bound).nonzero().tolist():
            if not allowed(i, j):
                fail(
                    subject,
                    f"{name} at {axis}={i} depends on {giver} at {source}={j}, {said}",
                    f"by {matrix[i, j]:.3g}",
                )
    givers = [matrix for (giver, _), matrix in seen.items() if giver in subject.circuit.inputs]
    if edges and givers:
        together = torch.stack(givers).amax(0)
        for i in range(together.shape[0]):
            may = [j for j in range(together.shape[1]) if allowed(i, j)]
            for j in {*may[:1], *may[-1:]}:
                if together[i, j] <= least * together.max():
                    fail(subject, f"{name} at {axis}={i} does not depend on {source}={j}, {said}")
