"""Repeated boxes, which are drawn once in brackets: only what is equal in boxes, axes, sizes, numbers and wiring.

Each repetition reads what the one before it made, in the same places, and the same other tensors; what a repetition
makes is read by the next one only, and by what follows the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from circuits.diagram import Box, Struct, Wire, substitute
from circuits.drawing.contents import Item, uses
from circuits.drawing.operations import LEARNED

_LONGEST = 8
"""The largest number of boxes in one repetition."""


def folded(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return items with repeated ones folded, at every level."""
    items = [replace(item, items=folded(item.items)) if item.drawn is None else item for item in items]
    contents: dict[Any, int] = {}
    kinds = [contents.setdefault(_content(item.box), len(contents)) for item in items]
    readers = _readers(items)
    found: list[Item] = []
    start = 0
    while start < len(items):
        length, times = _longest(items, kinds, readers, start)
        if times > 1:
            found.append(_repeated(items, start, length, times))
        else:
            found.append(items[start])
        start += length * times
    return tuple(found)


def _readers(items: Sequence[Item]) -> Mapping[int, list[int]]:
    """Return the places of the items that read each tensor."""
    found: dict[int, list[int]] = {}
    for place, item in enumerate(items):
        for number in item.needs:
            found.setdefault(number, []).append(place)
    return found


def _longest(items: Sequence[Item], kinds: Sequence[int], readers: Any, start: int) -> tuple[int, int]:
    """Return the length and number of the repetitions that begin at an item: those that cover the most items."""
    best = (1, 1)
    for length in range(1, min(_LONGEST, (len(items) - start) // 2) + 1):
        times = 1
        end = start + length
        while kinds[start : start + length] == kinds[end : end + length] and len(kinds[end : end + length]) == length:
            times, end = times + 1, end + length
        if times > 1 and all(item.box.kind == "operation" for item in items[start : start + length]):
            continue
        while times > 1 and not _is_chain(items, readers, start, length, times):
            times -= 1
        if times > 1 and length * times > best[0] * best[1]:
            best = (length, times)
    return best


def _is_chain(items: Sequence[Item], readers: Mapping[int, list[int]], start: int, length: int, times: int) -> bool:
    """Return whether each repetition reads what the one before it made, and nothing else reads that."""
    groups = [items[start + length * number : start + length * (number + 1)] for number in range(times)]
    made = [[number for item in group for number in item.makes] for group in groups]
    read = [list(dict.fromkeys(uses(group))) for group in groups]
    if len({len(numbers) for numbers in made}) > 1 or len({len(numbers) for numbers in read}) > 1:
        return False
    chained = False
    for place in range(len(read[0])):
        sources = [read[number][place] for number in range(times)]
        if len(set(sources)) == 1:
            continue
        chains = [
            made[number].index(source) if source in made[number] else -1 for number, source in enumerate(sources[1:])
        ]
        if -1 in chains or len(set(chains)) > 1:
            return False
        chained = True
    for number, numbers in enumerate(made[:-1]):
        stop = start + length * (number + 2)
        if any(place >= stop for each in numbers for place in readers.get(each, ())):
            return False
    return chained


def _repeated(items: Sequence[Item], start: int, length: int, times: int) -> Item:
    """Return repeated items as one, which holds those of the first repetition."""
    first = items[start : start + length]
    last = items[start + length * (times - 1) : start + length * times]
    pairs = [pair for one, two in zip(first, last, strict=True) for pair in zip(one.makes, two.makes, strict=True)]
    own = any(one.box.path != two.box.path for one, two in zip(first, last, strict=True))
    note = "own weights" if own else "the same weights"
    if not any(item.box.parameters for item in first):
        note = ""
    title = first[0].title
    box = replace(first[0].box, lifted=(), inside=(), outputs=last[-1].box.outputs)
    return Item(box, f"{first[0].id}×{times}", None, tuple(first), title, times=times, note=note, last=tuple(pairs))


def _content(box: Box) -> Any:
    """Return all that has to be equal in repetitions: labels, axes, sizes, dtypes and numbers, but no names."""
    ports = tuple(
        [(str(value), value.shape, value.dtype, value.role in LEARNED) for value in (*box.inputs, *box.outputs)]
    )
    return box.label, box.kind, ports, _numbers(box), box.error, tuple([_content(inner) for inner in box.boxes])


def _numbers(box: Box) -> str:
    """Return the arguments of a call as text, without the numbers of tensors."""
    if box.call is None:
        return ""
    args = Struct(tuple, (), (box.call.args, box.call.kwargs))
    return repr(substitute(args, lambda wire: Wire(0), lambda scalar: scalar))


__all__ = ["folded"]
