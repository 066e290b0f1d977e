"""Linear maps: an axis of one tensor meets an axis of another and both are gone."""

import torch

from circuits.naming.axes import AxisNode, same_size
from circuits.naming.derivation import prime, unify
from circuits.naming.names import Names, name_by_pattern
from circuits.naming.rules.pointwise import meet
from circuits.naming.rules.registry import Note, Operation, canonical_dims, rule


def apart(axes: list[AxisNode], others: list[AxisNode]) -> list[AxisNode]:
    """`axes` beside `others` in one tensor, which has no axis twice by chance: the second is another of its size."""
    roots = [axis.root for axis in others]
    return [prime(axis) if axis.root in roots else axis for axis in axes]


@rule("linear")
def linear(operation: Operation, names: Names) -> None:
    """The last axis becomes the weight's first."""
    axes, weight = (names.of(number) for number in operation.inputs[:2])
    unify(axes[-1], weight[-1])
    for bias in operation.inputs[2:]:
        if names.of(bias):
            unify(weight[0], names.of(bias)[-1])
    names.put(operation.outputs[0], [*axes[:-1], *apart(weight[:-1], axes[:-1])])


@rule("matmul mm bmm mv dot vdot", also=[torch.Tensor.__matmul__])
def matmul(operation: Operation, names: Names) -> None:
    """The last axis of the first meets the last but one of the second."""
    first, second = operation.inputs
    multiply(first, second, operation.outputs[0], names)


@rule("rmatmul", also=[torch.Tensor.__rmatmul__])
def matmul_from_the_right(operation: Operation, names: Names) -> None:
    """`other @ self`."""
    second, first = operation.inputs
    multiply(first, second, operation.outputs[0], names)


@rule("addmm addmv baddbmm")
def matmul_and_add(operation: Operation, names: Names) -> None:
    """The last two tensors are multiplied, the first is added."""
    added, first, second = operation.inputs
    multiply(first, second, operation.outputs[0], names)
    _add(added, operation.outputs[0], names)


def _add(added: int, output: int, names: Names) -> None:
    for here, there in zip(reversed(names.of(output)), reversed(names.of(added)), strict=False):
        unify(here, there)


def multiply(first: int, second: int, output: int, names: Names) -> None:
    """Name the product of two matrices or vectors, or of as many as their leading axes have."""
    left, right = names.of(first), names.of(second)
    unify(left[-1], right[-2] if len(right) > 1 else right[-1])
    kept = _stretched(left[:-2], right[:-2], names.shapes[output]) + left[-2:-1]
    names.put(output, kept + apart(right[-1:] if len(right) > 1 else [], kept))


def _stretched(left: list[AxisNode], right: list[AxisNode], shape: tuple[int, ...]) -> list[AxisNode]:
    """Leading axes that meet from the right."""
    found: list[AxisNode] = []
    for place in range(1, max(len(left), len(right)) + 1):
        size = shape[max(len(left), len(right)) - place]
        both = [side[-place] for side in (left, right) if place <= len(side)]
        fitting = [axis for axis in both if same_size(axis.root.size, size)]
        if len(fitting) == 2:
            unify(*fitting)
        found.insert(0, next((axis for axis in fitting if axis.label() is not None), (*fitting, AxisNode(size))[0]))
    return found


@rule("inner")
def inner(operation: Operation, names: Names) -> None:
    """The last axes meet; the others of the first stand before the others of the second."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    if not left or not right:
        meet(operation.inputs, operation.outputs[0], names)
        return
    unify(left[-1], right[-1])
    names.put(operation.outputs[0], left[:-1] + apart(right[:-1], left[:-1]))


@rule("outer ger")
def outer(operation: Operation, names: Names) -> None:
    """Every number of one vector with every number of another."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    names.put(operation.outputs[0], left + apart(right, left))


@rule("addr")
def outer_and_add(operation: Operation, names: Names) -> None:
    """The last two are multiplied so, the first is added."""
    left, right = (names.of(number) for number in operation.inputs[1:3])
    names.put(operation.outputs[0], left + apart(right, left))
    _add(operation.inputs[0], operation.outputs[0], names)


@rule("bilinear")
def bilinear(operation: Operation, names: Names) -> None:
    """The last axes of both become the weight's first."""
    left, right, weight = (names.of(number) for number in operation.inputs[:3])
    unify(left[-1], weight[1])
    unify(right[-1], weight[2])
    names.put(operation.outputs[0], [*left[:-1], *apart(weight[:1], left[:-1])])


@rule("tensordot")
def tensordot(operation: Operation, names: Names) -> None:
    """The listed axes meet, the others stay in order."""
    left, right = (names.of(number) for number in operation.inputs[:2])
    dims = operation.get(2, "dims", 2)
    pairs = [list(range(len(left) - dims, len(left))), list(range(dims))] if isinstance(dims, int) else dims
    first, second = canonical_dims(pairs[0], len(left)), canonical_dims(pairs[1], len(right))
    first, second = first if pairs[0] else [], second if pairs[1] else []
    for a, b in zip(first, second, strict=True):
        unify(left[a], right[b])
    kept = [axis for place, axis in enumerate(left) if place not in first]
    others = [axis for place, axis in enumerate(right) if place not in second]
    names.put(operation.outputs[0], kept + apart(others, kept))


@rule("einsum")
def torch_einsum(operation: Operation, names: Names) -> Note:
    """torch's own einsum: its letters name what nobody has named."""
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
    return " ".join(axes.replace("...", "…")).replace("…", "...")
