"""The same axes in another order, axes of size 1 that come and go, and axes that grow from them."""

from typing import Any

import torch

from circuits.naming.axes import Cell, same_size
from circuits.naming.derivation import prime, scaled, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, axes, axis, rule


@rule("permute")
def permute(operation: Operation, names: Names) -> None:
    """All axes in the order told."""
    cells = names.of(operation.inputs[0])
    names.put(operation.outputs[0], [cells[place] for place in axes(operation.several(1, "dims"), len(cells))])


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
    cells = list(names.of(operation.inputs[0]))
    if cells:
        cells[first], cells[second] = cells[second], cells[first]
    names.put(operation.outputs[0], cells)


@rule(also=[torch.Tensor.T.__get__, torch.Tensor.H.__get__])  # pyright: ignore[reportAttributeAccessIssue]
def reverse(operation: Operation, names: Names) -> None:
    """All axes from the last to the first."""
    names.put(operation.outputs[0], names.of(operation.inputs[0])[::-1])


@rule("movedim moveaxis")
def movedim(operation: Operation, names: Names) -> None:
    """Some axes go to other places, the others keep their order."""
    cells = names.of(operation.inputs[0])
    sources = axes(operation.get(1, "source"), len(cells))
    targets = axes(operation.get(2, "destination"), len(cells))
    rest = iter([cell for place, cell in enumerate(cells) if place not in sources])
    order = [cells[sources[targets.index(place)]] if place in targets else next(rest) for place in range(len(cells))]
    names.put(operation.outputs[0], order)


@rule("rot90")
def rot90(operation: Operation, names: Names) -> None:
    """Two axes change places at each odd turn."""
    first, second = operation.get(2, "dims", [0, 1])
    _swapped(operation, names, first, second if operation.get(1, "k", 1) % 2 else first)


@rule("squeeze")
def squeeze(operation: Operation, names: Names) -> None:
    """Axes of size 1 go."""
    cells = names.of(operation.inputs[0])
    dims = axes(operation.several(1, "dim"), len(cells))
    kept = [cell for place, cell in enumerate(cells) if place not in dims or not same_size(cell.root.size, 1)]
    names.put(operation.outputs[0], kept)


@rule("unsqueeze")
def unsqueeze(operation: Operation, names: Names) -> None:
    """An axis of size 1 comes."""
    cells = names.of(operation.inputs[0])
    place = axis(operation.get(1, "dim"), len(cells) + 1)
    names.put(operation.outputs[0], [*cells[:place], Cell(1), *cells[place:]])


@rule("expand broadcast_to")
def expand(operation: Operation, names: Names) -> None:
    """Axes of size 1 grow into axes without a name; the others stay."""
    output = operation.outputs[0]
    shape, cells = names.shapes[output], names.of(operation.inputs[0])
    names.put(output, [*names.fresh(shape[: len(shape) - len(cells)]), *cells])


@rule("expand_as")
def expand_as(operation: Operation, names: Names) -> None:
    """Axes grow into those of another tensor."""
    cells, others = (names.of(number) for number in operation.inputs[:2])
    for here, there in zip(reversed(cells), reversed(others), strict=False):
        unify(here, there)
    names.put(operation.outputs[0], others)


@rule("repeat tile")
def repeat(operation: Operation, names: Names) -> None:
    """An axis comes several times over: `2*h`; new ones lead."""
    output = operation.outputs[0]
    shape, cells = names.shapes[output], names.of(operation.inputs[0])
    lead = len(shape) - len(cells)
    names.put(output, [*names.fresh(shape[:lead]), *map(_times, cells, shape[lead:])])


def _times(cell: Cell, size: Any) -> Cell:
    return Cell(size) if same_size(cell.root.size, 1) else scaled(cell, size)


@rule("repeat_interleave")
def repeat_interleave(operation: Operation, names: Names) -> None:
    """Each index of one axis several times over; where no axis is told, of all read as one."""
    cells, output = names.of(operation.inputs[0]), operation.outputs[0]
    dim = operation.get(2, "dim", 0 if len(cells) == 1 else None)
    if dim is not None and isinstance(operation.get(1, "repeats"), int):
        dim = axis(dim, len(cells))
        names.put(output, [*cells[:dim], _times(cells[dim], names.shapes[output][dim]), *cells[dim + 1 :]])


@rule("diagonal")
def diagonal(operation: Operation, names: Names) -> None:
    """Two axes go, and what they share comes last."""
    cells, output = names.of(operation.inputs[0]), operation.outputs[0]
    dims = axes([operation.get(2, "dim1", 0), operation.get(3, "dim2", 1)], len(cells))
    names.put(output, [*[cell for place, cell in enumerate(cells) if place not in dims], cells[dims[0]]])


@rule("diag_embed")
def diag_embed(operation: Operation, names: Names) -> None:
    """The last axis stands twice; told only where it stays last."""
    cells = names.of(operation.inputs[0])
    if len(operation.args) < 2 and not operation.kwargs:
        names.put(operation.outputs[0], [*cells, prime(cells[-1])])


@rule("diag")
def diag(operation: Operation, names: Names) -> None:
    """A vector becomes a diagonal, a diagonal a vector."""
    cells = names.of(operation.inputs[0])
    names.put(operation.outputs[0], [cells[0], prime(cells[0])] if len(cells) == 1 else cells[:1])
