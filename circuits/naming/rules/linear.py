"""Naming rules of linear and bilinear maps: an axis of one tensor is unified with an axis of another and removed."""

import torch

from circuits.naming.axes import AxisNode
from circuits.naming.derivation import prime, unify
from circuits.naming.names import Names
from circuits.naming.patterns import name_by_pattern
from circuits.naming.rules.pointwise import broadcast
from circuits.naming.rules.registry import Note, Operation, canonical_dims, rule
from circuits.naming.sizes import same_size


def distinct_from(axes: list[AxisNode], others: list[AxisNode]) -> list[AxisNode]:
    """Return `axes` as they are named beside `others` in one tensor: an axis that is also in `others` gets a prime."""
    roots = [axis.root for axis in others]
    return [prime(axis) if axis.root in roots else axis for axis in axes]


@rule("linear")
def linear(operation: Operation, names: Names) -> None:
    """The last axis is contracted with the weight's last and replaced by the weight's first."""
    axes, weight = (names.of(number) for number in operation.inputs[:2])
    unify(axes[-1], weight[-1])
    for bias in operation.inputs[2:]:
        if names.of(bias):
            unify(weight[0], names.of(bias)[-1])
    names.put(operation.outputs[0], [*axes[:-1], *distinct_from(weight[:-1], axes[:-1])])


@rule("matmul mm bmm mv dot vdot", also=[torch.Tensor.__matmul__])
def matmul(operation: Operation, names: Names) -> None:
    """The last axis of the first tensor is contracted with the last but one of the second, or with its only one."""
    first, second = operation.inputs
    multiply(first, second, operation.outputs[0], names)


@rule("rmatmul", also=[torch.Tensor.__rmatmul__])
def reflected_matmul(operation: Operation, names: Names) -> None:
    """As matmul, for `other @ self`."""
    second, first = operation.inputs
    multiply(first, second, operation.outputs[0], names)


@rule("addmm addmv baddbmm")
def matmul_and_add(operation: Operation, names: Names) -> None:
    """The last two tensors are multiplied as by matmul; the axes of the first are unified with those of the product."""
    added, first, second = operation.inputs
    multiply(first, second, operation.outputs[0], names)
    _unify_added(added, operation.outputs[0], names)


def _unify_added(added: int, output: int, names: Names) -> None:
    """Unify the axes of an added tensor with those of the output, aligned at the right."""
    for here, there in zip(reversed(names.of(output)), reversed(names.of(added)), strict=False):
        unify(here, there)


def multiply(first: int, second: int, output: int, names: Names) -> None:
    """Name the axes of the product of two matrices or vectors, whose leading axes are broadcast."""
    left, right = names.of(first), names.of(second)
    unify(left[-1], right[-2] if len(right) > 1 else right[-1])
    kept = _broadcast(left[:-2], right[:-2], names.shapes[output]) + left[-2:-1]
    names.put(output, kept + distinct_from(right[-1:] if len(right) > 1 else [], kept))


def _broadcast(left: list[AxisNode], right: list[AxisNode], shape: tuple[int, ...]) -> list[AxisNode]:
    """Return the leading axes of a product, broadcast from the right; a named axis is preferred to an unnamed one."""
    found: list[AxisNode] = []
    for position in range(1, max(len(left), len(right)) + 1):
        size = shape[max(len(left), len(right)) - position]
        both = [side[-position] for side in (left, right) if position <= len(side)]
        fitting = [axis for axis in both if same_size(axis.root.size, size)]
        if len(fitting) == 2:
            unify(*fitting)
        found.insert(0, next((axis for axis in fitting if axis.label() is not None), (*fitting, AxisNode(size))[0]))
    return found


@rule("inner")
def inner(operation: Operation, names: Names) -> None:
    """The last axes are contracted; the output has the other axes of the first tensor, then those of the second."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    if not left or not right:
        broadcast(operation.inputs, operation.outputs[0], names)
        return
    unify(left[-1], right[-1])
    names.put(operation.outputs[0], left[:-1] + distinct_from(right[:-1], left[:-1]))


@rule("outer ger")
def outer(operation: Operation, names: Names) -> None:
    """The output has the axis of the first vector, then that of the second."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    names.put(operation.outputs[0], left + distinct_from(right, left))


@rule("addr")
def outer_and_add(operation: Operation, names: Names) -> None:
    """As outer, of the last two tensors; the axes of the first are unified with the output's."""
    left, right = (names.of(number) for number in operation.inputs[1:3])
    names.put(operation.outputs[0], left + distinct_from(right, left))
    _unify_added(operation.inputs[0], operation.outputs[0], names)


@rule("bilinear")
def bilinear(operation: Operation, names: Names) -> None:
    """The last axes of both inputs are contracted with the weight's and replaced by the weight's first."""
    left, right, weight = (names.of(number) for number in operation.inputs[:3])
    unify(left[-1], weight[1])
    unify(right[-1], weight[2])
    names.put(operation.outputs[0], [*left[:-1], *distinct_from(weight[:1], left[:-1])])


@rule("tensordot")
def tensordot(operation: Operation, names: Names) -> None:
    """The listed axes are contracted; the others keep their order, those of the first tensor first."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    dims = operation.get(2, "dims", 2)
    pairs = [list(range(len(left) - dims, len(left))), list(range(dims))] if isinstance(dims, int) else dims
    first, second = canonical_dims(pairs[0], len(left)), canonical_dims(pairs[1], len(right))
    first, second = first if pairs[0] else [], second if pairs[1] else []
    for a, b in zip(first, second, strict=True):
        unify(left[a], right[b])
    kept = [axis for position, axis in enumerate(left) if position not in first]
    others = [axis for position, axis in enumerate(right) if position not in second]
    names.put(operation.outputs[0], kept + distinct_from(others, kept))


@rule("einsum")
def torch_einsum(operation: Operation, names: Names) -> Note:
    """The axes are those of the equation, whose letters name axes without a name; the note is the equation."""
    equation = operation.get(0, "equation")
    if not isinstance(equation, str):
        return None
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = "..." * ("..." in left) + "".join(sorted([each for each in set(letters) if letters.count(each) == 1]))
    sides = [", ".join([_spaced(axes) for axes in side.split(",")]) for side in (left, right)]
    name_by_pattern(" -> ".join(sides), operation.inputs, {}, operation.outputs, names)
    return f"'{equation}'"


def _spaced(axes: str) -> str:
    """Return the axes of one tensor separated by spaces, as in einops patterns."""
    return " ".join(axes.replace("...", "…")).replace("…", "...")
