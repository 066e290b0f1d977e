"""Indexing, as Python writes it and by functions: what is picked has the axes of what picks it."""

from fractions import Fraction
from typing import Any

import torch

from circuits.diagram import Struct, Wire
from circuits.naming.axes import AxisNode
from circuits.naming.derivation import resized, scaled, shifted, unify
from circuits.naming.names import Names
from circuits.naming.rules.pointwise import meet
from circuits.naming.rules.registry import Note, Operation, canonical_dim, over, plain, rule


@rule(also=[torch.Tensor.__getitem__])
def index(operation: Operation, names: Names) -> Note:
    """Basic and advanced indexing; the note shows the index."""
    axes = list(names.of(operation.inputs[0]))
    items = _items(operation.args[1])
    note = f"[{', '.join(map(_written, items))}]"
    items = _without_dots(items, len(axes), names)
    output = operation.outputs[0]
    picking = [place for place, item in enumerate(items) if _picks(item)]
    together = picking == list(range(picking[0], picking[-1] + 1)) if picking else True
    picked = _picked(
        [items[place] for place in picking], len(names.shapes[output]) - _spared(items, axes, names), names
    )
    found: list[AxisNode] = [] if together else picked
    sizes = names.shapes[output]
    for place, item in enumerate(items):
        if item is None:
            found.append(AxisNode(1))
        elif _picks(item):
            found += picked if together and place == picking[0] else []
            del axes[: _takes(item, names)]
        elif _slices(item):
            found.append(_sliced(axes.pop(0), sizes[len(found)], item))
        else:
            axes.pop(0)
    names.put(output, [*found, *axes])
    return note


def _items(described: Any) -> list[Any]:
    """What stands between the brackets, one by one."""
    if isinstance(described, Struct) and described.kind is tuple:
        return list(described.parts)
    return list(described) if type(described) is tuple else [described]


def _without_dots(items: list[Any], rank: int, names: Names) -> list[Any]:
    """`...` written out; what no item speaks of is left over at the end."""
    dots = next((place for place, item in enumerate(items) if item is Ellipsis), None)
    if dots is None:
        return items
    used = sum([_takes(item, names) for item in items])
    return [*items[:dots], *[slice(None)] * (rank - used), *items[dots + 1 :]]


def _slices(item: Any) -> bool:
    return isinstance(item, slice) or (isinstance(item, Struct) and item.kind is slice)


def _picks(item: Any) -> bool:
    """Whether an item is a tensor of indices or a mask, or a list that becomes one."""
    return isinstance(item, (Wire, list)) or (isinstance(item, Struct) and item.kind in (list, tuple))


def _takes(item: Any, names: Names) -> int:
    """How many axes an item of an index uses up."""
    if item is None or item is Ellipsis:
        return 0
    return len(names.shapes[item.number]) if isinstance(item, Wire) and item.number in names.booleans else 1


def _spared(items: list[Any], axes: list[AxisNode], names: Names) -> int:
    """How many axes of the result are not made by what picks."""
    used = sum([_takes(item, names) for item in items])
    return len(axes) - used + sum([item is None or _slices(item) for item in items])


def _picked(items: list[Any], rank: int, names: Names) -> list[AxisNode]:
    """The axes that picking makes: those of a lone tensor of indices; of several only how many."""
    if len(items) == 1 and isinstance(items[0], Wire) and items[0].number not in names.booleans:
        return list(names.of(items[0].number))
    return [AxisNode(None) for _ in range(rank)]


def _sliced(axis: AxisNode, size: Any, item: Any) -> AxisNode:
    """Part of an axis: `h-1` where it is counted from its ends, `h/2` by steps, just a number where one was given."""
    start, stop, step = map(plain, (item.start, item.stop, item.step) if isinstance(item, slice) else item.parts)
    from_ends = (stop is None or _is_negative(stop)) and not _is_negative(start)
    if not from_ends:
        return resized(axis, size)
    return shifted(axis, size) if step in (None, 1) else scaled(axis, size, Fraction(1, step))


def _is_negative(place: Any) -> bool:
    return isinstance(place, int) and place < 0


def _written(item: Any) -> str:
    """An item of an index as Python writes it."""
    if item is Ellipsis:
        return "..."
    if _slices(item):
        start, stop, step = map(plain, (item.start, item.stop, item.step) if isinstance(item, slice) else item.parts)
        words = ["" if part is None else f"{part}" for part in (start, stop, step)]
        return ":".join(words if words[2] else words[:2])
    if isinstance(item, Wire):
        return "tensor"
    return f"[{', '.join(map(_written, item.parts))}]" if isinstance(item, Struct) else f"{plain(item)}"


@rule("select")
def select(operation: Operation, names: Names) -> Note:
    """One index of one axis, which goes."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    names.put(operation.outputs[0], axes[:dim] + axes[dim + 1 :])
    return over(axes, [dim])


@rule("narrow narrow_copy")
def narrow(operation: Operation, names: Names) -> Note:
    """A stretch of one axis, as long as is asked."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    names.put(output, [*axes[:dim], resized(axes[dim], names.shapes[output][dim]), *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("topk")
def topk(operation: Operation, names: Names) -> Note:
    """The largest of one axis, as many as are asked."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(2, "dim", -1), len(axes))
    some = AxisNode(names.shapes[operation.outputs[0]][dim])
    for output in operation.outputs:
        names.put(output, [*axes[:dim], some, *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("index_select")
def index_select(operation: Operation, names: Names) -> Note:
    """Some indices of one axis, whose place the axis of the indices takes."""
    axes, indices = (names.of(number) for number in operation.inputs[:2])
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    names.put(operation.outputs[0], [*axes[:dim], *(indices or [AxisNode(1)]), *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("gather")
def gather(operation: Operation, names: Names) -> Note:
    """What the indices pick along one axis; along the others they go side by side."""
    axes, indices = (names.of(number) for number in operation.inputs[:2])
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    for place, (here, there) in enumerate(zip(axes, indices, strict=True)):
        if place != dim:
            unify(here, there)
    names.put(operation.outputs[0], indices)
    return over(axes, [dim])


@rule("take_along_dim")
def take_along_dim(operation: Operation, names: Names) -> Note:
    """The same; without an axis, of all numbers in a row."""
    axes = names.of(operation.inputs[0])
    dim = operation.get(2, "dim")
    meet(operation.inputs[1:], operation.outputs[0], names)
    return None if dim is None else over(axes, [canonical_dim(dim, len(axes))])


@rule("take")
def take(operation: Operation, names: Names) -> None:
    """The axes are those of the indices."""
    names.put(operation.outputs[0], names.of(operation.inputs[1]))
