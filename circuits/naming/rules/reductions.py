"""Naming rules of reductions: the reduced axes are removed, and the note names them."""

import torch

from circuits.diagram import Wire
from circuits.naming.axes import AxisNode
from circuits.naming.derivation import unify
from circuits.naming.names import Names
from circuits.naming.rules.pointwise import broadcast
from circuits.naming.rules.registry import Note, Operation, canonical_dims, over, rule


@rule(
    "sum mean prod amax amin aminmax nanmedian median std var std_mean var_mean logsumexp all any argmax argmin",
    "nansum nanmean count_nonzero",
)
def reduction(operation: Operation, names: Names) -> Note:
    """The reduced axes, all if no dimension is given, are removed; the others keep their names."""
    return _reduce(operation, names, 1)


@rule("max min")
def max_or_min(operation: Operation, names: Names) -> Note:
    """The reduced axes, all if no dimension is given, are removed; the axes of two tensors are broadcast."""
    if isinstance(operation.raw(1, "other"), Wire):
        broadcast(operation.inputs, operation.outputs[0], names)
        return None
    return _reduce(operation, names, 1)


@rule("mode")
def mode(operation: Operation, names: Names) -> Note:
    """The reduced axis, the last if no dimension is given, is removed."""
    return _reduce(operation, names, 1, -1)


@rule("kthvalue")
def kthvalue(operation: Operation, names: Names) -> Note:
    """The reduced axis, the last if no dimension is given, is removed; k is the argument before the dimension."""
    return _reduce(operation, names, 2, -1)


@rule("norm linalg_norm linalg_vector_norm vector_norm")
def norm(operation: Operation, names: Names) -> Note:
    """The reduced axes, all if no dimension is given, are removed; the order is the argument before the dimensions."""
    return _reduce(operation, names, 2)


@rule("matrix_norm linalg_matrix_norm")
def matrix_norm(operation: Operation, names: Names) -> Note:
    """The reduced axes, the last two if no dimension is given, are removed."""
    return _reduce(operation, names, 2, [-2, -1])


@rule("quantile nanquantile")
def quantile(operation: Operation, names: Names) -> Note:
    """The reduced axes, all if no dimension is given, are removed; the axis of a vector of quantiles comes first."""
    several = operation.tensor(1, "q")
    lead = [] if several is None else list(names.of(several))
    return _reduce(operation, names, 2, lead=lead)


def _reduce(
    operation: Operation,
    names: Names,
    position: int,
    default: int | list[int] | None = None,
    lead: list[AxisNode] | None = None,
) -> Note:
    """Name the outputs of a reduction and return the note; no note if all axes are reduced.

    Args:
        operation: The recorded call.
        names: The axes of all values.
        position: The position of the argument that lists the reduced dimensions.
        default: The dimensions that are reduced if none are passed; None for all.
        lead: Axes that precede the kept axes in the outputs.
    """
    axes, front = names.of(operation.inputs[0]), lead or []
    dims = operation.get(position, "dim", operation.kwargs.get("axis", default))
    removed = canonical_dims(default if isinstance(dims, bool) else dims, len(axes))
    for output in operation.outputs:
        shape = names.shapes[output][len(front) :]
        kept = [axis for position, axis in enumerate(axes) if position not in removed]
        if len(shape) == len(axes):
            kept = [AxisNode(1) if position in removed else axis for position, axis in enumerate(axes)]
        names.put(output, front + kept)
    return over(axes, removed) if len(removed) < len(axes) else None


@rule("cosine_similarity pairwise_distance")
def pairwise(operation: Operation, names: Names) -> None:
    """The axes of both tensors are unified and the reduced one is removed; unnamed if their ranks differ."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    dim = operation.get(2, "dim", 1) if operation.function is not torch.pairwise_distance else -1
    if len(left) == len(right):
        for here, there in zip(left, right, strict=True):
            unify(here, there)
        names.put(operation.outputs[0], [axis for position, axis in enumerate(left) if position != dim % len(left)])


@rule("cdist")
def cdist(operation: Operation, names: Names) -> None:
    """The last axes are unified and removed; the second's second-to-last axis comes last; unnamed if ranks differ."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    unify(left[-1], right[-1])
    if len(left) == len(right):
        names.put(operation.outputs[0], [*left[:-1], right[-2]])


@rule("cross_entropy nll_loss")
def class_loss(operation: Operation, names: Names) -> None:
    """The class axis, the second, is removed if the loss is not reduced to a scalar."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    if len(axes) > 1 and names.shapes[output]:
        names.put(output, [axes[0], *axes[2:]])


@rule("trace")
def trace(operation: Operation, names: Names) -> None:
    """Both axes of the matrix are unified and removed."""
    first, second = names.of(operation.inputs[0])
    unify(first, second)
