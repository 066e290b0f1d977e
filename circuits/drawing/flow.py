"""How tensors go between repeated boxes: from each to the next, or saved by one and loaded by another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circuits.drawing.contents import Item, uses
from circuits.drawing.equality import places, weights


@dataclass(frozen=True)
class Flow:
    """How tensors go between repetitions.

    Attributes:
        groups: The items of each repetition.
        made, read: The numbers of the tensors that each makes, and that each reads from outside.
        chained: Whether each reads what the one before it made, always the same places.
        loads: The tensors that each reads in one place, all different and none made by the one before, by place.
        saves: The places of made tensors that are read elsewhere than in the next repetition.
        clean: Whether the repetitions have the same numbers of tensors.
    """

    groups: list[Sequence[Item]]
    made: list[list[int]]
    read: list[list[int]]
    chained: bool
    loads: dict[int, list[int]]
    saves: list[int]
    clean: bool

    @property
    def shared(self) -> list[int]:
        """The numbers of the tensors from outside that every repetition reads in the same place."""
        return [sources[0] for sources in zip(*self.read, strict=False) if len(set(sources)) == 1]

    @property
    def is_chain(self) -> bool:
        """Whether tensors go from each repetition to the next only."""
        return self.clean and self.chained and not self.loads and not self.saves and self.weights is not None

    @property
    def weights(self) -> str | None:
        """Whether the repetitions have their own weights or the same, in words; None if some have and some have not."""
        return weights([[item.box for item in group] for group in self.groups])


def flow_of(items: Sequence[Item], reads: Callable[[int], int], start: int, length: int, times: int) -> Flow:
    """Return how tensors go between repetitions.

    Args:
        items: The items.
        reads: Returns the place of the last leaf that reads a tensor.
        start, length, times: The first item of the repetitions, how many each has, and how many there are.
    """
    groups = [items[start + length * number : start + length * (number + 1)] for number in range(times)]
    made = [[number for item in group for number in item.makes] for group in groups]
    read = [list(dict.fromkeys(uses(group))) for group in groups]
    clean = len({places(numbers) for numbers in _numbers_of(groups)}) == 1
    chained, loads = False, dict[int, list[int]]()
    for place in range(len(read[0]) if clean else 0):
        sources = [numbers[place] for numbers in read]
        before = [
            numbers.index(each) if each in numbers else -1 for numbers, each in zip(made, sources[1:], strict=False)
        ]
        if len(set(sources)) == 1:
            continue
        if -1 not in before and len(set(before)) == 1:
            chained = True
        else:
            loads[place] = sources
    saves = []
    for place in range(len(made[0]) if clean else 0):
        for number, numbers in enumerate(made[:-1]):
            end = groups[number + 1][-1].end
            if reads(numbers[place]) >= end and place not in saves:
                saves.append(place)
    return Flow(groups, made, read, chained, loads, saves, clean)


def _numbers_of(groups: Sequence[Sequence[Item]]) -> list[list[int]]:
    """Return the numbers of the tensors that each repetition reads and makes, item by item."""
    return [[number for item in group for number in (*item.needs, *item.makes)] for group in groups]


__all__ = ["Flow", "flow_of"]
