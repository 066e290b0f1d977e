"""Which boxes of a diagram are drawn, and how: opened as a group, closed as a box, or as one operation.

The bookkeeping of BatchNorm (its counter) and functions that return their argument unchanged are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuits.diagram import Box, Value
from circuits.drawing.labels import box_title
from circuits.drawing.operations import LEARNED, Drawn, drawing_of
from circuits.drawing.operations.reading import as_box
from circuits.drawing.options import Options
from circuits.drawing.scene import Link


@dataclass(frozen=True)
class Item:
    """A box that is drawn.

    Attributes:
        box: The box of the diagram.
        id: Its place in the diagram: the numbers of the boxes around it and its own, `0.3.1`.
        drawn: How it is drawn, if it is one operation or closed; None for an open box.
        items: What is drawn inside an open box.
        title: Its title.
        closed: Whether it is a closed circuit or module.
    """

    box: Box
    id: str
    drawn: Drawn | None
    items: tuple["Item", ...] = ()
    title: str = ""
    closed: bool = False

    @property
    def needs(self) -> list[int]:
        """The numbers of the tensors that it reads, one for each strand that enters it."""
        if self.drawn is not None:
            return [value.number for value in self.drawn.ins if value.role not in LEARNED]
        inner = uses(self.items, [value.number for value in self.box.outputs])
        found: list[int] = []
        for number in dict.fromkeys([*[value.number for value in self.box.inputs], *inner]):
            outside = [value.number for value in self.box.inputs].count(number)
            found += [number] * min(max(outside, 1), inner.count(number))
        return found

    @property
    def makes(self) -> list[int]:
        """The numbers of the tensors that it computes."""
        if self.drawn is not None:
            return [value.number for value in self.drawn.outs]
        return [number for item in self.items for number in item.makes]


def uses(items: Iterable[Item], results: Sequence[int]) -> list[int]:
    """Return the numbers of the tensors from outside that some boxes read, one for each use.

    Args:
        items: The boxes.
        results: The numbers of the tensors that are returned; those that the boxes do not compute are not counted.
    """
    made: set[int] = set()
    found: list[int] = []
    for item in items:
        found += [number for number in item.needs if number not in made]
        made |= set(item.makes)
    return found


def contents(root: Box, options: Options, symbols: Mapping[Any, Any]) -> tuple[Item, ...]:
    """Return what is drawn inside the outermost box.

    Args:
        root: The outermost box of the diagram.
        options: The depth, and the boxes that are open or closed at any depth.
        symbols: The formula in the user's axes for each symbol of torch.
    """
    return _inside(root, "", 1, options, symbols)


def _inside(box: Box, path: str, level: int, options: Options, symbols: Mapping[Any, Any]) -> tuple[Item, ...]:
    found = []
    for number, inner in enumerate(box.boxes):
        if not _is_bookkeeping(inner):
            found.append(_item(inner, f"{path}.{number}" if path else f"{number}", level, options, symbols))
    return tuple(found)


def _item(box: Box, id: str, level: int, options: Options, symbols: Mapping[Any, Any]) -> Item:
    title = box_title(box.name, box.label)
    single = _single_operation(box)
    if single is not None:
        return Item(box, id, drawing_of(single, box.name, symbols), title=title)
    if is_open(box, level, options):
        items = _inside(box, id, level + 1, options, symbols)
        if items:
            return Item(box, id, None, items, title)
    return Item(box, id, _closed(box, title), title=title, closed=True)


def is_open(box: Box, level: int, options: Options) -> bool:
    """Return whether the box of a circuit or module is open: by its name, or because the depth reaches inside it."""
    if not box.boxes or _is_named(box, options.closed):
        return False
    if options.opened and any(_is_named(inner, options.opened) for inner in box.walk()):
        return True
    return options.depth is None or level < options.depth


def _is_named(box: Box, names: Sequence[str]) -> bool:
    return any(name in (box.label, box.name, box.path) for name in names)


def _closed(box: Box, title: str) -> Drawn:
    """Return a closed box with every tensor that it reads and returns."""
    read = [value for value in box.inputs if value.role not in LEARNED]
    return as_box(read, box.outputs, title)


def _single_operation(box: Box) -> Box | None:
    """Return the only operation in a box with the same result, such as that of nn.Linear; None if there is none."""
    if box.kind == "operation" or (box.call is not None and not box.boxes):
        return box
    inner = [each for each in box.boxes if not _is_bookkeeping(each)]
    if box.kind != "module" or len(inner) != 1 or inner[0].error or inner[0].kind != "operation":
        return None
    same = [value.number for value in box.outputs] == [value.number for value in inner[0].outputs]
    data = [[value.number for value in each.inputs if value.role not in LEARNED] for each in (box, inner[0])]
    if not same or sorted(set(data[0])) != sorted(set(data[1])):
        return None
    return replace(inner[0], inputs=_outer_names(box.inputs, inner[0].inputs), outputs=box.outputs)


def _outer_names(outer: Sequence[Value], inner: Sequence[Value]) -> tuple[Value, ...]:
    """Return the inputs of the only operation in a module with the names that their axes have outside."""
    named = {value.number: value for value in outer}
    return tuple([replace(named[value.number], role=value.role) if value.number in named else value for value in inner])


def _is_bookkeeping(box: Box) -> bool:
    """Return whether a box computes nothing that is drawn.

    These are a function that returns its arguments, and an operation that overwrites a buffer without data of the run.
    """
    if box.error or any(inner.error for inner in box.walk()):
        return False
    if box.kind == "operation":
        return bool(box.mutates) and all(value.role in ("buffer", "parameter") for value in box.inputs)
    if box.boxes:
        return all(_is_bookkeeping(inner) for inner in box.boxes)
    read = {value.number for value in box.inputs}
    return box.call is None and all(value.number in read for value in box.outputs)


def merged(items: Sequence[Item]) -> list[Item]:
    """Return boxes with regrouping drawn as ports: a learned map and a rearrangement beside it are one 𝐋 (Figure 21)."""
    found: list[Item] = []
    for item in items:
        previous = found[-1] if found else None
        joined = None if previous is None else _joined(previous, item, items)
        if joined is None:
            found.append(item)
        else:
            found[-1] = joined
    return found


def _joined(first: Item, second: Item, items: Sequence[Item]) -> Item | None:
    """Return two boxes as one if one is a learned map and the other only regroups its axes; else None."""
    if first.drawn is None or second.drawn is None or first.closed or second.closed:
        return None
    number = first.drawn.outs[0].number
    used = [each for item in items for each in item.needs].count(number)
    if len(first.drawn.outs) != 1 or [value.number for value in second.drawn.ins] != [number] or used != 1:
        return None
    if _is_regrouping(second.drawn) and _map_of(first.drawn) is not None:
        return replace(first, drawn=_after(first.drawn, second.drawn)) if _after(first.drawn, second.drawn) else None
    if _is_regrouping(first.drawn) and _map_of(second.drawn) is not None:
        drawn = _before(first.drawn, second.drawn)
        return replace(second, drawn=drawn) if drawn else None
    return None


def _map_of(drawn: Drawn) -> Link | None:
    """Return the glyph of a learned map."""
    glyphs = [link for link in drawn.links if link.kind == "glyph"]
    return glyphs[0] if len(glyphs) == 1 and glyphs[0].shape in ("letter", "window", "transposed", "star") else None


def _is_regrouping(drawn: Drawn) -> bool:
    """Return whether an operation only moves, splits and merges axes."""
    kinds = {(link.kind, link.shape) for link in drawn.links}
    return kinds <= {("pass", ""), ("glyph", "bar")} and not drawn.above and len(drawn.ins) == 1 == len(drawn.outs)


def _after(first: Drawn, second: Drawn) -> Drawn | None:
    """Return a learned map whose outputs are regrouped: the bars after it become its own outputs."""
    glyph = _map_of(first)
    made = {link.ins[0]: link.outs[0] for link in second.links if link.kind == "pass"}
    outs = []
    for port in glyph.outs if glyph else ():
        bar = next((link for link in second.links if port in link.ins and link.kind == "glyph"), None)
        outs += [] if bar is not None and port != bar.ins[0] else bar.outs if bar is not None else [made[port]]
    bars = [port for link in second.links if link.kind == "glyph" for port in link.ins]
    if glyph is None or not set(bars) <= set(glyph.outs):
        return None
    links = [replace(link, outs=(made[link.outs[0]],)) for link in first.links if link is not glyph]
    return Drawn(first.ins, second.outs, (*links, replace(glyph, outs=tuple(outs))))


def _before(first: Drawn, second: Drawn) -> Drawn | None:
    """Return a learned map whose inputs are regrouped: the bars before it become its own inputs."""
    glyph = _map_of(second)
    read = {link.outs[0]: link.ins[0] for link in first.links if link.kind == "pass"}
    ins = []
    for port in glyph.ins if glyph else ():
        bar = next((link for link in first.links if port in link.outs and link.kind == "glyph"), None)
        ins += [] if bar is not None and port != bar.outs[0] else bar.ins if bar is not None else [read[port]]
    bars = [port for link in first.links if link.kind == "glyph" for port in link.outs]
    if glyph is None or not set(bars) <= set(glyph.ins):
        return None
    links = [replace(link, ins=(read[link.ins[0]],)) for link in second.links if link is not glyph]
    return Drawn(first.ins, second.outs, (*links, replace(glyph, ins=tuple(ins), beside=())))


__all__ = ["Item", "contents", "is_open", "merged", "uses"]
