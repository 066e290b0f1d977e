"""Two operations drawn as one: a learned map and a rearrangement beside it, a contraction and its scale.

Of the first the regrouped axes are ports of the 𝐋 (Figures 21 and 28); of the second the scale stands at an arrow from
the cup (Figures 17 and 20).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from circuits.drawing.contents import Item
from circuits.drawing.operations import Drawn
from circuits.drawing.scene import Link, Port


def merged(items: Sequence[Item]) -> list[Item]:
    """Return boxes with regrouping as ports: a learned map and a rearrangement beside it are one 𝐋 (Figure 21)."""
    found: list[Item] = []
    used = Counter([number for item in items for number in item.needs])
    for item in items:
        previous = found[-1] if found else None
        joined = None if previous is None else _joined(previous, item, used)
        if joined is None:
            found.append(item)
        else:
            found[-1] = joined
    return found


def _joined(first: Item, second: Item, used: Mapping[int, int]) -> Item | None:
    """Return two boxes as one if one regroups the axes of the other, or scales its result; else None."""
    if first.drawn is None or second.drawn is None or first.closed or second.closed:
        return None
    between = [value.number for value in first.drawn.outs]
    if len(between) != 1 or [value.number for value in second.drawn.ins] != between or used[between[0]] != 1:
        return None
    if _is_regrouping(second.drawn) and _map_of(first.drawn) is not None:
        drawn = _after(first.drawn, second.drawn)
        return replace(first, drawn=drawn, also=(*first.also, second.id)) if drawn else None
    if _is_regrouping(first.drawn) and _map_of(second.drawn) is not None:
        drawn = _before(first.drawn, second.drawn)
        return replace(second, drawn=drawn, also=(first.id, *first.also)) if drawn else None
    if _is_scale(second.drawn) and any(link.kind == "cup" for link in first.drawn.links) and not first.drawn.scale:
        drawn = replace(first.drawn, outs=second.drawn.outs, scale=second.drawn.above)
        return replace(first, drawn=drawn, also=(*first.also, second.id))
    return None


def _is_scale(drawn: Drawn) -> bool:
    """Return whether an operation multiplies or divides by a number."""
    return bool(drawn.above) and drawn.above[0].text in ("× ", "÷ ") and len(drawn.ins) == 1


def _map_of(drawn: Drawn) -> Link | None:
    """Return the glyph of a learned map."""
    glyphs = [link for link in drawn.links if link.kind == "glyph"]
    return glyphs[0] if len(glyphs) == 1 and glyphs[0].shape in ("letter", "window", "transposed", "star") else None


def _is_regrouping(drawn: Drawn) -> bool:
    """Return whether an operation only moves, splits and merges axes."""
    kinds = {(link.kind, link.shape) for link in drawn.links}
    return kinds <= {("pass", ""), ("glyph", "bar")} and not drawn.above and len(drawn.ins) == 1 == len(drawn.outs)


def _after(first: Drawn, second: Drawn) -> Drawn | None:
    """Return a learned map whose outputs are regrouped: the bars after it become its own outputs."""
    glyph = _map_of(first)
    if glyph is None or not _bar_ports(second, "ins") <= set(glyph.outs):
        return None
    made = {link.ins[0]: link.outs[0] for link in second.links if link.kind == "pass"}
    bars = {port: (link.ins, link.outs) for link in second.links if link.kind == "glyph" for port in link.ins}
    outs, channels = (_through(ports, made, bars) for ports in (glyph.outs, glyph.channels[1]))
    links = [replace(link, outs=(made[link.outs[0]],)) for link in first.links if link is not glyph]
    whole = replace(_as_window(glyph), outs=outs, channels=(glyph.channels[0], channels))
    return Drawn(first.ins, second.outs, (*links, whole))


def _before(first: Drawn, second: Drawn) -> Drawn | None:
    """Return a learned map whose inputs are regrouped: the bars before it become its own inputs."""
    glyph = _map_of(second)
    if glyph is None or not _bar_ports(first, "outs") <= set(glyph.ins):
        return None
    read = {link.outs[0]: link.ins[0] for link in first.links if link.kind == "pass"}
    bars = {port: (link.outs, link.ins) for link in first.links if link.kind == "glyph" for port in link.outs}
    ins, channels = (_through(ports, read, bars) for ports in (glyph.ins, glyph.channels[0]))
    links = [replace(link, ins=(read[link.ins[0]],)) for link in second.links if link is not glyph]
    whole = replace(_as_window(glyph), ins=ins, beside=(), channels=(channels, glyph.channels[1]))
    return Drawn(first.ins, second.outs, (*links, whole))


def _bar_ports(drawn: Drawn, side: str) -> set[Port]:
    """Return the axes that bars take or make."""
    return {port for link in drawn.links if link.kind == "glyph" for port in getattr(link, side)}


def _through(
    ports: Sequence[Port], passed: Mapping[Port, Port], bars: Mapping[Port, tuple[tuple[Port, ...], tuple[Port, ...]]]
) -> tuple[Port, ...]:
    """Return the axes on the other side of a regrouping: those of a bar in the place of the first that it takes."""
    found: list[Port] = []
    for port in ports:
        if port in bars:
            near, far = bars[port]
            found += far if port == next(each for each in ports if each in near) else []
        else:
            found.append(passed[port])
    return tuple(found)


def _as_window(glyph: Link) -> Link:
    """Return the glyph of a convolution whose channels are regrouped: a window, as in Figure 28; others as they are."""
    return replace(glyph, shape="window", text=()) if glyph.shape == "star" else glyph


__all__ = ["merged"]
