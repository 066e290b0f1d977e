"""Tensors laid end to end or stacked, and cut again."""

import torch

from circuits.naming.axes import AxisNode
from circuits.naming.derivation import concatenated, divided, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Note, Operation, canonical_dim, over, rule


@rule("cat concat concatenate")
def cat(operation: Operation, names: Names) -> Note:
    """All axes meet but one, which is laid end to end."""
    dim = operation.get(1, "dim", operation.kwargs.get("axis", 0))
    return _laid(operation, names, canonical_dim(dim, len(names.shapes[operation.outputs[0]])))


@rule("hstack")
def hstack(operation: Operation, names: Names) -> Note:
    """The second axis, or the only one."""
    return _laid(operation, names, min(1, len(names.shapes[operation.inputs[0]]) - 1))


@rule("vstack row_stack")
def vstack(operation: Operation, names: Names) -> Note:
    """The first axis; vectors are rows."""
    return _laid(operation, names, 0)


def _laid(operation: Operation, names: Names, dim: int) -> Note:
    output = operation.outputs[0]
    shape = names.shapes[output]
    sides = [names.of(number) for number in operation.inputs]
    sides = [[AxisNode(1), *side] if len(side) == 1 and len(shape) == 2 and dim == 0 else side for side in sides]
    if any(len(side) != len(shape) for side in sides):
        return None
    for side in sides[1:]:
        for place, (here, there) in enumerate(zip(sides[0], side, strict=True)):
            if place != dim:
                unify(here, there)
    joined = concatenated([side[dim] for side in sides], shape[dim])
    axes = [*sides[0][:dim], joined, *sides[0][dim + 1 :]]
    names.put(output, axes)
    return over(axes, [dim])


@rule("stack")
def stack(operation: Operation, names: Names) -> None:
    """All axes meet; a new one counts the tensors."""
    output = operation.outputs[0]
    shape = names.shapes[output]
    dim = canonical_dim(operation.get(1, "dim", 0), len(shape))
    first, *others = [names.of(number) for number in operation.inputs]
    for side in others:
        for here, there in zip(first, side, strict=True):
            unify(here, there)
    names.put(output, [*first[:dim], AxisNode(shape[dim]), *first[dim:]])


@rule("split chunk tensor_split split_with_sizes unsafe_split unsafe_chunk unsafe_split_with_sizes")
def split(operation: Operation, names: Names) -> Note:
    """One axis is cut: into what it was put together from, if the sizes say so, else into parts."""
    return _cut(operation, names, operation.get(2, "dim", 0))


@rule("hsplit")
def hsplit(operation: Operation, names: Names) -> Note:
    """The second axis, or the only one."""
    return _cut(operation, names, min(1, len(names.shapes[operation.inputs[0]]) - 1))


@rule("vsplit")
def vsplit(operation: Operation, names: Names) -> Note:
    """The first axis."""
    return _cut(operation, names, 0)


def _cut(operation: Operation, names: Names, dim: int) -> Note:
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(dim, len(axes))
    pieces = divided(axes[dim], [names.shapes[output][dim] for output in operation.outputs])
    for piece, output in zip(pieces, operation.outputs, strict=True):
        names.put(output, [*axes[:dim], piece, *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("unbind")
def unbind(operation: Operation, names: Names) -> Note:
    """One axis goes; there is an output for each of its indices."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(1, "dim", 0), len(axes))
    for output in operation.outputs:
        names.put(output, axes[:dim] + axes[dim + 1 :])
    return over(axes, [dim])


@rule("dstack column_stack")
def unsure(operation: Operation, names: Names) -> None:
    """Where vectors go depends on how many axes each tensor has: told only if all are matrices or more."""
    if all(len(names.shapes[number]) > 1 + (operation.function is torch.dstack) for number in operation.inputs):
        _laid(operation, names, 2 if operation.function is torch.dstack else 1)
