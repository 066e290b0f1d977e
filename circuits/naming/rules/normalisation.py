"""Operations that work along some axes and keep them all: softmax and its like, sorting, normalisations."""

from circuits.naming.derivation import divided, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Note, Operation, canonical_dim, over, rule


@rule("softmax log_softmax softmin")
def softmax(operation: Operation, names: Names) -> Note:
    """The same axes; where no axis is told, torch takes the second of an even number, else the first."""
    axes = names.of(operation.inputs[0])
    names.put(operation.outputs[0], axes)
    dim = operation.get(1, "dim")
    return over(axes, [canonical_dim((0 if len(axes) in (0, 1, 3) else 1) if dim is None else dim, len(axes))])


@rule("gumbel_softmax")
def gumbel_softmax(operation: Operation, names: Names) -> Note:
    """The same axes."""
    return _along(operation, names, operation.get(4, "dim", -1))


@rule("normalize")
def normalize(operation: Operation, names: Names) -> Note:
    """The same axes."""
    return _along(operation, names, operation.get(2, "dim", 1))


@rule("sort argsort")
def sort(operation: Operation, names: Names) -> Note:
    """The same axes; `sort(stable=True, dim=0)` has its axis by name alone."""
    dim = operation.get(1, "dim", -1)
    return _along(operation, names, operation.kwargs.get("dim", -1) if isinstance(dim, bool) else dim)


def _along(operation: Operation, names: Names, dim: int) -> Note:
    axes = names.of(operation.inputs[0])
    for output in operation.outputs:
        names.put(output, axes)
    return over(axes, [canonical_dim(dim, len(axes))]) if axes else None


@rule("glu")
def glu(operation: Operation, names: Names) -> Note:
    """One axis is cut in two halves, which meet."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(1, "dim", -1), len(axes))
    size = names.shapes[operation.outputs[0]][dim]
    first, second = divided(axes[dim], [size, size])
    unify(first, second)
    names.put(operation.outputs[0], [*axes[:dim], first, *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("batch_norm instance_norm native_batch_norm cudnn_batch_norm")
def over_batch(operation: Operation, names: Names) -> None:
    """The same axes; what is learned belongs to the channels."""
    _normalised(operation, names, 1)


@rule("group_norm native_group_norm local_response_norm")
def over_group(operation: Operation, names: Names) -> None:
    """The same axes; what is learned belongs to the channels."""
    _normalised(operation, names, 1)


@rule("layer_norm rms_norm native_layer_norm")
def over_last(operation: Operation, names: Names) -> None:
    """The same axes; what is learned has the last of them."""
    _normalised(operation, names, -1)


def _normalised(operation: Operation, names: Names, place: int) -> None:
    source, *learned = operation.inputs
    axes = names.of(source)
    for number in learned:
        weight = names.of(number)
        if len(weight) == 1:
            unify(axes[place], weight[0])
        elif place == -1 and 0 < len(weight) <= len(axes):
            for here, there in zip(axes[-len(weight) :], weight, strict=True):
                unify(here, there)
    names.put(operation.outputs[0], axes)
