"""Items with other names: of the tensors that they load and save, and of axes whose sizes follow a rule."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from circuits.diagram import Value
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
    """Return items with the ends of tensors that are saved by name, beside the items that read the tensors too."""
    found: list[Item] = []
    for item in items:
        inside = {number for inner in item.items for number in inner.makes}
        found.append(
            replace(item, items=tuple(with_saves(item.items, names, renamed))) if inside & set(names) else item
        )
        outputs = item.drawn.outs if item.drawn is not None else item.box.outputs
        made = [value for value in outputs if value.number in names and value.number not in inside]
        found += [saving(renamed.get(value, value), names[value.number]) for value in made]
    return found


def named(item: Item, names: Mapping[Value, Value]) -> Item:
    """Return an item whose tensors have other names of axes."""

    def renamed(values: Iterable[Value]) -> tuple[Value, ...]:
        return tuple([_like(value, names) for value in values])

    box = replace(item.box, inputs=renamed(item.box.inputs), outputs=renamed(item.box.outputs))
    drawn = item.drawn and replace(item.drawn, ins=renamed(item.drawn.ins), outs=renamed(item.drawn.outs))
    return replace(item, box=box, drawn=drawn, items=tuple([named(inner, names) for inner in item.items]))


def _like(value: Value, names: Mapping[Value, Value]) -> Value:
    """Return a tensor with its new names, also if it is loaded by name here."""
    found = names.get(value) or next((new for old, new in names.items() if _is_same(old, value)), value)
    return replace(found, role=value.role, name=value.name)


def _is_same(one: Value, two: Value) -> bool:
    return (one.number, one.axes, one.sizes) == (two.number, two.axes, two.sizes)


__all__ = ["named", "with_loads", "with_saves"]
