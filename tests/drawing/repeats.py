"""What is drawn once in brackets or lifted: whether it is repeated in the diagram, and which tensors stand for which.

Repetitions have to be equal in labels, sizes and wiring, and each may read, beside tensors that all of them read, only
what the one before it made in the same place. After the brackets a tensor of the last repetition is read.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.diagram import Box


@dataclass
class Repeats:
    """What the brackets of a drawing leave out.

    Attributes:
        hidden: The ids of the boxes that are not drawn: those of all repetitions but the first.
        first: For each tensor of the last repetition, that of the first; for those of a transform, the other one.
        wrong: Brackets around what is not repeated, as sentences.
    """

    hidden: set[str] = field(default_factory=set)
    first: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def same(self, number: int) -> int:
        """Return the number of the tensor that is drawn in place of a tensor."""
        seen: set[int] = set()
        while number in self.first and number not in seen:
            seen.add(number)
            number = self.first[number]
        return number


def repeats(root: Box, brackets: dict[str, int], drawn: Iterable[str]) -> Repeats:
    """Return what brackets leave out.

    Args:
        root: The outermost box of the diagram.
        brackets: How often each is repeated, by the id of the first box in it.
        drawn: The ids of the boxes that are drawn, closed and open.
    """
    found = Repeats()
    for box in root.walk():
        if box.kind == "transform":
            found.first |= {inside: outside for inside, outside, _ in box.lifted if inside != outside}
            pairs = zip(box.inside, box.outputs, strict=False)
            found.first |= {outer.number: inner.number for inner, outer in pairs if inner.number != outer.number}
    everything = [each for each in drawn if re.fullmatch(r"[\d.]+", each)]
    for start in sorted(brackets, key=lambda start: (start.count("."), start)):
        path, _, place = start.rpartition(".")
        boxes = root.boxes
        for number in path.split(".") if path else ():
            boxes = boxes[int(number)].boxes
        prefix = f"{path}." if path else ""
        shown = {int(each.removeprefix(prefix).split(".")[0]) for each in everything if each.startswith(prefix)}
        groups = _groups(boxes, int(place), brackets[start], shown)
        if groups is None:
            found.wrong.append(f"the bracket of box {start} is not around {brackets[start]} equal repetitions")
            continue
        _check(start, [[boxes[number] for number in group] for group in groups], boxes, groups, found)
        found.hidden |= {f"{prefix}{number}" for group in groups[1:] for number in group}
    return found


def _groups(boxes: Sequence[Box], place: int, times: int, shown: set[int]) -> list[list[int]] | None:
    """Return the places of the boxes of each repetition, of which the first alone is drawn; None if there are none."""
    for length in range(1, (len(boxes) - place) // times + 1):
        groups = [list(range(place + length * n, place + length * (n + 1))) for n in range(times)]
        contents = [[content(boxes[number]) for number in group] for group in groups]
        if all(each == contents[0] for each in contents) and not shown & {n for group in groups[1:] for n in group}:
            return groups
    return None


def content(box: Box) -> Any:
    """Return what has to be equal in repetitions of a box."""
    learned = ("parameter", "buffer")
    values = (*box.inputs, *box.outputs)
    ports = [(value.axes, value.sizes, value.dtype, value.role if value.role in learned else "") for value in values]
    return box.label, box.kind, ports, [content(inner) for inner in box.boxes]


def _check(
    start: str, repetitions: list[list[Box]], boxes: Sequence[Box], groups: list[list[int]], found: Repeats
) -> None:
    """Note which tensors stand for which, and what is wrong with the wiring of repetitions."""
    wiring = [_wiring(boxes) for boxes in repetitions]
    made = [each.made for each in wiring]
    if any(each.local != wiring[0].local for each in wiring):
        found.wrong.append(f"the repetitions of box {start} are wired in different ways")
        return
    for place, one in enumerate(wiring[0].outside):
        sources = [each.outside[place] for each in wiring]
        chained = [made[n].index(number) if number in made[n] else -1 for n, number in enumerate(sources[1:])]
        if len(set(sources)) > 1 and (-1 in chained or len(set(chained)) > 1):
            found.wrong.append(f"the repetitions of box {start} read {one} and then something else: {sources}")
    inner = {number for numbers in made[:-1] for number in numbers}
    places = {number for group in groups for number in group}
    for number, box in enumerate(boxes):
        read = {value.number for each in box.walk() for value in each.inputs} & inner
        if number not in places and read:
            found.wrong.append(f"{box.label} reads {sorted(read)} from inside the bracket of box {start}")
    found.first.update({last: first for first, last in zip(made[0], made[-1], strict=True) if first != last})


@dataclass
class _Wiring:
    """What the boxes of one repetition read, by places; what they make; and what they read from outside."""

    local: list[str] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)


def _wiring(boxes: Sequence[Box]) -> _Wiring:
    """Return the wiring of one repetition, by the boxes in it that have none inside."""
    found = _Wiring()
    for box in [inner for each in boxes for inner in each.walk() if not inner.boxes]:
        for value in box.inputs:
            if value.role in ("parameter", "buffer"):
                found.local.append(value.role)
            elif value.number in found.made:
                found.local.append(f"made {found.made.index(value.number)}")
            else:
                found.outside += [] if value.number in found.outside else [value.number]
                found.local.append(f"outside {found.outside.index(value.number)}")
        found.made += [each.number for each in box.outputs if each.number not in (*found.made, *found.outside)]
    return found
