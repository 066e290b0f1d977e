"""How wires enter and leave one step: which become neighbours before it, and which go on in the same row after it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from circuits.drawing.scene import Link, Port, Step

Key = tuple[str, int, int]
"""One thing with a height: ("wire", strand, place), ("top", group, 0), ("bottom", group, 0), ("above", step, 0) or
("note", step, 0)."""


class Pair(NamedTuple):
    """A thing before the steps and what goes on in its row after them."""

    before: Key
    after: Key


def keeps_order(step: Step) -> bool:
    """Return whether the result depends on the order of what a step reads, so that it has to be seen."""
    if step.sign in ("+", "×", "=", "≠", "∧", "∨"):
        return False
    return len(step.ins) > 1 and not any(link.kind == "cup" for link in step.links)


def stays(step: Step, link: Link, rows: Mapping[Key, float]) -> Port:
    """Return which wire of a join keeps its row: of a contraction the lower, else the upper (Figures 17 and 27)."""
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
        if any({port[0] for port in kinds[index, wire].ins} == {index} for wire in cupped):
            found += [("wire", strand, wire) for wire in _glyphs_together(_traced(wires, index, kinds), index, kinds)]
            continue
        upper = bool(cupped) and all(_is_upper(kinds[index, wire], (index, wire), step, ranked) for wire in cupped)
        joined = [wire for wire in wires if kinds[index, wire].kind in ("join", "cup")]
        wires = _contracted_side(wires, cupped, upper, joined)
        if cupped and not upper and cups:
            wires = _nested(wires, cupped, above, step, index)
        above += [(index, wire) for wire in wires if wire in cupped]
        found += [("wire", strand, wire) for wire in _glyphs_together(wires, index, kinds)]
    return found


def _traced(wires: Sequence[int], index: int, kinds: Mapping[Port, Link]) -> list[int]:
    """Return the wires of a strand with two that are contracted with each other as neighbours."""
    found: list[int] = []
    for wire in wires:
        link = kinds[index, wire]
        mine = [other for other in wires if kinds[index, other] is link and link.kind == "cup"]
        found += [each for each in mine or [wire] if each not in found]
    return found


def _is_upper(link: Link, port: Port, step: Step, ranked: dict[int, int]) -> bool:
    """Return whether a contracted wire is the upper of its two; the first of two in one tensor is."""
    other = next(each for each in link.ins if each != port)
    mine, theirs = ranked[step.ins[port[0]]], ranked[step.ins[other[0]]]
    return (mine, port[1]) < (theirs, other[1])


def _contracted_side(wires: Sequence[int], cupped: Sequence[int], upper: bool, joined: Sequence[int]) -> list[int]:
    """Return the wires of a strand with the contracted ones after (upper) or before (lower) the wires that go on."""
    if not cupped:
        return list(wires)
    others = [wire for wire in wires if wire not in cupped]
    going_on = [place for place, wire in enumerate(others) if wire not in joined]
    if upper:
        place = going_on[-1] + 1 if going_on else len(others)
        first = wires.index(cupped[0])
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
    """Return which wires go on in one row through a step: those that pass, and the first ones of each glyph.

    The wires that leave a box stand below each other at its top: only the rows of its first tensor go on.
    """
    rows = {key: place for place, key in enumerate(entering)}
    found = []
    for link in step.links:
        if not link.ins or not link.outs:
            continue
        if link.kind == "glyph":
            entered = sorted(link.ins, key=lambda port: rows["wire", step.ins[port[0]], port[1]])
            left = sorted(link.outs, key=lambda port: (port[0], leaving[step.outs[port[0]]].index(port[1])))
            if link.shape == "box":
                entered = [port for port in entered if port[0] == entered[0][0]]
            pairs = _in_rows(link, entered, left)
        else:
            pairs = [(stays(step, link, rows) if link.kind == "join" else link.ins[0], link.outs[0])]
        for before, after in pairs:
            found.append(Pair(("wire", step.ins[before[0]], before[1]), ("wire", step.outs[after[0]], after[1])))
    return found


def _in_rows(link: Link, entered: Sequence[Port], left: Sequence[Port]) -> list[tuple[Port, Port]]:
    """Return which wires of a glyph go on in one row: from top to bottom, but no image below the row of a channel."""
    sides = (entered, link.channels[0]), (left, link.channels[1])
    images, channels = zip(
        *[
            ([port for port in ports if port not in own], [port for port in ports if port in own])
            for ports, own in sides
        ],
        strict=True,
    )
    if len(images[0]) < len(images[1]):
        return [*zip(*images, strict=False), *zip(*channels, strict=False)]
    return list(zip(entered, left, strict=False))


def unchanged(step: Step) -> dict[Key, Key]:
    """Return the wires that a step makes of one wire without a glyph, each with that wire."""
    return {
        ("wire", step.outs[port[0]], port[1]): ("wire", step.ins[link.ins[0][0]], link.ins[0][1])
        for link in step.links
        if link.kind in ("pass", "join", "fork")
        for port in link.outs
    }


__all__ = ["Key", "Pair", "alignment", "arrangement", "falling", "keeps_order", "outcome", "stays", "unchanged"]
