"""Naming rules of indexing, with brackets and by functions: an indexed axis is replaced by the axes of the indices."""

from fractions import Fraction
from typing import Any

import torch

from circuits.diagram import Struct, Wire
from circuits.naming.axes import AxisNode
from circuits.naming.derivation import resized, scaled, shifted, unify
from circuits.naming.names import Names
from circuits.naming.rules.pointwise import broadcast
from circuits.naming.rules.registry import Note, Operation, canonical_dim, over, plain, rule


@rule(also=[torch.Tensor.__getitem__])
def index(operation: Operation, names: Names) -> Note:
    """Basic and advanced indexing: an int removes its axis, a slice shortens it, None inserts an axis of size 1.

    Axes indexed by tensors are replaced by the axes of the indices. The note is the index as Python source.
    """
    axes = list(names.of(operation.inputs[0]))
    items = _items(operation.args[1])
    note = f"[{', '.join(map(_item_text, items))}]"
    items = _expand_ellipsis(items, len(axes), names)
    output = operation.outputs[0]
    sizes = names.shapes[output]
    advanced = [position for position, item in enumerate(items) if _is_advanced(item)]
    adjacent = advanced == list(range(advanced[0], advanced[-1] + 1)) if advanced else True
    rank = len(sizes) - _basic_rank(items, axes, names)
    indexed = _advanced_axes([items[position] for position in advanced], rank, names)
    found: list[AxisNode] = [] if adjacent else indexed
    for position, item in enumerate(items):
        if item is None:
            found.append(AxisNode(1))
        elif _is_advanced(item):
            found += indexed if adjacent and position == advanced[0] else []
            del axes[: _axes_consumed(item, names)]
        elif _is_slice(item):
            found.append(_slice_axis(axes.pop(0), sizes[len(found)], item))
        else:
            axes.pop(0)
    names.put(output, [*found, *axes])
    return note


def _items(described: Any) -> list[Any]:
    """Return the items of an index, one for each comma-separated expression in the brackets."""
    if isinstance(described, Struct) and described.kind is tuple:
        return list(described.parts)
    return list(described) if type(described) is tuple else [described]


def _expand_ellipsis(items: list[Any], rank: int, names: Names) -> list[Any]:
    """Replace `...` by a full slice for each axis that no other item consumes."""
    dots = next((position for position, item in enumerate(items) if item is Ellipsis), None)
    if dots is None:
        return items
    used = sum([_axes_consumed(item, names) for item in items])
    return [*items[:dots], *[slice(None)] * (rank - used), *items[dots + 1 :]]


def _is_slice(item: Any) -> bool:
    return isinstance(item, slice) or (isinstance(item, Struct) and item.kind is slice)


def _is_advanced(item: Any) -> bool:
    """Return whether an item is advanced indexing: a tensor of indices, a mask, or a list that becomes a tensor."""
    return isinstance(item, (Wire, list)) or (isinstance(item, Struct) and item.kind in (list, tuple))


def _axes_consumed(item: Any, names: Names) -> int:
    """Return the number of axes that an item consumes: none for None and `...`, its rank for a boolean mask, else 1."""
    if item is None or item is Ellipsis:
        return 0
    return len(names.shapes[item.number]) if isinstance(item, Wire) and item.number in names.booleans else 1


def _basic_rank(items: list[Any], axes: list[AxisNode], names: Names) -> int:
    """Return the number of axes of the result that do not come from advanced indexing."""
    used = sum([_axes_consumed(item, names) for item in items])
    return len(axes) - used + sum([item is None or _is_slice(item) for item in items])


def _advanced_axes(items: list[Any], rank: int, names: Names) -> list[AxisNode]:
    """Return the axes that replace those indexed by tensors: those of the only index tensor, else `rank` new axes."""
    if len(items) == 1 and isinstance(items[0], Wire) and items[0].number not in names.booleans:
        return list(names.of(items[0].number))
    return [AxisNode(None) for _ in range(rank)]


def _slice_axis(axis: AxisNode, size: Any, item: Any) -> AxisNode:
    """Return a sliced axis: `h-1` for bounds relative to the ends of the axis, `h/2` for a step, else resized."""
    start, stop, step = map(plain, (item.start, item.stop, item.step) if isinstance(item, slice) else item.parts)
    from_ends = (stop is None or _is_negative(stop)) and not _is_negative(start)
    if not from_ends:
        return resized(axis, size)
    return shifted(axis, size) if step in (None, 1) else scaled(axis, size, Fraction(1, step))


def _is_negative(position: Any) -> bool:
    return isinstance(position, int) and position < 0


def _item_text(item: Any) -> str:
    """Return an item of an index as Python source."""
    if item is Ellipsis:
        return "..."
    if _is_slice(item):
        start, stop, step = map(plain, (item.start, item.stop, item.step) if isinstance(item, slice) else item.parts)
        words = ["" if part is None else f"{part}" for part in (start, stop, step)]
        return ":".join(words if words[2] else words[:2])
    if isinstance(item, Wire):
        return "tensor"
    return f"[{', '.join(map(_item_text, item.parts))}]" if isinstance(item, Struct) else f"{plain(item)}"


@rule("select")
def select(operation: Operation, names: Names) -> Note:
    """The selected axis is removed."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    names.put(operation.outputs[0], axes[:dim] + axes[dim + 1 :])
    return over(axes, [dim])


@rule("narrow narrow_copy")
def narrow(operation: Operation, names: Names) -> Note:
    """The narrowed axis has the requested size; the others are unchanged."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    names.put(output, [*axes[:dim], resized(axes[dim], names.shapes[output][dim]), *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("topk")
def topk(operation: Operation, names: Names) -> Note:
    """The axis at `dim` is replaced by a new one of size k, the same in both outputs."""
    axes = names.of(operation.inputs[0])
    dim = canonical_dim(operation.get(2, "dim", -1), len(axes))
    largest = AxisNode(names.shapes[operation.outputs[0]][dim])
    for output in operation.outputs:
        names.put(output, [*axes[:dim], largest, *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("index_select")
def index_select(operation: Operation, names: Names) -> Note:
    """The indexed axis is replaced by the axis of the indices."""
    axes, indices = (names.of(number) for number in operation.inputs[:2])
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    names.put(operation.outputs[0], [*axes[:dim], *(indices or [AxisNode(1)]), *axes[dim + 1 :]])
    return over(axes, [dim])


@rule("gather")
def gather(operation: Operation, names: Names) -> Note:
    """The output has the axes of the indices; all but that at `dim` are unified with those of the input."""
    axes, indices = (names.of(number) for number in operation.inputs[:2])
    dim = canonical_dim(operation.get(1, "dim"), len(axes))
    for position, (here, there) in enumerate(zip(axes, indices, strict=True)):
        if position != dim:
            unify(here, there)
    names.put(operation.outputs[0], indices)
    return over(axes, [dim])


@rule("take_along_dim")
def take_along_dim(operation: Operation, names: Names) -> Note:
    """The output has the axes of the indices; an axis that is broadcast to the size of the input's has no name."""
    axes = names.of(operation.inputs[0])
    dim = operation.get(2, "dim")
    broadcast(operation.inputs[1:], operation.outputs[0], names)
    return None if dim is None else over(axes, [canonical_dim(dim, len(axes))])


@rule("take")
def take(operation: Operation, names: Names) -> None:
    """The output has the axes of the indices."""
    names.put(operation.outputs[0], names.of(operation.inputs[1]))
