"""Repeated boxes, which the table shows once with a count: layers of one shape, or one module called several times."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from circuits.diagram.boxes import Box

_LONGEST_GROUP = 8
"""The largest number of neighbours that can repeat together."""


def repeated_groups(boxes: Sequence[Box]) -> Iterator[tuple[list[Box], int]]:
    """Yield consecutive boxes in groups, each with the number of times that the group comes in a row.

    A group repeats if its boxes look alike, apart from their names, and a module in it is called again or is followed
    by the next of modules numbered `blocks.0`, `blocks.1`. Of the groups that begin at a box, the one whose repetitions
    cover most boxes is taken. The boxes of a group are those of its first repetition, named for all of them.
    """
    looks = [_look(box) for box in boxes]
    start = 0
    while start < len(boxes):
        length, times = max(
            [(length, _repetitions(boxes, looks, start, length)) for length in range(1, _LONGEST_GROUP + 1)],
            key=lambda group: (group[0] * group[1] if group[1] > 1 else 1, -group[0]),
        )
        length = length if times > 1 else 1
        last = start + (times - 1) * length
        yield [_named_for_all(boxes[start + step], boxes[last + step]) for step in range(length)], times
        start += length * times


def _repetitions(boxes: Sequence[Box], looks: Sequence[Any], start: int, length: int) -> int:
    """Return how many times the group of `length` boxes at `start` comes in a row."""
    times = 1
    while start + length * (times + 1) <= len(boxes):
        before, after = start + length * (times - 1), start + length * times
        pairs = [(boxes[before + step], boxes[after + step]) for step in range(length)]
        alike = all(looks[before + step] == looks[after + step] for step in range(length))
        if not alike or not all(_follows(*pair, length) for pair in pairs) or not any(pair[0].path for pair in pairs):
            return times
        times += 1
    return times


def _follows(box: Box, after: Box, length: int) -> bool:
    """Return whether `after` is the same module, or the next by number; an operation follows any in a longer group."""
    if box.kind == "operation" or box.path == after.path:
        return box.kind == after.kind and (length > 1 or bool(box.path))
    (stem, _, number), (stem_after, _, number_after) = box.path.rpartition("."), after.path.rpartition(".")
    numbered = number.isdigit() and number_after.isdigit()
    return stem == stem_after and numbered and int(number) < int(number_after) <= int(number) + length


def _named_for_all(first: Box, last: Box) -> Box:
    """Return the first of several boxes with the name of all of them: `blocks.0…11`."""
    return first if last.name == first.name else replace(first, name=f"{first.name}…{last.name.rpartition('.')[2]}")


def _look(box: Box) -> tuple[Any, ...]:
    """Return all that the table shows of a box and of the boxes inside it, except names."""
    inner = tuple([_look(inside) for inside in box.boxes])
    ports = tuple([(str(value), value.shape, value.dtype) for value in (*box.inputs, *box.outputs)])
    return box.label, ports, box.parameter_count, box.error, inner


__all__ = ["repeated_groups"]
