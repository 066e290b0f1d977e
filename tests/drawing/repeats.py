"""What is drawn once in brackets or lifted: whether it is repeated in the diagram, and which tensors stand for which.

Repetitions have to be equal in labels, numbers and wiring, and each may read, beside tensors that all of them read,
only what the one before it made in the same place, and what it loads by name. After the brackets a tensor of the last
repetition is read, or one that is saved by name. Sizes are compared with the labels elsewhere, for each repetition.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.diagram import Box
from tests.drawing.rules import Rules


@dataclass
class Repeats:
    """What the brackets of a drawing leave out.

    Attributes:
        hidden: The ids of the boxes that are not drawn: those of all repetitions but the first.
        first: For each tensor of the last repetition, that of the first; for those of a transform, the other one.
        wrong: Brackets around what is not repeated, as sentences.
        each: By the first box in a bracket: for each tensor of the first repetition, those of all in its place.
    """

    hidden: set[str] = field(default_factory=set)
    first: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    each: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict)

    def same(self, number: int) -> int:
        """Return the number of the tensor that is drawn in place of a tensor."""
        seen: set[int] = set()
        while number in self.first and number not in seen:
            seen.add(number)
            number = self.first[number]
        return number

    def all_of(self, start: str, number: int) -> tuple[int, ...]:
        """Return what stands in each repetition in the place of a tensor that is drawn inside a bracket."""
        known = self.each.get(start, {})
        return known.get(number) or known.get(self.same(number), ())


def repeats(root: Box, rules: Rules, drawn: Iterable[str], named: Sequence[set[int]]) -> Repeats:
    """Return what brackets leave out.

    Args:
        root: The outermost box of the diagram.
        rules: The brackets of the drawing.
        drawn: The ids of the boxes that are drawn, closed and open.
        named: The tensors that are saved by a name with λ, and those that are loaded.
    """
    found = Repeats()
    for box in root.walk():
        if box.kind == "transform":
            found.first |= {inside: outside for inside, outside, _ in box.lifted if inside != outside}
            pairs = zip(box.inside, box.outputs, strict=False)
            found.first |= {outer.number: inner.number for inner, outer in pairs if inner.number != outer.number}
    everything = [each for each in drawn if re.fullmatch(r"[\d.]+", each)]
    for start in sorted(rules.brackets, key=lambda start: (start.count("."), start)):
        path, _, place = start.rpartition(".")
        boxes = root.boxes
        for number in path.split(".") if path else ():
            boxes = boxes[int(number)].boxes
        prefix = f"{path}." if path else ""
        shown = {int(each.removeprefix(prefix).split(".")[0]) for each in everything if each.startswith(prefix)}
        times = rules.brackets[start].times
        groups = _groups(boxes, int(place), times[0], shown) if len(set(times)) == 1 else None
        if groups is None:
            found.wrong.append(f"the bracket of box {start} is not around {times} equal repetitions")
            continue
        _check(start, [[boxes[number] for number in group] for group in groups], root, named, found)
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
    """Return what has to be equal in repetitions of a box: all but the sizes and the names of axes."""
    learned = ("parameter", "buffer")
    values = (*box.inputs, *box.outputs)
    ports = [(len(value.sizes), value.dtype, value.role if value.role in learned else "") for value in values]
    label = box.label.partition(" ")[0] if box.kind == "operation" else box.label
    return label, box.kind, ports, _numbers(box), [content(inner) for inner in box.boxes]


def _numbers(box: Box) -> str:
    """Return the arguments of a call as text, without the tensors."""
    return "" if box.call is None else re.sub(r"Wire\(number=\d+\)", "a tensor", f"{box.call.args} {box.call.kwargs}")


def _check(start: str, repetitions: list[list[Box]], root: Box, named: Sequence[set[int]], found: Repeats) -> None:
    """Note which tensors stand for which, and what is wrong with the wiring of repetitions."""
    wiring = [_wiring(boxes) for boxes in repetitions]
    made = [each.made for each in wiring]
    saved, loaded = named
    if any(each.local != wiring[0].local for each in wiring):
        found.wrong.append(f"the repetitions of box {start} are wired in different ways")
        return
    for place, one in enumerate(wiring[0].outside):
        sources = [each.outside[place] for each in wiring]
        chained = [made[n].index(number) if number in made[n] else -1 for n, number in enumerate(sources[1:])]
        if len(set(sources)) > 1 and (-1 in chained or len(set(chained)) > 1) and one not in loaded:
            found.wrong.append(f"the repetitions of box {start} read {one} and then something else: {sources}")
    later = {number for numbers in made[:-1] for number, one in zip(numbers, made[0], strict=True) if one not in saved}
    inside = {id(inner) for boxes in repetitions for box in boxes for inner in box.walk()}
    for box in root.walk():
        read = {value.number for value in box.inputs} & later
        if id(box) not in inside and not box.boxes and read:
            found.wrong.append(f"{box.label} reads {sorted(read)} from inside the bracket of box {start}")
    together = [[*each.made, *each.outside] for each in wiring]
    found.each[start] = {numbers[0]: numbers for numbers in zip(*together, strict=True)}
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
