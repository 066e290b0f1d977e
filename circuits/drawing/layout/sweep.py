"""The order of all wires and fence edges from top to bottom, column by column, from the left edge to the right.

Each column has four stations: `before`, where its wires arrive; `opened`, where those of each group that begins are
neighbours; `at`, where they enter the steps, in the order in which the steps take them; and `done`, after the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.drawing.layout.crossing import (
    Key,
    Pair,
    alignment,
    arrangement,
    falling,
    keeps_order,
    outcome,
    unchanged,
)
from circuits.drawing.layout.schedule import Schedule, reads, schedule, walk
from circuits.drawing.scene import Group, Node, Scene, Step, Strand


@dataclass
class Column:
    """One column: the steps in it, the groups that begin and end in it, and the order of things at its stations.

    Attributes:
        before: The order at its left.
        opened: The order inside the fences that begin here.
        at: The order where wires enter the steps.
        done: The order after the steps, inside the fences that end here.
        aligned: Which things go on in one row through the steps.
        steps: The steps, each with its number.
        opens, closes: The groups that begin and end here, outer ones first.
        strands: The strands at its left, with the names that their wires have there.
        after: The strands at its right, with the names that their wires have there.
        outer: The strands that enter the groups which begin here, with the names that their wires have outside.
        inner: The strands that leave the brackets which end here, with the names that their wires have inside.
        same: For each wire that a step only passes on, joins or copies, the wire before it.
        falls: The wires that come down beside the steps, next to the wire below them in their tensor.
        rows: What each step, each tensor that passes and each edge has at `at` and at `done`, from top to bottom.
    """

    before: list[Key] = field(default_factory=list)
    opened: list[Key] = field(default_factory=list)
    at: list[Key] = field(default_factory=list)
    done: list[Key] = field(default_factory=list)
    aligned: list[Pair] = field(default_factory=list)
    steps: list[tuple[int, Step]] = field(default_factory=list)
    opens: list[int] = field(default_factory=list)
    closes: list[int] = field(default_factory=list)
    strands: dict[int, Strand] = field(default_factory=dict)
    after: dict[int, Strand] = field(default_factory=dict)
    outer: dict[int, Strand] = field(default_factory=dict)
    inner: dict[int, Strand] = field(default_factory=dict)
    same: dict[Key, Key] = field(default_factory=dict)
    falls: set[Key] = field(default_factory=set)
    rows: list[tuple[list[Key], list[Key]]] = field(default_factory=list)


class _Region:
    """What a group holds at a place of the sweep: strands and regions, from top to bottom."""

    def __init__(self, group: int, entries: list["int | _Region | _Event"]) -> None:
        self.group, self.entries = group, entries


class _Event:
    """A step in the column that is being swept, in the place of the strands that it reads."""

    def __init__(self, number: int, step: Step, ins: list[int]) -> None:
        self.number, self.step, self.ins = number, step, ins


class Sweep:
    """The columns of a scene.

    Attributes:
        columns: The columns, from left to right.
        groups: The groups, by number.
        strands: Every strand with the names that it has at the present column.
        last: The strands at the right edge.
        extended: Whether a column follows the last steps, in which wires cross into the order of their tensors.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.schedule: Schedule = schedule(scene)
        self.columns: list[Column] = []
        self.groups: list[Group] = []
        self.strands: dict[int, Strand] = {strand.id: strand for strand in scene.strands}
        self.orders: dict[int, list[int]] = {strand.id: list(strand.order) for strand in scene.strands}
        self._starting: dict[int, list[tuple[Node, int]]] = {}
        self._ending: dict[int, list[int]] = {}
        self._regions: dict[int, _Region] = {}
        self._parents: dict[int, int] = {}
        self._steps = 0
        self.extended = False
        self._read_with = {strand: node for node in walk(scene.nodes) for node in [reads(node)] for strand in node}
        self._collect(scene.nodes, -1)
        self._regions[-1] = _Region(-1, [strand for strand, _ in scene.inputs])
        last = self.schedule.columns - 1
        for number in range(last + 1):
            self._sweep(number, number == last)
        if self.extended:
            self._sweep(last + 1, False)
        self.last: list[int] = [entry for entry in self._regions[-1].entries if isinstance(entry, int)]

    def _collect(self, nodes: Sequence[Node], parent: int) -> None:
        """Sort the nodes by the columns in which they begin and end."""
        for node in nodes:
            start, end = self.schedule.of(node)
            if isinstance(node, Group):
                number = len(self.groups)
                self.groups.append(node)
                self._parents[number] = parent
                self._starting.setdefault(start, []).append((node, number))
                self._ending.setdefault(end - 1, []).append(number)
                self._collect(node.nodes, number)
            else:
                self._starting.setdefault(start, []).append((node, parent))

    def _sweep(self, number: int, last: bool) -> None:
        """Add one column; after the last, groups go on for one more if wires have to be brought into order."""
        column = Column()
        column.before = self._keys(self._regions[-1])
        starting = self._starting.get(number, [])
        for node, group in starting:
            if isinstance(node, Group):
                self._open(node, group, column)
        column.opened = self._keys(self._regions[-1])
        column.strands = {strand: self.strands[strand] for kind, strand, _ in column.opened if kind == "wire"}
        for node, group in starting:
            if isinstance(node, Step):
                self._begin(node, group, column)
        column.at, events = self._arranged(self._regions[-1], {})
        column.aligned = [Pair(key, key) for key in column.at if key[0] not in ("above", "note")]
        self._run(self._regions[-1], events, column)
        column.done = self._keys(self._regions[-1])
        if last and any(self.orders[key[1]] != self._wanted(key[1]) for key in column.done if key[0] == "wire"):
            self._ending[number + 1] = self._ending.pop(number, [])
            self.extended: bool = True
        groups = [self.groups[group] for group in self._ending.get(number, [])]
        ending = {strand.id for group in groups if _contracts_twice(group) for strand in group.outs}
        for _, step in column.steps:
            if ending & set(step.outs):
                column.falls |= falling(step, self.orders)
        for group in reversed(self._ending.get(number, [])):
            self._close(group, column)
        column.after = {strand: self.strands[strand] for kind, strand, _ in column.done if kind == "wire"}
        self.columns.append(column)

    def _keys(self, region: _Region) -> list[Key]:
        """Return what has a height in a region, from top to bottom."""
        found: list[Key] = []
        for entry in region.entries:
            if isinstance(entry, _Region):
                found += self._keys(entry)
            elif isinstance(entry, int):
                found += [("wire", entry, place) for place in self.orders[entry]]
        return self._fenced(region, found)

    def _fenced(self, region: _Region, keys: list[Key]) -> list[Key]:
        """Return what is in a region between its edges, if it has a fence or a bracket."""
        if region.group < 0 or not (self.groups[region.group].fill or self.groups[region.group].times > 1):
            return keys
        return [("top", region.group, 0), *keys, ("bottom", region.group, 0)]

    def _open(self, node: Group, number: int, column: Column) -> None:
        """Begin a group: its strands become neighbours, in the order of its arguments, with the names inside."""
        parent = self._regions[self._parents[number]]
        inside = reads(node)
        region = _Region(number, list(inside))
        _replace(parent.entries, inside, region)
        self._regions[number] = region
        for strand in node.ins:
            column.outer.setdefault(strand.id, self.strands[strand.id])
            self.strands[strand.id] = strand
        column.opens.append(number)

    def _close(self, number: int, column: Column) -> None:
        """End a group: what is left in it belongs to the group around it, with the names that it has there."""
        region, parent = self._regions.pop(number), self._regions[self._parents[number]]
        place = parent.entries.index(region)
        parent.entries[place : place + 1] = region.entries
        for strand in self.groups[number].outs:
            if self.groups[number].times > 1:
                column.inner.setdefault(strand.id, self.strands[strand.id])
            self.strands[strand.id] = strand
        column.closes.append(number)

    def _begin(self, step: Step, group: int, column: Column) -> None:
        """Put a step in the place of the strands that it reads, which become neighbours; its sources begin there."""
        region = self._regions[group]
        begun = {strand for strand, _ in step.sources}
        present = [entry for entry in region.entries if isinstance(entry, int) and entry in set(step.ins)]
        ins = [strand for strand in present if strand not in begun]
        ins = list(step.ins) if keeps_order(step) else [*ins, *[strand for strand in step.ins if strand in begun]]
        event = _Event(self._steps, step, ins)
        self._steps += 1
        column.steps.append((event.number, step))
        if present or not self._beside(step, region, event):
            _replace(region.entries, present, event)

    def _beside(self, step: Step, region: _Region, event: _Event) -> bool:
        """Put a step that reads nothing beside the strands that are read together with its result, if there are any."""
        together = next((self._read_with[out] for out in step.outs if out in self._read_with), [])
        places = {
            entry: place for place, entry in enumerate(region.entries) if isinstance(entry, int) and entry in together
        }
        if places:
            mine = min([together.index(out) for out in step.outs if out in together])
            above = [place for entry, place in places.items() if together.index(entry) < mine]
            region.entries.insert(max(above) + 1 if above else min(places.values()), event)
        return bool(places)

    def _arranged(self, region: _Region, events: dict[int, list[Key]]) -> tuple[list[Key], dict[int, list[Key]]]:
        """Return the order of a region where wires enter the steps, and that of the wires of each step."""
        found: list[Key] = []
        for entry in region.entries:
            if isinstance(entry, _Region):
                found += self._arranged(entry, events)[0]
            elif isinstance(entry, _Event):
                keys = arrangement(entry.step, {strand: self._wanted(strand) for strand in entry.ins}, entry.ins)
                alone = not entry.step.ins and not entry.step.outs  # a box without wires has a row too
                over = alone or entry.step.above or entry.step.sign
                above: list[Key] = [("above", entry.number, 0)] if over else []
                note: list[Key] = [("note", entry.number, 0)] if entry.step.noted else []
                events[entry.number] = [*note, *above, *keys]
                found += events[entry.number]
            else:
                self.orders[entry] = self._wanted(entry)
                found += [("wire", entry, place) for place in self.orders[entry]]
        return self._fenced(region, found), events

    def _wanted(self, strand: int) -> list[int]:
        """Return the order of the wires of a strand that was chosen for the names that it has here."""
        return list(self.strands[strand].order)

    def _run(self, region: _Region, events: dict[int, list[Key]], column: Column) -> None:
        """Replace the steps of a region by the strands that they make."""
        entries: list[int | _Region | _Event] = []
        edges = self._fenced(region, [])
        column.rows += [([edge], [edge]) for edge in edges[:1]]
        for entry in region.entries:
            if isinstance(entry, _Region):
                self._run(entry, events, column)
            if isinstance(entry, int):
                keys = [("wire", entry, place) for place in self.orders[entry]]
                column.rows.append((keys, keys))
            if isinstance(entry, _Event):
                wanted = {strand: self._wanted(strand) for strand in entry.step.outs}
                outs = outcome(entry.step, events[entry.number], wanted)
                for strand, places in outs.items():
                    self.orders[strand] = places
                entries += list(entry.step.outs)
                made = [("wire", strand, place) for strand in entry.step.outs for place in self.orders[strand]]
                column.rows.append((events[entry.number], made))
                column.aligned += alignment(entry.step, events[entry.number], outs)
                column.same |= unchanged(entry.step)
            else:
                entries.append(entry)
        column.rows += [([edge], [edge]) for edge in edges[1:]]
        region.entries = entries


def _contracts_twice(group: Group) -> bool:
    """Return whether a group has two contractions or more, after the last of which the upper wires come down."""
    cups = [any(link.kind == "cup" for link in node.links) for node in group.nodes if isinstance(node, Step)]
    return sum(cups) > 1


def _replace(entries: list[Any], old: Sequence[int], new: object) -> None:
    """Replace several entries by one, in the place of the first; without any, it comes last."""
    place = next(
        (number for number, entry in enumerate(entries) if isinstance(entry, int) and entry in old), len(entries)
    )
    entries[:] = [
        *entries[:place],
        new,
        *[entry for entry in entries[place:] if not (isinstance(entry, int) and entry in old)],
    ]


__all__ = ["Column", "Key", "Pair", "Sweep"]
