"""Which boxes of a diagram are drawn, and how: opened as a group, closed as a box, or as one operation.

The bookkeeping of BatchNorm (its counter) and functions that return their argument unchanged are left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from circuits.diagram import Box, Value, only_operation
from circuits.drawing.equality import Kinds, content, shape
from circuits.drawing.labels import axis_label, box_title
from circuits.drawing.marks import Span
from circuits.drawing.operations import LEARNED, Drawn, drawing_of
from circuits.drawing.operations.closed import closed_box
from circuits.drawing.operations.reading import ports
from circuits.drawing.options import Options
from circuits.drawing.roles import reverse_boxes, saved_names
from circuits.drawing.scene import Link


@dataclass(frozen=True)
class Item:
    """A box that is drawn, or several that are repeated.

    Attributes:
        box: The box of the diagram.
        id: Its place in the diagram: the numbers of the boxes around it and its own, `0.3.1`.
        drawn: How it is drawn, if it is one operation or closed; None for an open box and for repeated ones.
        items: What is drawn inside an open box, or once of what is repeated.
        title: Its title.
        closed: Whether it is a closed circuit or module.
        times: How often the items are repeated.
        note: Whether the repetitions have their own weights or the same.
        plain: Whether an open box has neither fence nor title: a lift, whose wires pass the circuit inside.
        end: The place after its last leaf, in the order of the run.
        last: For repeated items, the number of the tensor that the last repetition makes, for each of the first.
        also: The ids of the boxes that are drawn as one with it.
        again: For each of the repeated items, the ids of the boxes of all repetitions, the first included.
    """

    box: Box
    id: str
    drawn: Drawn | None
    items: tuple["Item", ...] = ()
    title: str = ""
    closed: bool = False
    times: int = 1
    note: str = ""
    plain: bool = False
    end: int = 0
    last: tuple[tuple[int, int], ...] = ()
    also: tuple[str, ...] = ()
    again: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def needs(self) -> list[int]:
        """The numbers of the tensors that it reads, one for each strand that enters it."""
        return [outside for _, outside in self._entering]

    @cached_property
    def enters(self) -> list[int]:
        """The numbers that the tensors in `needs` have inside: other ones inside a transform."""
        return [inside for inside, _ in self._entering]

    @cached_property
    def _entering(self) -> list[tuple[int, int]]:
        """The number inside and outside of each tensor that enters."""
        if self.drawn is not None:
            return [(value.number, value.number) for value in self.drawn.ins if value.role not in LEARNED]
        inner = Counter(uses(self.items))
        if self.times > 1:
            return [(number, number) for number in inner]
        lifted = {inside: outside for inside, outside, _ in self.box.lifted}
        insides: dict[int, list[int]] = {}
        for inside, outside in lifted.items():
            insides.setdefault(outside, []).append(inside)
        arguments = [value.number for value in self.box.inputs]
        given = Counter([each for number in arguments for each in (*insides.get(number, ()), number)])
        found: list[tuple[int, int]] = []
        for number in dict.fromkeys([*given, *inner]):
            found += [(number, lifted.get(number, number))] * min(max(given[number], 1), inner[number])
        return found

    @cached_property
    def makes(self) -> list[int]:
        """The numbers of the tensors that it computes."""
        if self.drawn is not None:
            return [value.number for value in self.drawn.outs]
        made = [number for item in self.items for number in item.makes]
        if self.times > 1:
            return [after for _, after in self.last]
        return [*[value.number for value in self.box.outputs], *made] if self.box.inside else made


def uses(items: Iterable[Item]) -> list[int]:
    """Return the numbers of the tensors from outside that some boxes read, one for each use."""
    made: set[int] = set()
    found: list[int] = []
    for item in items:
        found += [number for number in item.needs if number not in made]
        made.update(item.makes)
    return found


class Reader:
    """Reads the boxes of a diagram.

    Args:
        root: The outermost box.
        options: The depth, and the boxes that are open or closed at any depth.
        symbols: The formula in the user's axes for each symbol of torch.

    Attributes:
        kinds: Which boxes are equal, and which but for sizes.
    """

    def __init__(self, root: Box, options: Options, symbols: Mapping[Any, Any]) -> None:
        self.root: Box = root
        self.options: Options = options
        self.symbols: Mapping[Any, Any] = symbols
        self.kinds: tuple[Kinds, Kinds] = Kinds(content), Kinds(shape)
        self._drawn: dict[int, Drawn] = {}  # by the id of a box of the diagram, which is read at several depths
        self._saved, self._reverse = saved_names(root), reverse_boxes(root)
        self._reads: dict[int, int] = {}  # the place of the last leaf that reads each tensor
        self._ends: dict[int, int] = {}  # the place after the last leaf of each box
        self._count = 0
        self._number(root)
        self._reads |= {value.number: self._count for value in root.outputs}

    def _number(self, box: Box) -> None:
        """Number the leaves in the order of the run."""
        for value in box.inputs if not box.boxes else ():
            self._reads[value.number] = self._count
        if not box.boxes:
            self._count += 1
        for inner in box.boxes:
            self._number(inner)
        self._reads |= {value.number: self._count - 1 for value in box.inside}
        self._ends[id(box)] = self._count

    def items(self, depth: int | None) -> tuple[Item, ...]:
        """Return what is drawn inside the outermost box if this many levels are open."""
        inputs = [saving(value, self._saved[value.number]) for value in self.root.inputs if value.number in self._saved]
        return (*inputs, *self._inside(self.root, "", 1, depth))

    def _inside(self, box: Box, path: str, level: int, depth: int | None) -> tuple[Item, ...]:
        found = []
        for number, inner in enumerate(box.boxes):
            if self._is_left_out(inner):
                continue
            item = self._item(inner, f"{path}.{number}" if path else f"{number}", level, depth)
            if item.drawn is None:
                found.append(item)
            elif id(inner) in self._reverse:
                found.append(replace(item, drawn=self._loading(item.drawn)))
            else:
                values = [value for value in item.drawn.outs if value.number in self._saved]
                found += [item, *[saving(value, self._saved[value.number]) for value in values]]
        return tuple(found)

    def _loading(self, drawn: Drawn) -> Drawn:
        """Return the drawing of an operation of the reverse pass, which loads the saved tensors that it reads."""
        values = [
            replace(value, role="saved", name=self._saved[value.number]) if value.number in self._saved else value
            for value in drawn.ins
        ]
        return replace(drawn, ins=tuple(values))

    @property
    def is_backward(self) -> bool:
        """Whether tensors of the forward pass are saved for the reverse pass."""
        return bool(self._saved)

    def last_read(self, number: int) -> int:
        """Return the place of the last leaf that reads a tensor; results are read at the end of the run."""
        return self._reads.get(number, -1)

    def _item(self, box: Box, place: str, level: int, depth: int | None) -> Item:
        return replace(self._new_item(box, place, level, depth), end=self._ends[id(box)])

    def _new_item(self, box: Box, place: str, level: int, depth: int | None) -> Item:
        title = box_title(box.name, box.label)
        single = self._single_operation(box)
        if single is not None:
            drawn = self._drawn.get(id(box)) or drawing_of(single, box.name, self.symbols)
            self._drawn[id(box)] = drawn
            return Item(box, place, drawn, title=title)
        if is_lift(box) and not is_named(box, self.options.closed):
            return Item(box, place, None, self._inside(box, place, level, depth), title, plain=True)
        if self.is_open(box, level, depth):
            items = self._inside(box, place, level + 1, depth)
            if items:
                return Item(box, place, None, items, title)
        return Item(box, place, self._closed(box, title), title=title, closed=True)

    def is_open(self, box: Box, level: int, depth: int | None) -> bool:
        """Return whether the box of a circuit or module is open: by its name, or because the depth reaches it."""
        if not box.boxes or is_named(box, self.options.closed):
            return False
        if self.options.opened and any(is_named(inner, self.options.opened) for inner in box.walk()):
            return True
        return depth is None or level < depth

    def _closed(self, box: Box, title: str) -> Drawn:
        """Return a closed box with every tensor that it reads and returns, those of closures included."""
        read = {value.number: value for value in box.inputs if value.role not in LEARNED}
        made = {value.number: value for value in box.outputs}
        inside: dict[int, Value] = {}
        lifted = {inner for each in box.walk() for inner, _, _ in each.lifted}
        for leaf in _leaves(box):
            for value in leaf.inputs:
                if value.number not in inside and value.number not in lifted and value.role not in LEARNED:
                    read.setdefault(value.number, value)
            inside |= {value.number: value for value in leaf.outputs}
        inside |= {value.number: value for each in box.walk() if each.kind == "transform" for value in each.outputs}
        end = self._ends[id(box)]
        ends = {value.number for each in box.walk() if each.kind == "transform" for value in each.inside}
        for number, value in inside.items():
            if self._reads.get(number, -1) >= end and number not in ends:
                made.setdefault(number, value)
        given = [value for value in box.inputs if value.role not in LEARNED]
        known = {value.number for value in given} | set(inside)
        extra = [value for number, value in read.items() if number not in known]
        return closed_box(box, [*given, *extra], list(made.values()), title)

    def _single_operation(self, box: Box) -> Box | None:
        """Return the only operation in a box, such as that of nn.Linear; None if there is none."""
        if box.kind == "operation" or (box.call is not None and not box.boxes):
            return box
        inner = only_operation(box, self._is_left_out)
        return inner and replace(inner, inputs=_outer_names(box.inputs, inner.inputs), outputs=box.outputs)

    def _is_left_out(self, box: Box) -> bool:
        """Return whether a box computes nothing that is drawn.

        These are a function that returns its arguments, and an operation that overwrites a buffer without data of the
        run and whose result is not read.
        """
        if box.error or any(inner.error for inner in box.walk()):
            return False
        if box.kind == "operation":
            unread = all(self._reads.get(value.number, -1) < self._ends[id(box)] for value in box.outputs)
            return bool(box.mutates) and unread and all(value.role in ("buffer", "parameter") for value in box.inputs)
        if box.boxes:
            return all(self._is_left_out(inner) for inner in box.boxes) and not box.inside
        read = {value.number for value in box.inputs}
        return box.call is None and all(value.number in read for value in box.outputs)


def is_lift(box: Box) -> bool:
    """Return whether a box is a call of `torch.vmap`, or a circuit that `broadcast` made, which consists of one."""
    if box.kind == "transform":
        return box.label.startswith("vmap") and bool(box.inside)
    return box.kind == "circuit" and len(box.boxes) == 1 and is_lift(box.boxes[0]) and box.boxes[0].kind == "transform"


def saving(value: Value, name: str) -> Item:
    """Return the end of a tensor that is saved by name."""
    drawn = Drawn(
        (value,), (), (Link("glyph", tuple(ports(0, value)), (), "memory", (Span("→ ", "upright"), *axis_label(name))),)
    )
    return Item(Box("operation", "", f"save {name}"), f"save {value.number}", drawn, title=f"save {name}")


def _leaves(box: Box) -> Iterator[Box]:
    """Yield the boxes without boxes inside, in the order of the run."""
    if not box.boxes:
        yield box
    for inner in box.boxes:
        yield from _leaves(inner)


def _outer_names(outer: Sequence[Value], inner: Sequence[Value]) -> tuple[Value, ...]:
    """Return the inputs of the only operation in a module with the names that their axes have outside."""
    named = {value.number: value for value in outer}
    return tuple([replace(named[value.number], role=value.role) if value.number in named else value for value in inner])


def is_named(box: Box, names: Sequence[str]) -> bool:
    """Return whether a box has one of these names: its class or function, its name or its path in the model."""
    return any(name in (box.label, box.name, box.path, box_title(box.name, box.label)) for name in names)


__all__ = ["Item", "Reader", "is_lift", "is_named", "saving", "uses"]
