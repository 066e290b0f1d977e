"""Reductions: some axes go, and the note says which."""

import torch

from circuits.diagram import Wire
from circuits.naming.axes import AxisNode
from circuits.naming.derivation import unify
from circuits.naming.names import Names
from circuits.naming.rules.pointwise import meet
from circuits.naming.rules.registry import Note, Operation, canonical_dims, over, rule


@rule(
    "sum mean prod amax amin aminmax nanmedian median std var std_mean var_mean logsumexp all any argmax argmin",
    "nansum nanmean count_nonzero",
)
def reduction(operation: Operation, names: Names) -> Note:
    """Over the axes told, or over all."""
    return _over(operation, names, 1)


@rule("max min")
def extreme(operation: Operation, names: Names) -> Note:
    """Over an axis or all; of two tensors, number by number."""
    if isinstance(operation.raw(1, "other"), Wire):
        meet(operation.inputs, operation.outputs[0], names)
        return None
    return _over(operation, names, 1)


@rule("mode")
def mode(operation: Operation, names: Names) -> Note:
    """Over the last axis where none is told."""
    return _over(operation, names, 1, -1)


@rule("kthvalue")
def kthvalue(operation: Operation, names: Names) -> Note:
    """Over the last axis where none is told; which value stands before the axis."""
    return _over(operation, names, 2, -1)


@rule("norm linalg_norm linalg_vector_norm vector_norm")
def norm(operation: Operation, names: Names) -> Note:
    """Over the axes told, or over all; the power stands before them."""
    return _over(operation, names, 2)


@rule("matrix_norm linalg_matrix_norm")
def matrix_norm(operation: Operation, names: Names) -> Note:
    """Over the last two axes where none are told."""
    return _over(operation, names, 2, [-2, -1])


@rule("quantile nanquantile")
def quantile(operation: Operation, names: Names) -> Note:
    """Over an axis or all; several quantiles make an axis in front."""
    several = operation.tensor(1, "q")
    lead = [] if several is None else list(names.of(several))
    return _over(operation, names, 2, lead=lead)


def _over(
    operation: Operation,
    names: Names,
    place: int,
    default: int | list[int] | None = None,
    lead: list[AxisNode] | None = None,
) -> Note:
    axes, front = names.of(operation.inputs[0]), lead or []
    dims = operation.get(place, "dim", operation.kwargs.get("axis", default))
    gone = canonical_dims(default if isinstance(dims, bool) else dims, len(axes))
    for output in operation.outputs:
        shape = names.shapes[output][len(front) :]
        kept = [axis for place, axis in enumerate(axes) if place not in gone]
        if len(shape) == len(axes):
            kept = [AxisNode(1) if place in gone else axis for place, axis in enumerate(axes)]
        names.put(output, front + kept)
    return over(axes, gone) if len(gone) < len(axes) else None


@rule("cosine_similarity pairwise_distance")
def compared(operation: Operation, names: Names) -> None:
    """Two tensors meet, and an axis goes: told only where both have the same axes."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    dim = operation.get(2, "dim", 1) if operation.function is not torch.pairwise_distance else -1
    if len(left) == len(right):
        for here, there in zip(left, right, strict=True):
            unify(here, there)
        names.put(operation.outputs[0], [axis for place, axis in enumerate(left) if place != dim % len(left)])


@rule("cdist")
def cdist(operation: Operation, names: Names) -> None:
    """The last axes meet; the rows of one stand before the rows of the other."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    unify(left[-1], right[-1])
    if len(left) == len(right):
        names.put(operation.outputs[0], [*left[:-1], right[-2]])


@rule("cross_entropy nll_loss")
def loss(operation: Operation, names: Names) -> None:
    """The classes go, if anything is left."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    if len(axes) > 1 and names.shapes[output]:
        names.put(output, [axes[0], *axes[2:]])


@rule("trace")
def trace(operation: Operation, names: Names) -> None:
    """Both axes of a matrix meet and go."""
    first, second = names.of(operation.inputs[0])
    unify(first, second)
