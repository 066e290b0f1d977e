"""The same axes in another order, axes of size 1 that come and go, and axes that grow from them."""

from typing import Any

import torch

from circuits.naming.axes import AxisNode, same_size
from circuits.naming.derivation import prime, scaled, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, canonical_dim, canonical_dims, rule


@rule("permute")
def permute(operation: Operation, names: Names) -> None:
    """All axes in the order told."""
    axes = names.of(operation.inputs[0])
    names.put(operation.outputs[0], [axes[place] for place in canonical_dims(operation.sequence(1, "dims"), len(axes))])


@rule("transpose swapaxes swapdims")
def transpose(operation: Operation, names: Names) -> None:
    """Two axes change places."""
    first = operation.get(1, "dim0", operation.kwargs.get("axis0"))
    second = operation.get(2, "dim1", operation.kwargs.get("axis1"))
    _swapped(operation, names, first, second)


@rule("t")
def transposed_matrix(operation: Operation, names: Names) -> None:
    """The two axes of a matrix change places; a vector stays."""
    _swapped(operation, names, 0, -1)


@rule("adjoint", also=[torch.Tensor.mT.__get__, torch.Tensor.mH.__get__])  # pyright: ignore[reportAttributeAccessIssue]
def adjoint(operation: Operation, names: Names) -> None:
    """The last two axes change places."""
    _swapped(operation, names, -2, -1)


def _swapped(operation: Operation, names: Names, first: int, second: int) -> None:
    axes = list(names.of(operation.inputs[0]))
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    names.put(operation.outputs[0], axes)


@rule(also=[torch.Tensor.T.__get__, torch.Tensor.H.__get__])  # pyright: ignore[reportAttributeAccessIssue]
def reverse(operation: Operation, names: Names) -> None:
    """All axes from the last to the first."""
    names.put(operation.outputs[0], names.of(operation.inputs[0])[::-1])


@rule("movedim moveaxis")
def movedim(operation: Operation, names: Names) -> None:
    """Some axes go to other places, the others keep their order."""
    axes = names.of(operation.inputs[0])
    sources = canonical_dims(operation.get(1, "source"), len(axes))
    targets = canonical_dims(operation.get(2, "destination"), len(axes))
    rest = iter([axis for place, axis in enumerate(axes) if place not in sources])
    order = [axes[sources[targets.index(place)]] if place in targets else next(rest) for place in range(len(axes))]
    names.put(operation.outputs[0], order)


@rule("rot90")
def rot90(operation: Operation, names: Names) -> None:
    """Two axes change places at each odd turn."""
    first, second = operation.get(2, "dims", [0, 1])
    _swapped(operation, names, first, second if operation.get(1, "k", 1) % 2 else first)


@rule("squeeze")
def squeeze(operation: Operation, names: Names) -> None:
    """Axes of size 1 go."""
    axes = names.of(operation.inputs[0])
    dims = canonical_dims(operation.sequence(1, "dim"), len(axes))
    kept = [axis for place, axis in enumerate(axes) if place not in dims or not same_size(axis.root.size, 1)]
    names.put(operation.outputs[0], kept)


@rule("unsqueeze")
def unsqueeze(operation: Operation, names: Names) -> None:
    """An axis of size 1 comes."""
    axes = names.of(operation.inputs[0])
    place = canonical_dim(operation.get(1, "dim"), len(axes) + 1)
    names.put(operation.outputs[0], [*axes[:place], AxisNode(1), *axes[place:]])


@rule("expand broadcast_to")
def expand(operation: Operation, names: Names) -> None:
    """Axes of size 1 grow into axes without a name; the others stay."""
    output = operation.outputs[0]
    shape, axes = names.shapes[output], names.of(operation.inputs[0])
    names.put(output, [*names.fresh(shape[: len(shape) - len(axes)]), *axes])


@rule("expand_as")
def expand_as(operation: Operation, names: Names) -> None:
    """Axes grow into those of another tensor."""
    axes, others = (names.of(number) for number in operation.inputs[:2])
    for here, there in zip(reversed(axes), reversed(others), strict=False):
        unify(here, there)
    names.put(operation.outputs[0], others)


@rule("repeat tile")
def repeat(operation: Operation, names: Names) -> None:
    """An axis comes several times over: `2*h`; new ones lead."""
    output = operation.outputs[0]
    shape, axes = names.shapes[output], names.of(operation.inputs[0])
    lead = len(shape) - len(axes)
    names.put(output, [*names.fresh(shape[:lead]), *map(_times, axes, shape[lead:])])


def _times(axis: AxisNode, size: Any) -> AxisNode:
    return AxisNode(size) if same_size(axis.root.size, 1) else scaled(axis, size)


@rule("repeat_interleave")
def repeat_interleave(operation: Operation, names: Names) -> None:
    """Each index of one axis several times over; where no axis is told, of all read as one."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    dim = operation.get(2, "dim", 0 if len(axes) == 1 else None)
    if dim is not None and isinstance(operation.get(1, "repeats"), int):
        dim = canonical_dim(dim, len(axes))
        names.put(output, [*axes[:dim], _times(axes[dim], names.shapes[output][dim]), *axes[dim + 1 :]])


@rule("diagonal")
def diagonal(operation: Operation, names: Names) -> None:
    """Two axes go, and what they share comes last."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    dims = canonical_dims([operation.get(2, "dim1", 0), operation.get(3, "dim2", 1)], len(axes))
    names.put(output, [*[axis for place, axis in enumerate(axes) if place not in dims], axes[dims[0]]])


@rule("diag_embed")
def diag_embed(operation: Operation, names: Names) -> None:
    """The last axis stands twice; told only where it stays last."""
    axes = names.of(operation.inputs[0])
    if len(operation.args) < 2 and not operation.kwargs:
        names.put(operation.outputs[0], [*axes, prime(axes[-1])])


@rule("diag")
def diag(operation: Operation, names: Names) -> None:
    """A vector becomes a diagonal, a diagonal a vector."""
    axes = names.of(operation.inputs[0])
    names.put(operation.outputs[0], [axes[0], prime(axes[0])] if len(axes) == 1 else axes[:1])
