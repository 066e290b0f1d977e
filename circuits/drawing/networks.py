"""From a LinearMap to a scene: its tensors as letters, its wires as lines, with cups, units and diagonals (Figure 18).

A tensor takes on its left the wires that are inputs of the map or come from a tensor before it, and makes the others on
its right. Tensors are named F, G, H, ... in the order in which the map is composed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

from circuits.algebra import LinearMap
from circuits.drawing.marks import Span
from circuits.drawing.options import Options
from circuits.drawing.scene import Link, Scene, Step, Strand, Wire
from circuits.drawing.wires import order_of

_LETTERS = ascii_uppercase[5:]


@dataclass
class _Lines:
    """The lines of a map at one place from left to right: each has the number of a wire of the network."""

    options: Options
    names: dict[int, str]
    sizes: dict[int, str]
    now: list[int]
    strands: list[Strand] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def strand(self, lines: list[int], names: Sequence[str] = ()) -> Strand:
        """Return a new strand with these lines, which have the names of their wires or those given."""
        shown_names = names or [self.names[each] for each in lines]
        wires = tuple([Wire((place,), shown_names[place], self.sizes[each]) for place, each in enumerate(lines)])
        shown = wires or (Wire((), "", scalar=True),)
        self.strands.append(Strand(len(self.strands), len(self.strands), shown, order_of(shown, self.options)))
        return self.strands[-1]

    def step(self, title: str, lines: list[int], links: list[Link], names: Sequence[str] = ()) -> None:
        """Add a step that leads to other lines."""
        before, after = self.strands[-1], self.strand(lines, names)
        if not self.now:
            links = [*links, Link("end", ((0, 0),))]
        if not lines:
            links = [*links, Link("start", (), ((0, 0),))]
        self.steps.append(Step(f"{len(self.steps)}", title, (before.id,), (after.id,), tuple(links)))
        self.now = lines


def scene_of_map(linear: LinearMap, options: Options) -> Scene:
    """Return what is drawn of a linear map.

    Args:
        linear: The map.
        options: The order of its axes, and whether sizes are shown.
    """
    count = len(linear.inputs)
    names = {wire: name for wire, (_, name) in linear.sizes.items()}
    names |= {wire: name for name, wire in zip((*linear.inputs, *linear.outputs), linear.wires, strict=True)}
    sizes = {wire: f"{size}" for wire, (size, _) in linear.sizes.items()}
    lines = _Lines(options, names, sizes, list(linear.wires[:count]))
    first = lines.strand(lines.now, linear.inputs)
    left = Counter(linear.wires[count:]) + Counter([wire for _, wires in linear.factors for wire in wires])
    _spread(lines, left)
    for number, (_, wires) in enumerate(linear.factors):
        left -= Counter(wires)
        _factor(lines, list(wires), _LETTERS[number % len(_LETTERS)])
        _spread(lines, left)
    _finish(lines, list(linear.wires[count:]), linear.outputs)
    title = f"{linear.signature}"
    outputs = ((lines.strands[-1].id, ""),)
    return Scene(title, tuple(lines.strands), ((first.id, ""),), outputs, tuple(lines.steps))


def _spread(lines: _Lines, left: Counter[int]) -> None:
    """Join lines of one wire, contract those that nothing takes any more, and copy those that several take."""
    links: list[Link] = []
    after: list[int] = []
    for wire in dict.fromkeys(lines.now):
        ports = tuple([(0, place) for place, each in enumerate(lines.now) if each == wire])
        outs = tuple([(0, len(after) + place) for place in range(left[wire])])
        if not outs:
            kind = "cup" if len(ports) == 2 else "end"
            links.append(Link(kind, ports, text=() if kind == "cup" else (Span("Σ", "upright"),)))
        elif len(ports) == len(outs) == 1:
            links.append(Link("pass", ports, outs))
        elif len(ports) == 1:
            links.append(Link("fork", ports, outs))
        else:
            links.append(Link("join", ports, outs[:1]))
            outs = outs[:1]
        after += [wire] * len(outs)
    if any(link.kind != "pass" for link in links):
        lines.step("wires", after, links)
        if Counter(after) != Counter({wire: left[wire] for wire in after}):
            _spread(lines, left)


def _factor(lines: _Lines, wires: list[int], letter: str) -> None:
    """Add a tensor: its wires that are there enter it, the others leave it."""
    taken: list[int] = []
    made: list[int] = []
    for wire in wires:
        place = next((place for place, each in enumerate(lines.now) if each == wire and place not in taken), None)
        taken += [] if place is None else [place]
        made += [wire] if place is None else []
    rest = [place for place in range(len(lines.now)) if place not in taken]
    at = sum([place < min(taken, default=len(lines.now)) for place in rest])
    after = [*[lines.now[place] for place in rest[:at]], *made, *[lines.now[place] for place in rest[at:]]]
    passed = [*range(at), *range(at + len(made), len(after))]
    links = [Link("pass", ((0, old),), ((0, new),)) for old, new in zip(rest, passed, strict=True)]
    ins, outs = tuple([(0, place) for place in taken]), tuple([(0, at + place) for place in range(len(made))])
    text = (Span(letter, "italic"),)
    if not lines.now:
        links = [*links, Link("end", ((0, 0),))]
        lines.now = [-1]
    before, strand = lines.strands[-1], lines.strand(after)
    links.append(Link("glyph", ins, outs or (() if after else ((0, 0),)), "letter", text))
    lines.steps.append(Step(f"{len(lines.steps)}", letter, (before.id,), (strand.id,), tuple(links)))
    lines.now = after


def _finish(lines: _Lines, outputs: list[int], names: Sequence[str]) -> None:
    """Add units for wires that only outputs have, and bring the lines into the order of the outputs."""
    missing = [wire for wire in dict.fromkeys(outputs) if wire not in lines.now]
    if not missing and lines.now == outputs and [lines.names[each] for each in outputs] == list(names):
        return
    places: dict[int, list[int]] = {}
    for place, wire in enumerate(lines.now):
        places.setdefault(wire, []).append(place)
    links: list[Link] = []
    units: dict[int, list[int]] = {}
    for new, wire in enumerate(outputs):
        if places.get(wire):
            links.append(Link("pass", ((0, places[wire].pop(0)),), ((0, new),)))
        else:
            units.setdefault(wire, []).append(new)
    for made in units.values():
        ports = tuple([(0, new) for new in made])
        links += [Link("unit", (), ports)] if len(ports) == 2 else [Link("start", (), (port,)) for port in ports]
    lines.step("wires", outputs, links, names)


__all__ = ["scene_of_map"]
