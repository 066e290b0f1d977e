"""Naming rules of operations that work along some axes and keep all: softmax, sorting, normalisation layers."""

from circuits.naming.derivation import divided, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Note, Operation, canonical_dim, over, rule


@rule("softmax log_softmax softmin")
def softmax(operation: Operation, names: Names) -> Note:
    """All axes are kept; the note names the normalized one.

    Without a dimension that is, as in torch, the first axis of tensors of rank 0, 1 or 3, else the second.
    """
    axes = names.of(operation.inputs[0])
    names.put(operation.outputs[0], axes)
    dim = operation.get(1, "dim")
    return over(axes, [canonical_dim((0 if len(axes) in (0, 1, 3) else 1) if dim is None else dim, len(axes))])


@rule("gumbel_softmax")
def gumbel_softmax(operation: Operation, names: Names) -> Note:
    """All axes are kept; the note names the normalized one."""
    return _keep_axes(operation, names, operation.get(4, "dim", -1))


@rule("normalize")
def normalize(operation: Operation, names: Names) -> Note:
    """All axes are kept; the note names the normalized one."""
    return _keep_axes(operation, names, operation.get(2, "dim", 1))


@rule("sort argsort")
def sort(operation: Operation, names: Names) -> Note:
    """All axes are kept; the note names the sorted one, which `sort(stable=True, dim=0)` takes by name only."""
    dim = operation.get(1, "dim", -1)
    return _keep_axes(operation, names, operation.kwargs.get("dim", -1) if isinstance(dim, bool) else dim)


def _keep_axes(operation: Operation, names: Names, dim: int) -> Note:
    """Set the axes of every output to those of the input; return the note for the axis at `dim`."""
    axes = names.of(operation.inputs[0])
    for output in operation.outputs:
        names.put(output, axes)
    return over(axes, [canonical_dim(dim, len(axes))]) if axes else None


@rule("glu")
def glu(operation: Operation, names: Names) -> Note:
    """One axis is split into two halves, which are unified; the output has one of them."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(1, "dim", -1), len(axes))
    size = names.shapes[operation.outputs[0]][dim]
    first, second = divided(axes[dim], [size, size])
    unify(first, second)
    names.put(operation.outputs[0], [*axes[:dim], first, *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("batch_norm instance_norm native_batch_norm cudnn_batch_norm")
def batch_norm(operation: Operation, names: Names) -> None:
    """All axes are kept; parameters and statistics have the channel axis, the second."""
    _normalize(operation, names, 1)


@rule("group_norm native_group_norm local_response_norm")
def group_norm(operation: Operation, names: Names) -> None:
    """All axes are kept; parameters have the channel axis, the second."""
    _normalize(operation, names, 1)


@rule("layer_norm rms_norm native_layer_norm")
def layer_norm(operation: Operation, names: Names) -> None:
    """All axes are kept; parameters have the last axes."""
    _normalize(operation, names, -1)


def _normalize(operation: Operation, names: Names, position: int) -> None:
    """Set the axes of the output to those of the input; unify the parameters' axes with the normalized ones."""
    source, *learned = operation.inputs
    axes = names.of(source)
    for number in learned:
        weight = names.of(number)
        if len(weight) == 1:
            unify(axes[position], weight[0])
        elif position == -1 and 0 < len(weight) <= len(axes):
            for here, there in zip(axes[-len(weight) :], weight, strict=True):
                unify(here, there)
    names.put(operation.outputs[0], axes)
