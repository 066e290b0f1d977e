"""The order of all wires and fence edges from top to bottom, column by column, from the left edge to the right.

Each column has four stations: `before`, where its wires arrive; `opened`, where those of each group that begins are
neighbours; `at`, where they enter the steps, in the order in which the steps take them; and `done`, after the steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from circuits.drawing.layout.schedule import Schedule, reads, schedule
from circuits.drawing.scene import Group, Link, Node, Port, Scene, Step, Strand

Key = tuple[str, int, int]
"""One thing with a height: ("wire", strand, place), ("top", group, 0), ("bottom", group, 0) or ("above", step, 0)."""


class Pair(NamedTuple):
    """A thing before the steps and what goes on in its row after them."""

    before: Key
    after: Key


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
        same: For each wire that a step only passes on, joins or copies, the wire before it.
        falls: The wires that come down beside the steps, next to the wire below them in their tensor.
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
    same: dict[Key, Key] = field(default_factory=dict)
    falls: set[Key] = field(default_factory=set)


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
        self._collect(scene.nodes, -1)
        self._regions[-1] = _Region(-1, [strand for strand, _ in scene.inputs])
        for column in range(self.schedule.columns):
            self._sweep(column)
        self.last = [entry for entry in self._regions[-1].entries if isinstance(entry, int)]

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

    def _sweep(self, number: int) -> None:
        """Add one column."""
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
        column.aligned = [Pair(key, key) for key in column.at if key[0] != "above"]
        self._run(self._regions[-1], events, column)
        column.done = self._keys(self._regions[-1])
        ending = {strand.id for group in self._ending.get(number, []) for strand in self.groups[group].outs}
        for _, step in column.steps:
            if ending & set(step.outs):
                column.falls |= falling(step, self.orders)
        for group in reversed(self._ending.get(number, [])):
            self._close(group, column)
        column.after = {strand: self.strands[strand] for kind, strand, _ in column.done if kind == "wire"}
        self.columns.append(column)

    def _keys(self, region: _Region) -> list[Key]:
        """Return what has a height in a region, from top to bottom."""
        found: list[Key] = [("top", region.group, 0)] if region.group >= 0 else []
        for entry in region.entries:
            if isinstance(entry, _Region):
                found += self._keys(entry)
            elif isinstance(entry, int):
                found += [("wire", entry, place) for place in self.orders[entry]]
        return found + ([("bottom", region.group, 0)] if region.group >= 0 else [])

    def _open(self, node: Group, number: int, column: Column) -> None:
        """Begin a group: its strands become neighbours, with the names that they have inside."""
        parent = self._regions[self._parents[number]]
        wanted = reads(node)
        inside = [entry for entry in parent.entries if isinstance(entry, int) and entry in set(wanted)]
        region = _Region(number, list(inside))
        _replace(parent.entries, inside, region)
        self._regions[number] = region
        for strand in node.ins:
            column.outer.setdefault(strand.id, self.strands[strand.id])
            self.strands[strand.id] = strand
        column.opens.append(number)

    def _close(self, number: int, column: Column) -> None:
        """End a group: what is left in it goes back to the group around it, with the names that it has there."""
        region, parent = self._regions.pop(number), self._regions[self._parents[number]]
        place = parent.entries.index(region)
        parent.entries[place : place + 1] = region.entries
        for strand in self.groups[number].outs:
            self.strands[strand.id] = strand
        column.closes.append(number)

    def _begin(self, step: Step, group: int, column: Column) -> None:
        """Put a step in the place of the strands that it reads, which become neighbours; its sources begin there."""
        region = self._regions[group]
        begun = {strand for strand, _ in step.sources}
        present = [entry for entry in region.entries if isinstance(entry, int) and entry in set(step.ins)]
        ins = [strand for strand in present if strand not in begun]
        ins = _with_sources(ins, step) if begun else list(step.ins) if _keeps_order(step) else ins
        event = _Event(self._steps, step, ins)
        self._steps += 1
        column.steps.append((event.number, step))
        _replace(region.entries, present, event)

    def _arranged(self, region: _Region, events: dict[int, list[Key]]) -> tuple[list[Key], dict[int, list[Key]]]:
        """Return the order of a region where wires enter the steps, and that of the wires of each step."""
        found: list[Key] = [("top", region.group, 0)] if region.group >= 0 else []
        for entry in region.entries:
            if isinstance(entry, _Region):
                found += self._arranged(entry, events)[0]
            elif isinstance(entry, _Event):
                keys = arrangement(entry.step, {strand: self._wanted(strand) for strand in entry.ins}, entry.ins)
                events[entry.number] = keys
                found += [("above", entry.number, 0)] if entry.step.above or entry.step.sign else []
                found += keys
            else:
                self.orders[entry] = self._wanted(entry)
                found += [("wire", entry, place) for place in self.orders[entry]]
        return found + ([("bottom", region.group, 0)] if region.group >= 0 else []), events

    def _wanted(self, strand: int) -> list[int]:
        """Return the order of the wires of a strand that was chosen for the names that it has here."""
        return list(self.strands[strand].order)

    def _run(self, region: _Region, events: dict[int, list[Key]], column: Column) -> None:
        """Replace the steps of a region by the strands that they make."""
        entries: list[int | _Region | _Event] = []
        for entry in region.entries:
            if isinstance(entry, _Region):
                self._run(entry, events, column)
            if isinstance(entry, _Event):
                wanted = {strand: self._wanted(strand) for strand in entry.step.outs}
                outs = outcome(entry.step, events[entry.number], wanted)
                for strand, places in outs.items():
                    self.orders[strand] = places
                entries += list(entry.step.outs)
                column.aligned += alignment(entry.step, events[entry.number], outs)
                column.same |= unchanged(entry.step)
            else:
                entries.append(entry)
        region.entries = entries


def _replace(entries: list, old: Sequence[int], new: object) -> None:
    """Replace several entries by one, in the place of the first; without any, it comes last."""
    place = next(
        (number for number, entry in enumerate(entries) if isinstance(entry, int) and entry in old), len(entries)
    )
    entries[:] = [
        *entries[:place],
        new,
        *[entry for entry in entries[place:] if not (isinstance(entry, int) and entry in old)],
    ]


def _with_sources(ins: list[int], step: Step) -> list[int]:
    """Return the strands of a step in the order of its arguments, if some of them begin in it."""
    return list(step.ins)


def _keeps_order(step: Step) -> bool:
    """Return whether the result depends on the order of what a step reads, so that it has to be seen."""
    if step.sign in ("+", "×", "=", "≠", "∧", "∨"):
        return False
    return len(step.ins) > 1 and not any(link.kind == "cup" for link in step.links)


def stays(step: Step, link: Link, rows: Mapping[Key, float]) -> Port:
    """Return which of the wires of a join keeps its row: of a contraction the lower, else the upper (Figures 17, 27)."""
    contracts = not step.sign and not step.above and all(each.kind != "glyph" for each in step.links)
    by_row = sorted(link.ins, key=lambda port: rows["wire", step.ins[port[0]], port[1]])
    return by_row[-1] if contracts else by_row[0]


def arrangement(step: Step, orders: dict[int, list[int]], ins: Sequence[int]) -> list[Key]:
    """Return the order in which wires enter a step.

    The wires of one glyph become neighbours, and contracted wires go to the sides of their tensors that face each
    other: last in the upper, first in the lower.

    Args:
        step: The step.
        orders: The order of the wires of each strand.
        ins: The strands from top to bottom.
    """
    kinds = {port: link for link in step.links for port in link.ins}
    ranked = {strand: place for place, strand in enumerate(ins)}
    cups = [link for link in step.links if link.kind == "cup"]
    found: list[Key] = []
    above: list[tuple[int, int]] = []
    for strand in ins:
        index = step.ins.index(strand)
        wires = orders[strand]
        cupped = [wire for wire in wires if kinds[index, wire].kind == "cup"]
        upper = bool(cupped) and all(_is_upper(kinds[index, wire], (index, wire), step, ranked) for wire in cupped)
        wires = _contracted_side(wires, cupped, upper, lambda wire: kinds[index, wire].kind in ("join", "cup"))
        if cupped and not upper and cups:
            wires = _nested(wires, cupped, above, step, index)
        above += [(index, wire) for wire in wires if wire in cupped]
        found += [("wire", strand, wire) for wire in _glyphs_together(wires, index, kinds)]
    return found


def _is_upper(link: Link, port: Port, step: Step, ranked: dict[int, int]) -> bool:
    """Return whether a contracted wire is the upper of its two; the first of two in one tensor is."""
    other = next(each for each in link.ins if each != port)
    mine, theirs = ranked[step.ins[port[0]]], ranked[step.ins[other[0]]]
    return (mine, port[1]) < (theirs, other[1])


def _contracted_side(
    wires: Sequence[int], cupped: Sequence[int], upper: bool, meets: Callable[[int], bool]
) -> list[int]:
    """Return the wires of a strand with the contracted ones after (upper) or before (lower) the wires that go on."""
    if not cupped:
        return list(wires)
    others = [wire for wire in wires if wire not in cupped]
    going_on = [place for place, wire in enumerate(others) if not meets(wire)]
    if upper:
        place = going_on[-1] + 1 if going_on else len(others)
        first = [wires.index(wire) for wire in cupped][0]
        place = max(place, len([wire for wire in wires[:first] if wire not in cupped]))
    else:
        place = going_on[0] if going_on else 0
    return [*others[:place], *cupped, *others[place:]]


def _nested(wires: list[int], cupped: Sequence[int], above: list[tuple[int, int]], step: Step, index: int) -> list[int]:
    """Return the wires of the lower strand with the contracted ones in reverse, so that cups are inside each other."""
    partner = {}
    for link in step.links:
        if link.kind == "cup":
            partner[link.ins[0]], partner[link.ins[1]] = link.ins[1], link.ins[0]
    order = {port: place for place, port in enumerate(above)}
    sorted_wires = iter(sorted(cupped, key=lambda wire: -order.get(partner[index, wire], 0)))
    return [next(sorted_wires) if wire in cupped else wire for wire in wires]


def _glyphs_together(wires: Sequence[int], index: int, kinds: dict[Port, Link]) -> list[int]:
    """Return the wires of a strand with those of one glyph as neighbours, in the place of the last of them."""
    found: list[int] = []
    for wire in wires:
        link = kinds[index, wire]
        mine = [other for other in wires if kinds[index, other] is link]
        if link.kind != "glyph" or len(mine) == 1:
            found.append(wire)
        elif wire == mine[-1]:
            found += sorted(mine, key=lambda each: (index, each) in link.channels[0])
    return found


def falling(step: Step, orders: Mapping[int, Sequence[int]]) -> set[Key]:
    """Return the wires of upper tensors that come down after the last contraction of a group (Figures 20, 21 and 28).

    Args:
        step: The step.
        orders: The order of the wires of each strand.
    """
    if not any(link.kind == "cup" for link in step.links) or len(step.ins) < 2:
        return set()
    found: set[Key] = set()
    made = {port: link for link in step.links for port in link.outs}
    for index, strand in enumerate(step.outs):
        wires = orders[strand]
        upper = [made[index, wire].kind == "pass" and made[index, wire].ins[0][0] == 0 for wire in wires]
        if not all(upper):
            found |= {("wire", strand, wire) for wire, is_upper in zip(wires, upper, strict=True) if is_upper}
    return found


def outcome(step: Step, entering: Sequence[Key], wanted: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """Return the order of the wires of each strand that a step makes: that in which the rows go on.

    Args:
        step: The step.
        entering: Its wires in the order in which they enter it.
        wanted: The chosen order of the wires of each strand that it makes, which those of one glyph have.
    """
    rows = {key: place for place, key in enumerate(entering)}
    found: dict[int, list[int]] = {}
    for index, strand in enumerate(step.outs):
        places: dict[int, float] = {}
        for link in step.links:
            mine = [port for port in link.outs if port[0] == index]
            for port in mine:
                row = _row(step, link, port, rows, wanted[strand])
                if row is not None:
                    places[port[1]] = row
        count = max([port[1] for link in step.links for port in link.outs if port[0] == index], default=-1) + 1
        for wire in range(count):
            places.setdefault(wire, places[wire - 1] + 0.01 if wire else -1.0)
        found[strand] = sorted(range(count), key=lambda wire: (places[wire], wire))
    return found


def _row(step: Step, link: Link, port: Port, rows: dict[Key, int], wanted: Sequence[int]) -> float | None:
    """Return the row on which a wire leaves a step, as a place among those that enter; None for a wire that begins."""
    if not link.ins:
        return None
    if link.kind in ("join",):
        index, wire = stays(step, link, rows)
        return float(rows["wire", step.ins[index], wire])
    entered = sorted([rows["wire", step.ins[index], wire] for index, wire in link.ins])
    if link.kind != "glyph":
        return float(entered[0])
    mine = [each for each in link.outs if each[0] == port[0]]
    place = sorted(mine, key=lambda each: (each in link.channels[1], wanted.index(each[1]))).index(port)
    return entered[place] if place < len(entered) else entered[-1] + 0.1 * (place - len(entered) + 1)


def alignment(step: Step, entering: Sequence[Key], leaving: Mapping[int, Sequence[int]]) -> list[Pair]:
    """Return which wires go on in one row through a step: those that pass, and the first ones of each glyph."""
    rows = {key: place for place, key in enumerate(entering)}
    found = []
    for link in step.links:
        if not link.ins or not link.outs:
            continue
        if link.kind == "glyph":
            entered = sorted(link.ins, key=lambda port: rows["wire", step.ins[port[0]], port[1]])
            left = sorted(link.outs, key=lambda port: (port[0], leaving[step.outs[port[0]]].index(port[1])))
            pairs = list(zip(entered, left, strict=False))
        else:
            pairs = [(stays(step, link, rows) if link.kind == "join" else link.ins[0], link.outs[0])]
        for before, after in pairs:
            found.append(Pair(("wire", step.ins[before[0]], before[1]), ("wire", step.outs[after[0]], after[1])))
    return found


def unchanged(step: Step) -> dict[Key, Key]:
    """Return the wires that a step makes of one wire without a glyph, each with that wire."""
    return {
        ("wire", step.outs[port[0]], port[1]): ("wire", step.ins[link.ins[0][0]], link.ins[0][1])
        for link in step.links
        if link.kind in ("pass", "join", "fork")
        for port in link.outs
    }


__all__ = ["Column", "Key", "Pair", "Sweep", "alignment", "arrangement", "outcome", "stays", "unchanged"]
