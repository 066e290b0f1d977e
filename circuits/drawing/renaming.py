"""Items with other names: of the tensors that they load and save, and of axes whose sizes follow a rule."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from circuits.diagram import Box, Value
from circuits.drawing.contents import Item, saving


def with_loads(item: Item, names: Mapping[int, str]) -> Item:
    """Return an item in which some tensors begin where they are read, loaded by name."""
    if item.drawn is None:
        own = {number for inner in item.items for number in inner.makes} if item.times > 1 else set[int]()
        others = {number: name for number, name in names.items() if number not in own}
        return replace(item, items=tuple([with_loads(inner, others) for inner in item.items]))
    ins = [
        replace(value, role="saved", name=names[value.number]) if value.number in names else value
        for value in item.drawn.ins
    ]
    return replace(item, drawn=replace(item.drawn, ins=tuple(ins)))


def with_saves(items: Sequence[Item], names: Mapping[int, str], renamed: Mapping[Value, Value]) -> list[Item]:
    """Return items with the ends of tensors that are saved by name, beside the items that read the tensors too.

    A tensor is saved behind the outermost box that returns it and in which nothing else reads it.
    """
    found: list[Item] = []
    for item in items:
        made = [value for value in _outputs(item) if value.number in names and not _is_read(item, value.number)]
        deeper = {number: name for number, name in names.items() if number not in {value.number for value in made}}
        inside = {number for inner in item.items for number in inner.makes}
        if inside & set(deeper):
            found.append(replace(item, items=tuple(with_saves(item.items, deeper, renamed))))
        else:
            found.append(item)
        found += [saving(renamed.get(value, value), names[value.number]) for value in made]
    return found


def _outputs(item: Item) -> Sequence[Value]:
    """Return the tensors that an item makes; in repeated ones and transforms they have other numbers inside."""
    return item.drawn.outs if item.drawn is not None else () if item.times > 1 else item.box.outputs


def _is_read(item: Item, number: int) -> bool:
    """Return whether something in a box reads a tensor that the box makes."""
    return any(number in inner.needs for inner in item.items)


def named(item: Item, names: Mapping[Value, Value]) -> Item:
    """Return an item whose tensors have other names of axes."""
    return relabelled(item, lambda value: _like(value, names))


def relabelled(item: Item, rename: Callable[[Value], Value]) -> Item:
    """Return an item in which each tensor is replaced by the same tensor with other names of axes."""

    def renamed(values: Iterable[Value]) -> tuple[Value, ...]:
        return tuple([rename(value) for value in values])

    drawn = item.drawn and replace(item.drawn, ins=renamed(item.drawn.ins), outs=renamed(item.drawn.outs))
    inner = tuple([relabelled(each, rename) for each in item.items])
    return replace(item, box=relabelled_box(item.box, rename), drawn=drawn, items=inner)


def relabelled_box(box: Box, rename: Callable[[Value], Value]) -> Box:
    """Return a box whose inputs and outputs have other names of axes."""
    inputs, outputs = (tuple([rename(value) for value in values]) for values in (box.inputs, box.outputs))
    return replace(box, inputs=inputs, outputs=outputs)


def with_axes(value: Value, names: Mapping[tuple[int, int], str]) -> Value:
    """Return a tensor with other names of axes.

    Args:
        value: The tensor.
        names: Those names, by the number of a tensor and the place of the axis in it.
    """
    axes = [names.get((value.number, axis), name) for axis, name in enumerate(value.axes)]
    return replace(value, axes=tuple(axes))


def _like(value: Value, names: Mapping[Value, Value]) -> Value:
    """Return a tensor with its new names, also if it is loaded by name here."""
    found = names.get(value) or next((new for old, new in names.items() if _is_same(old, value)), value)
    return replace(found, role=value.role, name=value.name)


def _is_same(one: Value, two: Value) -> bool:
    return (one.number, one.axes, one.sizes) == (two.number, two.axes, two.sizes)


__all__ = ["named", "relabelled", "relabelled_box", "with_axes", "with_loads", "with_saves"]
