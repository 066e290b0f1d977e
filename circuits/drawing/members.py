"""Names outside of brackets: an axis whose size is a member of a family has the letter with its number (Figure 27).

The letters in brackets depend on λ: c_{λ-1}, c_λ. Each repetition has its own tensors, whose axes have a number each,
and the tensors that enter the first and leave the last repetition have it outside too: x̄_5 and c_4 behind four blocks.

In the same box the same axis has the same name: an axis of the same name, or one without a name at the same place of
a tensor with as many axes, of the same size. The legend lists the size of each letter, so that no label is wrong. The
inputs and results of the diagram keep their names, since both sides of an equation have them.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from circuits.diagram import Box, Value
from circuits.drawing.contents import Item
from circuits.drawing.families import Families
from circuits.drawing.operations import LEARNED
from circuits.drawing.renaming import relabelled, relabelled_box, with_axes

Axis = tuple[int, int]
"""The number of a tensor, and the place of the axis in it."""


@dataclass
class Members:
    """The axes that have a member's name outside of brackets.

    Attributes:
        families: The sizes that follow a rule.
        known: The name of each axis, `c[4]`.
    """

    families: Families
    known: dict[Axis, str] = field(default_factory=dict)

    def note(self, label: str, run: Sequence[Value], axis: int) -> None:
        """Set the names of an axis in all repetitions.

        Args:
            label: Its name by λ.
            run: The tensor of each repetition.
            axis: The place of the axis in it.
        """
        for value, place in zip(run, count(1)):
            self.known.setdefault((value.number, axis), at(label, place))

    def named(self, items: Sequence[Item], root: Box) -> tuple[Item, ...]:
        """Return items in which axes have the names of members.

        Args:
            items: What is drawn inside the outermost box.
            root: The outermost box.
        """
        before = -1
        while before < len(self.known):
            before = len(self.known)
            for scope in _scopes(items):
                self._spread(scope)
        ends = frozenset([value.number for value in (*root.inputs, *root.outputs)])
        return tuple([self._named(item, ends) for item in items])

    def _spread(self, scope: Iterable[Item]) -> None:
        """Name the axes in one box that are the same as one with a name."""
        values = [value for item in scope for value in _values(item) if value.role not in LEARNED]
        axes = [(value, axis) for value in values for axis in range(len(value.sizes))]
        names: dict[Hashable, set[str]] = defaultdict(set)
        for value, axis in axes:
            known = self.known.get((value.number, axis)) or self.families.member(value.axes[axis], value.sizes[axis])
            if known is not None:
                self.known[value.number, axis] = known
                names[value.axes[axis]].add(known)
                names[_place(value, axis)].add(known)
        for value, axis in axes:
            same = names.get(value.axes[axis] or _place(value, axis), set())
            if len(same) == 1:
                self.known.setdefault((value.number, axis), *same)

    def _named(self, item: Item, ends: frozenset[int]) -> Item:
        """Return an item with the names that axes have in its box.

        Args:
            item: The item.
            ends: The tensors that keep their names: those of the diagram's edges, in the outermost box.
        """

        def rename(value: Value) -> Value:
            return self.families.outside(value if value.number in ends else with_axes(value, self.known))

        box, drawn = relabelled_box(item.box, rename), item.drawn
        if drawn is not None:
            sides = [tuple([rename(value) for value in side]) for side in (drawn.ins, drawn.outs)]
            return replace(item, box=box, drawn=replace(drawn, ins=sides[0], outs=sides[1]))
        if item.times > 1:
            inner = [relabelled(each, self.families.outside) for each in item.items]
        else:
            inner = [self._named(each, frozenset()) for each in item.items]
        return replace(item, box=box, items=tuple(inner))


def at(label: str, place: int) -> str:
    """Return the name that an axis has in one repetition.

    >>> at("c[λ-1]", 3), at("2*c[5-λ]", 3), at("c[λ]", 3)
    ('c[2]', '2*c[2]', 'c[3]')

    Args:
        label: Its name by λ.
        place: The value of λ.
    """
    found = re.fullmatch(r"(.*)\[(?:(-?\d+)-λ|λ([+-]\d+)?)\]", label)
    if found is None:
        raise ValueError(f"{label!r} is no name by λ")
    number = place + int(found[3] or 0) if found[2] is None else int(found[2]) - place
    return f"{found[1]}[{number}]"


def _scopes(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items in each box, those in brackets excepted."""
    once = [item for item in items if item.times == 1]
    yield once
    for item in once:
        if item.items:
            yield from _scopes(item.items)


def _values(item: Item) -> Iterable[Value]:
    """Return the tensors that an item reads and makes, with the names that they have outside of it."""
    return (*item.box.inputs, *item.box.outputs)


def _place(value: Value, axis: int) -> Hashable:
    """Return what is equal for an axis without a name and the same axis of other tensors in the box."""
    return len(value.sizes), axis, value.sizes[axis]


__all__ = ["Members", "at"]
