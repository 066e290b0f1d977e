"""Naming rules of linear and bilinear maps: contracted axes of two tensors are unified and removed."""

import torch

from circuits.naming.axes import AxisNode
from circuits.naming.derivation import prime, unify
from circuits.naming.names import Names
from circuits.naming.patterns import name_by_pattern
from circuits.naming.rules.pointwise import broadcast
from circuits.naming.rules.registry import Note, Operation, canonical_dims, rule
from circuits.naming.sizes import same_size


def distinct_from(axes: list[AxisNode], others: list[AxisNode]) -> list[AxisNode]:
    """Return `axes`, with each axis that is also in `others` replaced by a distinct axis, shown with a prime."""
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
    """The last axis of the first tensor is contracted with the second-to-last, or only, axis of the second."""
    first, second = operation.inputs
    multiply(first, second, operation.outputs[0], names)


@rule(also=[torch.Tensor.__rmatmul__])
def reflected_matmul(operation: Operation, names: Names) -> None:
    """Like matmul, with the arguments in reverse order: `other @ self`."""
    second, first = operation.inputs
    multiply(first, second, operation.outputs[0], names)


@rule("addmm addmv baddbmm")
def matmul_and_add(operation: Operation, names: Names) -> None:
    """The last two tensors are multiplied as by matmul; the axes of the first are unified with the output's."""
    added, first, second = operation.inputs
    multiply(first, second, operation.outputs[0], names)
    _unify_added(added, operation.outputs[0], names)


def _unify_added(added: int, output: int, names: Names) -> None:
    """Unify the axes of an added tensor with those of the output, aligned at the right."""
    for here, there in zip(reversed(names.of(output)), reversed(names.of(added)), strict=False):
        unify(here, there)


def multiply(first: int, second: int, output: int, names: Names) -> None:
    """Set the axes of the product of two matrices or vectors; their leading axes are broadcast."""
    left, right = names.of(first), names.of(second)
    unify(left[-1], right[-2] if len(right) > 1 else right[-1])
    kept = _broadcast(left[:-2], right[:-2], names.shapes[output]) + left[-2:-1]
    names.put(output, kept + distinct_from(right[-1:] if len(right) > 1 else [], kept))


def _broadcast(left: list[AxisNode], right: list[AxisNode], shape: tuple[int, ...]) -> list[AxisNode]:
    """Return the broadcast leading axes of a product, aligned at the right; named axes are preferred to others."""
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
    """The output has the axes of the last two tensors, as by outer; the axes of the first are unified with them."""
    left, right = (names.of(number) for number in operation.inputs[1:3])
    names.put(operation.outputs[0], left + distinct_from(right, left))
    _unify_added(operation.inputs[0], operation.outputs[0], names)


@rule("bilinear")
def bilinear(operation: Operation, names: Names) -> None:
    """The last axes of both inputs are contracted with the weight's last two and replaced by the weight's first."""
    left, right, weight = (names.of(number) for number in operation.inputs[:3])
    unify(left[-1], weight[1])
    unify(right[-1], weight[2])
    names.put(operation.outputs[0], [*left[:-1], *distinct_from(weight[:1], left[:-1])])


@rule("tensordot")
def tensordot(operation: Operation, names: Names) -> None:
    """The axes in `dims` are contracted; the output has the other axes of the first tensor, then of the second."""
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
    """The axes are matched with the letters of the equation, which name axes without a name; the note is the equation.

    Operands given as sublists of axis numbers, without an equation, are left unnamed.
    """
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
