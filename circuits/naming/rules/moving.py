"""Naming rules of permuting, squeezing, expanding, repeating, and reading or writing a diagonal."""

from typing import Any

import torch

from circuits.naming.axes import AxisNode
from circuits.naming.derivation import prime, scaled, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, canonical_dim, canonical_dims, rule
from circuits.naming.sizes import same_size


@rule("permute")
def permute(operation: Operation, names: Names) -> None:
    """The axes are permuted."""
    axes = names.of(operation.inputs[0])
    dims = canonical_dims(operation.sequence(1, "dims"), len(axes))
    names.put(operation.outputs[0], [axes[dim] for dim in dims])


@rule("transpose swapaxes swapdims")
def transpose(operation: Operation, names: Names) -> None:
    """Two axes are swapped."""
    first = operation.get(1, "dim0", operation.kwargs.get("axis0"))
    second = operation.get(2, "dim1", operation.kwargs.get("axis1"))
    _swap(operation, names, first, second)


@rule("t")
def transposed_matrix(operation: Operation, names: Names) -> None:
    """The two axes of a matrix are swapped; a vector is unchanged."""
    _swap(operation, names, 0, -1)


@rule("adjoint", also=[torch.Tensor.mT.__get__, torch.Tensor.mH.__get__])  # pyright: ignore[reportAttributeAccessIssue]
def adjoint(operation: Operation, names: Names) -> None:
    """The last two axes are swapped."""
    _swap(operation, names, -2, -1)


def _swap(operation: Operation, names: Names, first: int, second: int) -> None:
    """Swap the axes at two positions; a scalar is unchanged."""
    axes = list(names.of(operation.inputs[0]))
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    names.put(operation.outputs[0], axes)


@rule(also=[torch.Tensor.T.__get__, torch.Tensor.H.__get__])  # pyright: ignore[reportAttributeAccessIssue]
def reverse_axes(operation: Operation, names: Names) -> None:
    """All axes are in reverse order."""
    names.put(operation.outputs[0], names.of(operation.inputs[0])[::-1])


@rule("movedim moveaxis")
def movedim(operation: Operation, names: Names) -> None:
    """Some axes are moved to other positions; the others keep their order."""
    axes = names.of(operation.inputs[0])
    sources = canonical_dims(operation.get(1, "source"), len(axes))
    targets = canonical_dims(operation.get(2, "destination"), len(axes))
    rest = iter([axis for position, axis in enumerate(axes) if position not in sources])
    order = [axes[sources[targets.index(dim)]] if dim in targets else next(rest) for dim in range(len(axes))]
    names.put(operation.outputs[0], order)


@rule("rot90")
def rot90(operation: Operation, names: Names) -> None:
    """Two axes are swapped if the number of turns is odd."""
    first, second = operation.get(2, "dims", [0, 1])
    _swap(operation, names, first, second if operation.get(1, "k", 1) % 2 else first)


@rule("squeeze")
def squeeze(operation: Operation, names: Names) -> None:
    """Axes of size 1 are removed; the others keep their names."""
    axes = names.of(operation.inputs[0])
    dims = canonical_dims(operation.sequence(1, "dim"), len(axes))
    kept = [axis for position, axis in enumerate(axes) if position not in dims or not same_size(axis.root.size, 1)]
    names.put(operation.outputs[0], kept)


@rule("unsqueeze")
def unsqueeze(operation: Operation, names: Names) -> None:
    """An axis of size 1 is inserted."""
    axes = names.of(operation.inputs[0])
    position = canonical_dim(operation.get(1, "dim"), len(axes) + 1)
    names.put(operation.outputs[0], [*axes[:position], AxisNode(1), *axes[position:]])


@rule("expand broadcast_to")
def expand(operation: Operation, names: Names) -> None:
    """Expanded and new axes have no name; axes whose size is unchanged keep their names."""
    output = operation.outputs[0]
    shape, axes = names.shapes[output], names.of(operation.inputs[0])
    names.put(output, [*names.fresh(shape[: len(shape) - len(axes)]), *axes])


@rule("expand_as")
def expand_as(operation: Operation, names: Names) -> None:
    """The output has the axes of the other tensor; the input's axes of equal size are unified with them."""
    axes, others = (names.of(number) for number in operation.inputs[:2])
    for here, there in zip(reversed(axes), reversed(others), strict=False):
        unify(here, there)
    names.put(operation.outputs[0], others)


@rule("repeat tile")
def repeat(operation: Operation, names: Names) -> None:
    """A repeated axis is a multiple, `2*h`; new axes come first and have no name."""
    output = operation.outputs[0]
    shape, axes = names.shapes[output], names.of(operation.inputs[0])
    lead = len(shape) - len(axes)
    names.put(output, [*names.fresh(shape[:lead]), *map(_repeated, axes, shape[lead:])])


def _repeated(axis: AxisNode, size: Any) -> AxisNode:
    """Return the multiple of an axis that has this size; an axis without a name if the axis has size 1."""
    return AxisNode(size) if same_size(axis.root.size, 1) else scaled(axis, size)


@rule("repeat_interleave")
def repeat_interleave(operation: Operation, names: Names) -> None:
    """The repeated axis is a multiple, `2*h`; without `dim` torch flattens the input, and only vectors are named."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    dim = operation.get(2, "dim", 0 if len(axes) == 1 else None)
    if dim is not None and isinstance(operation.get(1, "repeats"), int):
        dim = canonical_dim(dim, len(axes))
        names.put(output, [*axes[:dim], _repeated(axes[dim], names.shapes[output][dim]), *axes[dim + 1 :]])


@rule("diagonal")
def diagonal(operation: Operation, names: Names) -> None:
    """The axes `dim1` and `dim2` are removed; the axis of the diagonal, last, is that of `dim1` if its size agrees."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    dims = canonical_dims([operation.get(2, "dim1", 0), operation.get(3, "dim2", 1)], len(axes))
    names.put(output, [*[axis for position, axis in enumerate(axes) if position not in dims], axes[dims[0]]])


@rule("diag_embed")
def diag_embed(operation: Operation, names: Names) -> None:
    """The last axis is followed by a distinct axis of its size, `h h'`; unnamed if `offset` or dimensions are given."""
    axes = names.of(operation.inputs[0])
    if len(operation.args) < 2 and not operation.kwargs:
        names.put(operation.outputs[0], [*axes, prime(axes[-1])])


@rule("diag")
def diag(operation: Operation, names: Names) -> None:
    """The output is a matrix `h h'` for a vector `h`; for a matrix, a vector with its first axis if the size agrees."""
    axes = names.of(operation.inputs[0])
    names.put(operation.outputs[0], [axes[0], prime(axes[0])] if len(axes) == 1 else axes[:1])
