"""Rows: which things stay at one height from column to column, and the heights that keep all distances.

A run is a thing that keeps its height over several stations. Where the order of things changes from one station to the
next, a longest increasing subsequence keeps its runs, and the others begin new ones: they are the wires that bend.
Within a station each thing is below the one before it by at least their distance; the heights are the smallest that
satisfy this (longest paths in a graph without cycles, because runs never cross).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from circuits.drawing.layout.sweep import Key, Pair

Station = list[tuple[Key, int]]
"""The things at one station from top to bottom, each with its run."""


@dataclass
class Runs:
    """The runs of a row of the picture: how many, and the distances between neighbours.

    Attributes:
        count: The number of runs.
        below: For each run the runs that have been directly below it at a station, each with the largest distance.
        sinking: Pairs of runs of which the second is not above the first, if that is possible.
        hanging: Runs that are as low as those below them allow, such as the upper edges of fences.
    """

    count: int = 0
    below: list[dict[int, float]] = field(default_factory=list)
    sinking: list[tuple[int, int]] = field(default_factory=list)
    hanging: set[int] = field(default_factory=set)

    def new(self) -> int:
        """Return a new run."""
        self.below.append({})
        self.count += 1
        return self.count - 1

    def station(self, keys: Sequence[Key], known: dict[Key, int], distance: Callable[[Key, Key], float]) -> Station:
        """Return a station, with new runs for the things that have none.

        Args:
            keys: The things, from top to bottom.
            known: The runs of those that have one.
            distance: The smallest distance of two neighbours.
        """
        found = [(key, known[key] if key in known else self.new()) for key in keys]
        for (key, run), (lower, next_run) in pairwise(found):
            self.below[run][next_run] = max(self.below[run].get(next_run, 0.0), distance(key, lower))
        self.hanging |= {run for key, run in found if key[0] in ("top", "above", "note")}
        return found

    def part(
        self,
        at: Mapping[Key, int],
        done: Mapping[Key, int],
        rows: Sequence[tuple[Sequence[Key], Sequence[Key]]],
        distance: Callable[[Key, Key], float],
    ) -> None:
        """Keep what ends or begins between two stations apart from its neighbours at the other one.

        Args:
            at, done: The two stations.
            rows: What each thing has at the one and at the other, from top to bottom.
            distance: The smallest distance of two neighbours.
        """
        last: dict[int, Key] = {}
        for row in rows:
            sides = [[key for key in keys if key in runs] for keys, runs in zip(row, (at, done), strict=True)]
            for side, here, there in ((0, at, done), (1, done, at)):
                if side in last and sides[1 - side]:
                    upper, lower = here[last[side]], there[sides[1 - side][0]]
                    if upper != lower:
                        below, least = self.below[upper], distance(last[side], sides[1 - side][0])
                        below[lower] = max(below.get(lower, 0.0), least)
            if all(sides) and [key[0] for key in sides[0]] == ["note"]:  # a step without wires that enter
                self.below[at[sides[0][0]]].setdefault(done[sides[1][0]], distance(sides[0][0], sides[1][0]))
            last |= {side: keys[-1] for side, keys in enumerate(sides) if keys}

    def hang(self, station: Mapping[Key, int], keys: set[Key]) -> None:
        """Let the runs of some things of a station be as low as those below them allow."""
        self.hanging |= {run for key, run in station.items() if key in keys}

    def sink(self, before: Mapping[Key, int], after: Mapping[Key, int], sources: Mapping[Key, Key]) -> None:
        """Let wires that bend only go down: their new runs are not above the runs from which they come.

        Args:
            before, after: The stations before and after the bends.
            sources: For each wire that bends, the wire from which it comes; others cross nothing.
        """
        for key, source in sources.items():
            if source in before and key in after and before[source] != after[key]:
                self.sinking.append((before[source], after[key]))

    def heights(self) -> list[float]:
        """Return the height of each run, in distances of neighbouring wires from the top."""
        below = [dict(lower) for lower in self.below]
        for upper, lower in self.sinking:
            below[upper].setdefault(lower, 0.0)
        order = _topological(below)
        if len(order) < self.count:  # wires that only go down would have to cross: some may rise
            below = self.below
            order = _topological(below)
        heights = [0.0] * self.count
        for run in order:
            for lower, distance in below[run].items():
                heights[lower] = max(heights[lower], heights[run] + distance)
        for run in reversed(order):
            if run in self.hanging and self.below[run]:
                hung = min([heights[lower] - distance for lower, distance in self.below[run].items()])
                heights[run] = max(heights[run], hung)
        return heights


def _topological(below: Sequence[Mapping[int, float]]) -> list[int]:
    """Return the runs, each after those above it; those of a cycle are left out."""
    above = [0] * len(below)
    for lower in below:
        for run in lower:
            above[run] += 1
    order = [run for run, count in enumerate(above) if not count]
    for run in order:
        for lower in below[run]:
            above[lower] -= 1
            if not above[lower]:
                order.append(lower)
    return order


def kept(before: Station, after: Sequence[Key], pairs: Sequence[Pair], loose: set[Key]) -> dict[Key, int]:
    """Return the runs that go on at the next station.

    Args:
        before: The station.
        after: The things at the next station, from top to bottom.
        pairs: Which thing goes on as which.
        loose: The things at the next station that begin a new run in any case.
    """
    runs, places = dict(before), {key: place for place, (key, _) in enumerate(before)}
    target = {key: place for place, key in enumerate(after)}
    candidates = sorted(
        [
            (places[old], target[new], new, old)
            for old, new in pairs
            if old in places and new in target and new not in loose
        ]
    )
    edges = [entry for entry in candidates if entry[2][0] in ("top", "bottom")]
    others = [entry for entry in candidates if entry[2][0] not in ("top", "bottom")]
    chosen = edges + _increasing([entry for entry in others if _fits(entry, edges)])
    return {new: runs[old] for _, _, new, old in chosen}


def crossed(before: Sequence[Key], after: Sequence[Key]) -> set[Key]:
    """Return the wires that cross another wire of their tensor between two stations: both of them bend (Figure 17)."""
    places = {key: place for place, key in enumerate(before)}
    found: set[Key] = set()
    strands: dict[int, list[Key]] = {}
    for key in after:
        if key[0] == "wire" and key in places:
            strands.setdefault(key[1], []).append(key)
    for keys in strands.values():
        order = [places[key] for key in keys]
        lowest = [min(order[number:]) for number in range(len(order))]
        highest = [max(order[: number + 1]) for number in range(len(order))]
        found |= {
            key
            for key, place, low, high in zip(keys, order, lowest, highest, strict=True)
            if low < place or high > place
        }
    return found


def _fits(entry: tuple[int, int, Key, Key], edges: Sequence[tuple[int, int, Key, Key]]) -> bool:
    """Return whether a thing stays on the same side of every fence edge."""
    low = bisect_left([edge[0] for edge in edges], entry[0])
    return low == bisect_left([edge[1] for edge in edges], entry[1])


def _increasing(entries: Sequence[tuple[int, int, Key, Key]]) -> list[tuple[int, int, Key, Key]]:
    """Return a longest subsequence whose places at the next station increase; entries are sorted by the first."""
    ends: list[int] = []
    tails: list[int] = []
    previous: list[int] = []
    for number, entry in enumerate(entries):
        place = bisect_left(ends, entry[1])
        previous.append(tails[place - 1] if place else -1)
        if place == len(ends):
            ends.append(entry[1])
            tails.append(number)
        else:
            ends[place], tails[place] = entry[1], number
    found = []
    number = tails[-1] if tails else -1
    while number >= 0:
        found.append(entries[number])
        number = previous[number]
    return found[::-1]


__all__ = ["Runs", "Station", "crossed", "kept"]
