"""Repeated boxes, which are drawn once in brackets: only what is equal in boxes, axes, numbers and wiring.

Each repetition reads what the one before it made, in the same places, and the same other tensors; what a repetition
makes is read by the next one only, and by what follows the last. Sizes are equal, or follow a rule (`families`). If
repetitions return a tensor each that is read later, it is saved by name, C_λ, and loaded by name (Figure 27).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from circuits.diagram import Box, Value, size_text
from circuits.drawing.contents import Item, Reader
from circuits.drawing.equality import Kinds, values_of, weights
from circuits.drawing.families import Families
from circuits.drawing.flow import Flow, flow_of
from circuits.drawing.members import Members
from circuits.drawing.renaming import named, with_axes, with_loads, with_saves

LastRead = Callable[[int], int]
"""Returns the place of the last leaf that reads a tensor."""

_LONGEST = 8
"""The largest number of boxes in one repetition."""

_RULE = 3
"""The smallest number of repetitions whose sizes follow a rule: two sizes are none."""


@dataclass
class Folding:
    """What is known of repetitions in one picture.

    Attributes:
        reader: The boxes of the diagram, and where each tensor is read.
        families: The sizes that follow a rule.
        saved: The name of each tensor that is saved, by number: its letter and its place.
        returned: What the legend says of the saved tensors that are results.
    """

    reader: Reader
    families: Families = field(default_factory=Families)
    saved: dict[int, tuple[str, int]] = field(default_factory=dict)
    returned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.members: Members = Members(self.families)

    def folded(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Return items with repeated ones folded, at every level."""
        items = [replace(item, items=self.folded(item.items)) if item.drawn is None else item for item in items]
        strict, loose = [_runs(_kinds(items, kinds)) for kinds in self.reader.kinds]
        reads = self.reader.last_read

        def chains(*run: int) -> bool:
            return flow_of(items, reads, *run).is_chain

        def follows(*run: int) -> bool:
            return self._follows(flow_of(items, reads, *run))

        found: list[Item] = []
        start = 0
        while start < len(items):
            length, times = _longest(items, strict, start, 2, chains)
            if times > 1:
                once = _repeated(items, start, length, times)
                shared = self._saved_names(flow_of(items, reads, start, length, times).shared) if self.saved else {}
                found.append(with_loads(once, shared) if shared else once)
            else:
                length, times = _longest(items, loose, start, _RULE, follows)
                found.append(
                    self._ruled(items, reads, start, length, times) if times > 1 else self._loading(items[start])
                )
            start += length * times
        return tuple(found)

    def legend(self) -> tuple[str, ...]:
        """Return what the letters stand for, one line each."""
        return (*self.families.lines(self.reader.options.pairs), *self.returned)

    def _follows(self, flow: Flow) -> bool:
        """Return whether repetitions whose sizes differ can be drawn once.

        In a backward diagram they are not: the reverse pass loads the tensors of each by names of their own.
        """
        return (
            not self.reader.is_backward
            and flow.chained
            and flow.clean
            and flow.weights is not None
            and all(self._loads(sources) is not None for sources in flow.loads.values())
        )

    def _loads(self, sources: Sequence[int]) -> str | None:
        """Return the name of the tensors that the repetitions load, one each: `C[5-λ]`; None if it follows no rule."""
        names = [self.saved.get(number) for number in sources]
        letters = {name[0] for name in names if name is not None}
        if None in names or len(letters) != 1:
            return None
        places = [name[1] for name in names if name is not None]
        steps = {after - before for before, after in pairwise(places)}
        if steps not in ({1}, {-1}):
            return None
        step = steps.pop()
        offset = places[0] - step
        text = f"{offset}-λ" if step < 0 else "λ" if not offset else f"λ{offset:+d}"
        return f"{letters.pop()}[{text}]"

    def _loading(self, item: Item) -> Item:
        """Return an item in which the tensors that were saved are loaded by name."""
        return with_loads(item, self._saved_names(self.saved)) if self.saved else item

    def _saved_names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the name by which each of some tensors is saved, if it is: `C[2]`."""
        saved = {number: self.saved[number] for number in numbers if number in self.saved}
        return {number: f"{letter}[{place}]" for number, (letter, place) in saved.items()}

    def _ruled(self, items: Sequence[Item], reads: LastRead, start: int, length: int, times: int) -> Item:
        """Return repetitions whose sizes follow rules as one item."""
        flow = flow_of(items, reads, start, length, times)
        loads = self._saved_names(flow.shared)
        loads |= {flow.read[0][place]: self._loads(sources) or "" for place, sources in flow.loads.items()}
        saves: dict[int, str] = {}
        results = {value.number for value in self.reader.root.outputs}
        for place in flow.saves:
            letter = "C" + "'" * len({name for name, _ in self.saved.values()})
            saves[flow.made[0][place]] = f"{letter}[λ]"
            self.saved |= {numbers[place]: (letter, number) for number, numbers in enumerate(flow.made, start=1)}
            ends = [number for number, numbers in enumerate(flow.made, start=1) if numbers[place] in results]
            if len(ends) == times:
                self.returned.append(f"{letter}[i] is returned  (i = 1…{times})")
            elif ends:
                members = [f"{letter}[{number}]" for number in ends]
                self.returned.append(f"{', '.join(members)} {'is' if len(ends) == 1 else 'are'} returned")
        names = self._names([[item.box for item in group] for group in flow.groups])
        first = [named(with_loads(item, loads), names) for item in flow.groups[0]]
        whole = _repeated(items, start, length, times)
        return replace(whole, items=tuple(with_saves(first, saves, names)))

    def _names(self, groups: Sequence[Sequence[Box]]) -> dict[Value, Value]:
        """Return each tensor of the first repetition with the names of its axes by λ."""
        together = [values_of(boxes) for boxes in groups]
        runs = list(zip(*together, strict=True))
        places = [(run, axis) for run in runs for axis in range(len(run[0].sizes))]
        sizes = [tuple([value.sizes[axis] for value in run]) for run, axis in places]
        names = [run[0].axes[axis] or size_text(run[0].sizes[axis]) for run, axis in places]
        varying = Counter([each for each in sizes if len(set(each)) > 1])
        for each, _ in varying.most_common():
            self.families.label(each, next(name for name, size in zip(names, sizes, strict=True) if size == each))
        labels: dict[tuple[int, int], str] = {}  # also where a box inside has another name for the axis
        for (run, axis), each, name in zip(places, sizes, names, strict=True):
            if len(set(each)) > 1 and (run[0].number, axis) not in labels:
                labels[run[0].number, axis] = self.families.label(each, name)
                self.members.note(labels[run[0].number, axis], run, axis)
        return {first: with_axes(first, labels) for first, *_ in runs}


def _kinds(items: Sequence[Item], kinds: Kinds) -> list[int]:
    """Return a number for each item, equal for those of equal content."""
    known: dict[Any, int] = {}
    return [known.setdefault(kinds.of(item.box), len(known)) for item in items]


def _longest(
    items: Sequence[Item], runs: Sequence[Sequence[int]], start: int, least: int, is_repetition: Callable[..., bool]
) -> tuple[int, int]:
    """Return the length and number of the repetitions that begin at an item: those that cover the most items.

    Args:
        items: The items.
        runs: For each length of one repetition from 1 on and for each item, how many items from it on equal the one
            a length later.
        start: The first item.
        least: The smallest number of repetitions.
        is_repetition: Whether repetitions, given by their first item, length and number, can be drawn once; if so,
            fewer can, down to `least`.
    """
    best = (1, 1)
    for length in range(1, min(_LONGEST, (len(items) - start) // 2) + 1):
        group = items[start : start + length]
        if runs[length - 1][start] < length or all(item.box.kind == "operation" for item in group):
            continue
        most = 1 + runs[length - 1][start] // length
        times = _most(most, least, lambda number, length=length: is_repetition(start, length, number))
        if times == 2 and all(item.drawn is not None for item in group):
            continue  # two small boxes are easier to read than a bracket
        if times > 1 and length * times > best[0] * best[1]:
            best = (length, times)
    return best


def _runs(kinds: Sequence[int]) -> list[list[int]]:
    """Return, for each length of a repetition and each item, how many items from it on equal the one a length later."""
    found = []
    for length in range(1, _LONGEST + 1):
        runs = [0] * len(kinds)
        for place in range(len(kinds) - length - 1, -1, -1):
            runs[place] = runs[place + 1] + 1 if kinds[place] == kinds[place + length] else 0
        found.append(runs)
    return found


def _most(most: int, least: int, holds: Callable[[int], bool]) -> int:
    """Return the largest number for which something holds that holds for all smaller ones down to the least; or 1.

    >>> _most(100, 2, lambda number: number < 40), _most(100, 3, lambda number: number < 3)
    (39, 1)

    Numbers are doubled before they are halved, so that the work is that of the result and not of `most`.
    """
    if most < least or not holds(least):
        return 1
    good, bad = least, most + 1
    while 2 * good < bad and bad > most:
        if holds(2 * good):
            good *= 2
        else:
            bad = 2 * good
    return bisect_left(range(bad), True, lo=good + 1, key=lambda number: not holds(number)) - 1


def _repeated(items: Sequence[Item], start: int, length: int, times: int) -> Item:
    """Return repeated items as one, which holds those of the first repetition."""
    first = items[start : start + length]
    last = items[start + length * (times - 1) : start + length * times]
    pairs = [pair for one, two in zip(first, last, strict=True) for pair in zip(one.makes, two.makes, strict=True)]
    boxes = [item.box for item in items]
    note = weights([boxes[start + length * number : start + length * (number + 1)] for number in range(times)]) or ""
    box = replace(first[0].box, lifted=(), inside=(), outputs=last[-1].box.outputs)
    title = first[0].title
    whole = Item(box, f"{first[0].id}×{times}", None, tuple(first), title, times=times, note=note, last=tuple(pairs))
    ids = [tuple([items[start + place + length * n].id for n in range(times)]) for place in range(length)]
    return replace(whole, end=last[-1].end, again=tuple(ids))


__all__ = ["Folding"]
