"""From links between axes, as the rules of operations give them, to links between the wires that are drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from circuits.drawing.contents import Item
from circuits.drawing.marks import Span
from circuits.drawing.operations import Drawn, without_pattern
from circuits.drawing.options import Options
from circuits.drawing.scene import Link, Port, Wire
from circuits.drawing.wires import axis_names, place_of
from circuits.errors import CircuitError

Sides = tuple[Sequence[tuple[Wire, ...]], Sequence[tuple[Wire, ...]]]
"""The wires of each tensor that a step reads, and of each that it makes."""


def links_of(item: Item, drawn: Drawn, sides: Sides, options: Options) -> tuple[Link, ...]:
    """Return the links of a step.

    Args:
        item: The operation or closed box.
        drawn: How it is drawn.
        sides: The wires of its tensors.
        options: Whether wires are axes or tensors.

    Raises:
        CircuitError: If an axis is hidden that the step does not leave untouched.
    """
    ins, outs = sides
    if options.wires == "tensors":
        return _tensor_links(drawn, item)
    found: dict[Link, None] = {}
    for link in drawn.links:
        before, after = _ports(link.ins, ins), _ports(link.outs, outs)
        _refuse_hidden(link, drawn, sides, item)
        if before or after or not (link.ins or link.outs):
            channels = (_ports(link.channels[0], ins), _ports(link.channels[1], outs))
            made = replace(link, ins=before, outs=after, beside=_ports(link.beside, ins), channels=channels)
            grouped = {len(link.ins), len(link.outs)} == {1, 2} and _is_pair(made, ins, outs)
            found[replace(made, kind="pass", shape="") if grouped and link.shape == "bar" else made] = None
    counts = [len(wires) for wires in ins], [len(wires) for wires in outs]
    links = (*found, *_of_hidden(drawn, sides))
    if _is_whole(links, *counts) and not (item.closed and len(links) > len(found)):
        return links
    return one_box(*counts, (Span(without_pattern(item.title), "sans"),))


def _ports(side: Iterable[Port], strands: Sequence[tuple[Wire, ...]]) -> tuple[Port, ...]:
    """Return the wires of some axes, each once, without those of hidden axes."""
    found = [(place, place_of(strands[place], axis)) for place, axis in side]
    return tuple(dict.fromkeys([(place, wire) for place, wire in found if wire is not None]))


def _refuse_hidden(link: Link, drawn: Drawn, sides: Sides, item: Item) -> None:
    """Raise CircuitError if a step changes or reads an axis that is hidden; it may repeat a tensor over it.

    A closed box is not looked at: what is in it has been, as if it were open.
    """
    ins, outs = (*link.ins, *link.beside), link.outs
    found = [(drawn.ins, sides[0], port) for port in ins] + [(drawn.outs, sides[1], port) for port in outs]
    hidden = [
        axis_names(values[place])[axis]
        for values, strands, (place, axis) in found
        if place_of(strands[place], axis) is None
    ]
    if not hidden or item.box.error or (link.kind == "glyph" and (item.closed or link.shape == "memory")):
        return
    if link.kind not in ("pass", "join", "fork", "start") or len(hidden) < len(found):
        raise CircuitError(f"draw: axis {hidden[0]} cannot be hidden: {item.title} does not leave it untouched")


def _of_hidden(drawn: Drawn, sides: Sides) -> list[Link]:
    """Return the links of the wires of tensors whose axes are all hidden: each has one wire, as a number has."""
    before, after = (
        tuple(
            [
                (place, 0)
                for place, (value, wires) in enumerate(zip(values, strands, strict=True))
                if value.sizes and wires[0].scalar
            ]
        )
        for values, strands in zip((drawn.ins, drawn.outs), sides, strict=True)
    )
    if before and after:
        return [Link("fork" if len(after) > 1 else "join" if len(before) > 1 else "pass", before, after)]
    return [*[Link("end", (port,)) for port in before], *[Link("start", (), (port,)) for port in after]]


def _is_pair(link: Link, ins: Sequence[tuple[Wire, ...]], outs: Sequence[tuple[Wire, ...]]) -> bool:
    """Return whether a link is between a pair of axes, drawn as one wire, and the same pair grouped."""
    if len(link.ins) != 1 or len(link.outs) != 1:
        return False
    return ins[link.ins[0][0]][link.ins[0][1]].double and outs[link.outs[0][0]][link.outs[0][1]].double


def _is_whole(links: tuple[Link, ...], ins: list[int], outs: list[int]) -> bool:
    """Return whether links take and make each wire once; they do not if the axes of a pair are not treated as one."""
    for counts, side in ((ins, "ins"), (outs, "outs")):
        wanted = [(place, wire) for place, count in enumerate(counts) for wire in range(count)]
        if sorted([port for link in links for port in getattr(link, side)]) != wanted:
            return False
    return True


def _tensor_links(drawn: Drawn, item: Item) -> tuple[Link, ...]:
    """Return the links of whole tensors: dots where they are added or copied, else a box with a name."""
    ins = tuple([(place, 0) for place in range(len(drawn.ins))])
    outs = tuple([(place, 0) for place in range(len(drawn.outs))])
    if drawn.above and len(ins) == len(outs) == 1:
        return (Link("pass", ins, outs),)
    if drawn.sign and len(outs) == 1:
        return (Link("join", ins, outs),)
    shapes = ("box", "letter", "star", "memory")
    named = [link for link in drawn.links if link.kind == "glyph" and link.shape in shapes and link.text]
    if named and named[0].shape == "memory":
        return (replace(named[0], ins=ins),)
    title = without_pattern(item.title)
    return one_box([1] * len(ins), [1] * len(outs), named[0].text if named else (Span(title, "sans"),))


def one_box(ins: Sequence[int], outs: Sequence[int], text: tuple[Span, ...]) -> tuple[Link, ...]:
    """Return a box to which every wire is attached.

    Args:
        ins: The number of wires of each tensor that it reads.
        outs: That of each that it makes.
        text: The text in the box.
    """
    before, after = (
        tuple([(place, wire) for place, count in enumerate(side) for wire in range(count)]) for side in (ins, outs)
    )
    return (Link("glyph", before, after, "box", text),)


__all__ = ["links_of", "one_box"]
