"""Lanes of bends: wires that bend between the same two columns do so one beside the other, so that none coincide.

Of wires that go down the lowest bends first, and of those that go up the highest: so they do not cross each other.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

LANE = 5.0
"""The distance of the middles of neighbouring bends."""

K = TypeVar("K", bound=Hashable)


def lanes(moves: Mapping[K, tuple[float, float]]) -> dict[K, float]:
    """Return for each wire how far the middle of its bend is to the right of the middle of the slot.

    Args:
        moves: The height of each wire before and after the bend; those that keep it are left out of the result.
    """
    bent = {key: move for key, move in moves.items() if abs(move[1] - move[0]) > 0.005}
    down = sorted([(-before, -after, place) for place, (before, after) in enumerate(bent.values()) if after > before])
    up = sorted([(before, after, place) for place, (before, after) in enumerate(bent.values()) if after < before])
    keys = list(bent)
    found: dict[K, float] = {}
    for side in (down, up):
        for number, (_, _, place) in enumerate(side):
            found[keys[place]] = (number - (len(side) - 1) / 2) * LANE
    return found


def lanes_width(count: int) -> float:
    """Return how much wider a slot is for several bends than for one."""
    return max(count - 1, 0) * LANE


__all__ = ["LANE", "lanes", "lanes_width"]
