"""Naming rules of concatenating, stacking and splitting."""

import torch

from circuits.naming.axes import AxisNode
from circuits.naming.derivation import concatenated, divided, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Note, Operation, canonical_dim, over, rule


@rule("cat concat concatenate")
def cat(operation: Operation, names: Names) -> Note:
    """The axes at one dimension are concatenated, `c+d` or `2*c`; the others are unified."""
    dim = operation.get(1, "dim", operation.kwargs.get("axis", 0))
    return _concatenate(operation, names, canonical_dim(dim, len(names.shapes[operation.outputs[0]])))


@rule("hstack")
def hstack(operation: Operation, names: Names) -> Note:
    """The second axis, or the only axis of vectors, is concatenated; the others are unified."""
    return _concatenate(operation, names, min(1, len(names.shapes[operation.inputs[0]]) - 1))


@rule("vstack row_stack")
def vstack(operation: Operation, names: Names) -> Note:
    """The first axis is concatenated, a vector counting as one row; the others are unified."""
    return _concatenate(operation, names, 0)


def _concatenate(operation: Operation, names: Names, dim: int) -> Note:
    """Concatenate the axes at `dim` and unify the others; nothing is named if an input has another rank."""
    output = operation.outputs[0]
    shape = names.shapes[output]
    sides = [names.of(number) for number in operation.inputs]
    sides = [[AxisNode(1), *side] if len(side) == 1 and len(shape) == 2 and dim == 0 else side for side in sides]
    if any(len(side) != len(shape) for side in sides):
        return None
    for side in sides[1:]:
        for position, (here, there) in enumerate(zip(sides[0], side, strict=True)):
            if position != dim:
                unify(here, there)
    joined = concatenated([side[dim] for side in sides], shape[dim])
    axes = [*sides[0][:dim], joined, *sides[0][dim + 1 :]]
    names.put(output, axes)
    return over(axes, [dim])


@rule("stack")
def stack(operation: Operation, names: Names) -> None:
    """The axes of the inputs are unified; the axis at `dim` is new."""
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
    """One axis is split: into the axes that it was concatenated from if the sizes agree, else as by `divided`."""
    return _split(operation, names, operation.get(2, "dim", 0))


@rule("hsplit")
def hsplit(operation: Operation, names: Names) -> Note:
    """The second axis, or the only axis of a vector, is split."""
    return _split(operation, names, min(1, len(names.shapes[operation.inputs[0]]) - 1))


@rule("vsplit")
def vsplit(operation: Operation, names: Names) -> Note:
    """The first axis is split."""
    return _split(operation, names, 0)


def _split(operation: Operation, names: Names, dim: int) -> Note:
    """Split the axis at `dim`, one piece per output; each output keeps the other axes."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(dim, len(axes))
    pieces = divided(axes[dim], [names.shapes[output][dim] for output in operation.outputs])
    for piece, output in zip(pieces, operation.outputs, strict=True):
        names.put(output, [*axes[:dim], piece, *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("unbind")
def unbind(operation: Operation, names: Names) -> Note:
    """The unbound axis is removed; there is one output for each of its indices."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(1, "dim", 0), len(axes))
    for output in operation.outputs:
        names.put(output, axes[:dim] + axes[dim + 1 :])
    return over(axes, [dim])


@rule("dstack column_stack")
def stack_columns_or_depth(operation: Operation, names: Names) -> None:
    """The third axis is concatenated by dstack, the second by column_stack; unnamed if an input lacks that axis."""
    if all(len(names.shapes[number]) > 1 + (operation.function is torch.dstack) for number in operation.inputs):
        _concatenate(operation, names, 2 if operation.function is torch.dstack else 1)
