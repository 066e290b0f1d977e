"""Naming rules of operations along an axis that keep all axes: softmax, sorting, normalisation layers."""

from circuits.naming.derivation import divided, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Note, Operation, canonical_dim, over, rule


@rule("softmax log_softmax softmin")
def softmax(operation: Operation, names: Names) -> Note:
    """All axes are kept; the note names the normalized one.

    If no dimension is given, torch normalizes the first axis of tensors of rank 0, 1 or 3, else the second.
    """
    rank = len(names.of(operation.inputs[0]))
    return _keep_axes(operation, names, operation.get(1, "dim", 0 if rank in (0, 1, 3) else 1))


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
    """All axes are kept; the note names the sorted one. `dim` is keyword-only in `x.sort(stable=True, dim=0)`."""
    dim = operation.get(1, "dim", -1)
    return _keep_axes(operation, names, operation.kwargs.get("dim", -1) if isinstance(dim, bool) else dim)


def _keep_axes(operation: Operation, names: Names, dim: int) -> Note:
    """Set the axes of every output to those of the input; return the note for the axis at `dim`."""
    axes = names.of(operation.inputs[0])
    for output in operation.outputs:
        names.put(output, axes)
    return over(axes, [canonical_dim(dim, len(axes))])


@rule("glu")
def glu(operation: Operation, names: Names) -> Note:
    """The axis at `dim` is split into two halves, which are unified and replace it."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(1, "dim", -1), len(axes))
    size = names.shapes[operation.outputs[0]][dim]
    first, second = divided(axes[dim], [size, size])
    unify(first, second)
    names.put(operation.outputs[0], [*axes[:dim], first, *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("batch_norm instance_norm native_batch_norm cudnn_batch_norm")
def batch_norm(operation: Operation, names: Names) -> None:
    """All axes are kept; the axis of parameters and statistics is unified with the channel axis, the second."""
    _normalize(operation, names, 1)


@rule("group_norm native_group_norm local_response_norm")
def group_norm(operation: Operation, names: Names) -> None:
    """All axes are kept; the axis of the parameters is unified with the channel axis, the second."""
    _normalize(operation, names, 1)


@rule("layer_norm rms_norm native_layer_norm")
def layer_norm(operation: Operation, names: Names) -> None:
    """All axes are kept; the axes of the parameters are unified with the last axes."""
    _normalize(operation, names, -1)


def _normalize(operation: Operation, names: Names, position: int) -> None:
    """Set the axes of the output to those of the input; unify the only axis of a parameter with that at `position`.

    For position -1 the parameters may have several axes, which are unified with the last ones.
    """
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
