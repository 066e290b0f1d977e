"""Repeated boxes, which the table shows once with a count: layers of one shape, or one module called several times."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from circuits.diagram.boxes import Box

_MAX_GROUP = 8
"""The largest number of boxes in a repeated group."""


def repeated_groups(boxes: Sequence[Box]) -> Iterator[tuple[list[Box], int]]:
    """Yield groups of consecutive boxes, each with the number of its consecutive repetitions (1 if it is not repeated).

    A group is repeated if the boxes after it have the same content, except names, and each module among them is the
    same module again or has a higher index in the same container: `blocks.1` after `blocks.0`. At least one box has to
    be a module. If several repeated groups start at the same box, the one whose repetitions cover the most boxes is
    used. The boxes that are yielded are those of the first repetition, with the names of all: `blocks.0…11`.
    """
    contents = [_content(box) for box in boxes]
    start = 0
    while start < len(boxes):
        length, times = max(
            [(length, _repetitions(boxes, contents, start, length)) for length in range(1, _MAX_GROUP + 1)],
            key=lambda group: (group[0] * group[1] if group[1] > 1 else 1, -group[0]),
        )
        length = length if times > 1 else 1
        last = start + (times - 1) * length
        yield [_named_for_all(boxes[start + step], boxes[last + step]) for step in range(length)], times
        start += length * times


def _repetitions(boxes: Sequence[Box], contents: Sequence[Any], start: int, length: int) -> int:
    """Return the number of consecutive repetitions of the group of `length` boxes at `start`, itself included."""
    times = 1
    while start + length * (times + 1) <= len(boxes):
        before, after = start + length * (times - 1), start + length * times
        pairs = [(boxes[before + step], boxes[after + step]) for step in range(length)]
        alike = all(contents[before + step] == contents[after + step] for step in range(length))
        if not (alike and all(_can_repeat(*pair, length) for pair in pairs) and any(box.path for box, _ in pairs)):
            return times
        times += 1
    return times


def _can_repeat(box: Box, after: Box, length: int) -> bool:
    """Return whether `after` can be a repetition of `box` in a group of `length` boxes.

    A module can be repeated by itself, or by a module of the same container whose index is higher by at most `length`.
    Any other box can be repeated by a box of the same kind, but only in a group of several boxes.
    """
    if box.kind == "operation" or box.path == after.path:
        return box.kind == after.kind and (length > 1 or bool(box.path))
    (stem, _, number), (stem_after, _, number_after) = box.path.rpartition("."), after.path.rpartition(".")
    numbered = number.isdigit() and number_after.isdigit()
    return stem == stem_after and numbered and int(number) < int(number_after) <= int(number) + length


def _named_for_all(first: Box, last: Box) -> Box:
    """Return the first of several boxes with the name of all of them: `blocks.0…11`."""
    return first if last.name == first.name else replace(first, name=f"{first.name}…{last.name.rpartition('.')[2]}")


def _content(box: Box) -> tuple[Any, ...]:
    """Return all that the table shows of a box and of the boxes inside it, except names."""
    inner = tuple([_content(inside) for inside in box.boxes])
    ports = tuple([(str(value), value.shape, value.dtype) for value in (*box.inputs, *box.outputs)])
    return box.label, ports, box.parameter_count, box.error, inner


__all__ = ["repeated_groups"]
